"""The shapes of the server's JSON, for its OpenAPI description."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """What `/solve` takes."""

    model_config = ConfigDict(extra="forbid")
    inputs: list[Any] = Field(description="samples, nested as the shape that /schema gives; finite numbers")
    x: bool = Field(False, description="reply with the solver's x too, where the solution is read from it")


class CertificateReply(BaseModel):
    """One property of one answer."""

    name: str
    label: str = Field(description="PASS, WARN or FAIL")
    value: float | None = Field(description="null where it is not finite")
    pass_limit: float | None
    warn_limit: float | None


class Answer(BaseModel):
    """The answer to one sample."""

    solution: Any
    label: str = Field(description="the worst label of its certificates; FAIL where the solve did not converge")
    trusted: bool = Field(description="whether it converged and passes every certificate")
    certificates: list[CertificateReply]
    status: str | None = Field(None, description="how the solve ended")
    message: str | None = Field(None, description="the status in words")
    residual: float | None = None
    steps: int | None = None
    x: Any = None


class Reply(BaseModel):
    """What `/solve` replies."""

    answers: list[Answer]


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


class Health(BaseModel):
    """What `/health` replies."""

    status: str
    inside: int = Field(description="requests that are being answered or wait")
    queue: int = Field(description="the most that may be")


class Inputs(BaseModel):
    """One sample."""

    shape: list[int]
    dtype: str


class Rule(BaseModel):
    """The limits of a certificate."""

    name: str
    pass_limit: float | None
    warn_limit: float | None


class Schema(BaseModel):
    """What `/schema` replies."""

    inputs: Inputs
    certificates: list[Rule]
    most_samples: int
    most_bytes: int
    most_seconds: float
