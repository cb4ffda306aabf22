"""The application: three addresses, and a sentence of JSON for everything that can go wrong."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

import implicit_l2o as il2o
from implicit_l2o.serving.errors import InputError
from implicit_l2o.serving.http import models
from implicit_l2o.serving.http.limits import Limits
from implicit_l2o.serving.http.parse import parse
from implicit_l2o.serving.http.reply import reply, schema
from implicit_l2o.serving.http.worker import Busy, SolveTimeout, Workers
from implicit_l2o.serving.layer import Layer

_log = logging.getLogger(__name__)
_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {"model": models.Reply},
    **{
        code: {"model": models.Problem, "description": text}
        for code, text in {
            408: "the body did not come in time",
            413: "the body has too many bytes",
            415: "the body is not declared as JSON",
            422: "the inputs are not what /schema says",
            500: "the layer failed; the server's log says how",
            503: "too many requests",
            504: "the solve took too long",
        }.items()
    },
}
_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": models.Request.model_json_schema()}}}
}


def make_app(layer: Layer, limits: Limits | None = None, *, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The ASGI application that answers by a layer.

    Args:
        layer: loaded, or made here.
        limits: None takes the defaults.
        hosts: names under which it may be addressed; others are refused, so that no foreign name can be pointed
            at it.

    Example:
        >>> import torch
        >>> from fastapi.testclient import TestClient
        >>> from implicit_l2o.applications.shortest_path.served import ServedPaths
        >>> from implicit_l2o.serving import Layer
        >>> from implicit_l2o.serving.http.app import make_app
        >>> layer = Layer(ServedPaths(side=2, features=2), example=torch.zeros(1, 2))
        >>> with TestClient(make_app(layer)) as client:
        ...     [answer] = client.post("/solve", json={"inputs": [[0.0, 1.0]]}).json()["answers"]
        >>> answer["status"], answer["label"], len(answer["solution"])
        ('CONVERGED', 'PASS', 4)
    """
    limits = Limits() if limits is None else limits
    workers = Workers(layer, limits)
    most_bytes = limits.body_for(math.prod(layer.shape))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        workers.close()

    # The pages of FastAPI's documentation load scripts from elsewhere; the description itself stays.
    app = FastAPI(title="implicit_l2o", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)

    @app.get("/health", response_model=models.Health)
    async def health() -> dict[str, Any]:
        """Whether the server answers, and how busy it is."""
        return {"status": "ok", "inside": workers.inside, "queue": limits.queue}

    @app.get("/schema", response_model=models.Schema)
    async def describe() -> dict[str, Any]:
        """What the layer takes, what it certifies, and the bounds of a request."""
        bounds = {"most_samples": limits.batch, "most_bytes": most_bytes, "most_seconds": limits.seconds}
        return schema(layer) | bounds

    @app.post("/solve", responses=_REPLIES, openapi_extra=_BODY)
    async def solve(request: Request) -> JSONResponse:
        """The solutions of a batch, each with its status and its certificates."""
        try:
            async with workers:
                body = await _body(request, most_bytes, limits.seconds)
                d, wants_x = parse(body, layer, limits.batch)
                return JSONResponse(reply(await workers.answer(d), wants_x=wants_x))
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        except Busy as error:
            raise HTTPException(503, str(error), headers={"Retry-After": "1"}) from error
        except SolveTimeout as error:
            raise HTTPException(504, str(error)) from error
        except (HTTPException, asyncio.CancelledError):
            raise
        except il2o.ConvergenceError as error:  # of a layer that raises instead of giving a status
            raise HTTPException(422, str(error)) from error
        except Exception as error:
            _log.exception("the layer failed")
            raise HTTPException(500, "the layer failed on these inputs.") from error

    return app


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """The body, never more than permitted of it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "the content type must be application/json.")
    stated = request.headers.get("content-length", "0")
    if not stated.isdigit() or len(stated) > 18 or int(stated) > most:
        raise HTTPException(413, f"a body of at most {most} bytes is permitted.")
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise HTTPException(413, f"a body of at most {most} bytes is permitted.")
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not come within {seconds:g} seconds.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client left.") from error
    return b"".join(parts)
