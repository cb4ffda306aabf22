"""What every decoder shares: it checks the costs, and gives the decisions in their dtype and on their device."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


class AbstractDecoder(ABC):
    """An exact solver of `x(c) = argmin {<c, x> : x in X}` for a finite, or an integer, set `X`.

    A decoder is piecewise constant in the costs, so its derivative is zero almost everywhere and its output carries no
    graph. To train through it, use `losses.spo_plus` or `losses.perturbed_fenchel_young`.
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of variables, the length of a cost vector."""

    @abstractmethod
    def solve(self, costs: NDArray[np.floating]) -> NDArray[np.floating]:
        """The decisions for finite costs `(B, n)`, contiguous and in float32 or float64, in the same dtype."""

    @final
    def __call__(self, costs: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
        """The decision of every sample.

        Args:
            costs: `(B, n)`, finite, of any floating dtype and on any device; the solver runs on the CPU.

        Raises:
            ValueError: the costs have another shape, or are not all finite.
        """
        name = type(self).__name__
        if costs.ndim != 2 or costs.shape[1] != self.n:
            raise ValueError(f"{name} takes costs of shape (B, {self.n}); got {tuple(costs.shape)}.")
        values = costs.detach().cpu()
        if values.dtype not in (torch.float32, torch.float64):
            values = values.to(torch.float64)
        # One sum finds what is not finite several times faster than `isfinite`; finite costs may overflow it, so look again.
        if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
            sample, entry = (~torch.isfinite(values)).nonzero()[0].tolist()
            raise ValueError(
                f"{name} needs finite costs; got {float(values[sample, entry])} at variable {entry} of sample {sample}."
            )
        return torch.from_numpy(self.solve(values.contiguous().numpy())).to(costs)


def decide_finite(decoder: Callable[[Tensor], Tensor], costs: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    """The decisions of samples whose costs are finite, NaN for the others: a broken sample spoils no batch mate.

    For costs that a model predicted: a NaN among its inputs is no mistake of the caller's, and its certificates say so.

    Args:
        decoder: from finite costs to decisions.
        costs: `(B, n)`.

    Example:
        >>> import torch
        >>> from implicit_l2o.decoders import MILP, decide_finite
        >>> import implicit_l2o as il2o
        >>> one_of_two = MILP(il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1)))
        >>> decide_finite(one_of_two, torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]))
        tensor([[1., 0.],
                [nan, nan]])
    """
    finite = torch.isfinite(costs).all(dim=1, keepdim=True)
    if bool(finite.all()):
        return decoder(costs)
    return torch.where(finite, decoder(torch.where(finite, costs, torch.zeros_like(costs))), torch.nan)


def to_numpy(value: Any) -> Any:
    """A tensor as a NumPy array, and everything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
