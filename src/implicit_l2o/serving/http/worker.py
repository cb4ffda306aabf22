"""Solves in threads of their own: so many at once, so many waiting, and none longer than permitted."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

from torch import Tensor
from torch.overrides import TorchFunctionMode

from implicit_l2o.serving.http.limits import Limits
from implicit_l2o.serving.layer import Answers, Layer


class Busy(RuntimeError):
    """There are as many requests inside as permitted, or this one has waited for its turn too long."""


class SolveTimeout(RuntimeError):
    """A solve took longer than permitted and was ended."""


class Deadline(TorchFunctionMode):
    """Within it, the next operation of PyTorch after so many seconds raises `SolveTimeout`.

    It concerns the thread that enters it. A single operation is not interrupted, and neither is work outside PyTorch.

    Args:
        seconds: from now.

    Example:
        >>> import torch
        >>> from implicit_l2o.serving.http.worker import Deadline, SolveTimeout
        >>> try:
        ...     with Deadline(0.01):
        ...         while True:
        ...             _ = torch.ones(3) + 1
        ... except SolveTimeout as error:
        ...     print(error)
        the solve took more than 0.01 seconds and was ended.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, unless it is too late."""
        if time.monotonic() > self._end:
            raise SolveTimeout(f"the solve took more than {self._seconds:g} seconds and was ended.")
        return func(*args, **(kwargs or {}))


@final
class Workers:
    """Answers batches by a layer, under the limits.

    Args:
        layer: answers.
        limits: how many at once, how many inside, how long.
    """

    def __init__(self, layer: Layer, limits: Limits) -> None:
        self._layer, self._limits = layer, limits
        self._pool = ThreadPoolExecutor(max_workers=limits.workers, thread_name_prefix="solve")
        self._inside = 0

    @property
    def inside(self) -> int:
        """Requests that are being read, waiting or solved."""
        return self._inside

    async def __aenter__(self) -> "Workers":
        """A request comes in.

        Raises:
            Busy: there is no room for it.
        """
        if self._inside >= self._limits.queue:
            raise Busy(f"{self._inside} requests are being answered already; try again.")
        self._inside += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        """It leaves."""
        self._inside -= 1

    async def answer(self, d: Tensor) -> Answers:
        """The answers, in the turn of the request.

        Raises:
            Busy: its turn did not come in time.
            SolveTimeout: the solve took too long.
        """
        latest = time.monotonic() + self._limits.seconds
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._solve, d, latest)

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _solve(self, d: Tensor, latest: float) -> Answers:
        if time.monotonic() > latest:
            raise Busy(f"the request waited for more than {self._limits.seconds:g} seconds; try again.")
        with Deadline(self._limits.seconds):
            return self._layer(d)
