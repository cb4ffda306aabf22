"""What the server permits; every bound that a request meets stands here."""

from dataclasses import dataclass

from implicit_l2o.serving.errors import LimitError

_BYTES_A_NUMBER = 32  # of JSON: 17 digits, sign, exponent, comma and space, and some brackets


@dataclass(frozen=True)
class Limits:
    """Bounds on what a request may ask for and on how much is done at once.

    Args:
        batch: the most samples of a request.
        seconds: the most that a solve takes, and the most that a request waits for its turn, and for its body.
        workers: solves at once. PyTorch uses several cores for one already, where it has them.
        queue: requests that may be inside at once, those being solved included; more are told to come back.
        body: bytes of a request; None takes what `batch` samples can need.

    Raises:
        LimitError: a bound is not positive.

    Example:
        >>> from implicit_l2o.serving.http.limits import Limits
        >>> Limits(batch=2).body_for(100)
        10496
    """

    batch: int = 64
    seconds: float = 30.0
    workers: int = 1
    queue: int = 64
    body: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "seconds", "workers", "queue", "body"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise LimitError(f"Limits needs {name} > 0; got {name}={value}.")

    def body_for(self, numbers: int) -> int:
        """Bytes of a request whose samples have so many numbers."""
        return 4096 + _BYTES_A_NUMBER * numbers * self.batch if self.body is None else self.body
