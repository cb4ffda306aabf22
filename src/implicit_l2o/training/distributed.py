"""What a process owes the others: its share of every gradient, draws of its own, and a clear end."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def reach_all(loss: Tensor, module: nn.Module) -> Tensor:
    """The loss, whose gradient is zero instead of none in the module's trainable parameters that it does not depend on.

    Several processes average their gradients parameter by parameter, and each waits for the others. A batch may leave
    parameters out: a failed sample gives no gradient, and a shard of failed samples gives none at all, so that the loss has
    no graph. With this no process waits for ever, and one process alone makes the step that several make.

    Args:
        loss: of the batch, a scalar.
        module: what is trained.

    Example:
        >>> import torch
        >>> from implicit_l2o.training.distributed import reach_all
        >>> layer = torch.nn.Linear(2, 1)
        >>> reach_all(torch.tensor(3.0), layer).backward()  # a loss that nothing depends on
        >>> layer.weight.grad
        tensor([[0., 0.]])
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters or not torch.is_grad_enabled():
        return loss
    return _ReachAll.apply(loss, *parameters)  # pyright: ignore[reportReturnType]


def part_ways() -> None:
    """Wait for the other processes, then end what connects them: from here on each of them works alone.

    As long as they are connected, whatever one of them computes alone (a metric, a calibration) waits for the others, who do
    not come. The next `Trainer` connects them again. Nothing happens in a single process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def draw_apart(rank: int) -> None:
    """Let this process draw other random numbers than the first one, whose numbers stay as they were.

    All start from the run's seed, so that they build the same model. Afterwards the same numbers on each would give the
    samples of every process the same noise.

    Args:
        rank: of this process, from 0.
    """
    if rank:
        mixed = np.random.SeedSequence((torch.initial_seed(), rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))


class _ReachAll(torch.autograd.Function):
    """The identity in the loss, with an exact zero for the parameters: `0 * p` would pass on what is not finite."""

    @staticmethod
    def forward(loss: Tensor, *parameters: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return loss.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.parameters = [(p.shape, p.dtype, p.device) for p in inputs[1:]]  # pyright: ignore[reportAttributeAccessIssue]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        zeros = (torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.parameters)
        return v, *zeros
