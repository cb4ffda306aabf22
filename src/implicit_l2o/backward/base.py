"""What a backward mode is: it receives the solve, and attaches one application of `T` under a rule for the cotangent."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, failed
from implicit_l2o.solvers.base import AbstractFixedPointSolver, Map

Rule = Callable[[Map, Tensor, Tensor], Tensor]  # (T, z, cotangent v) -> the cotangent that T's parameters receive


class AbstractBackward(ABC):
    """How a fixed point gets its gradient; knows neither the solver nor the splitting."""

    @abstractmethod
    def run(self, T: Map, z0: Float[Tensor, "B *shape"], solver: AbstractFixedPointSolver) -> FixedPoint:
        """Solve `z = T(z)` and return a fixed point that carries the mode's gradient when gradients are enabled."""


def attach(T: Map, point: FixedPoint, step: Callable[[Map, Tensor, Tensor], Tensor]) -> Tensor:
    """`step(T, z*, index)`: `T(z*)` recorded by autograd under a mode's rule, on the samples `index` that did not fail.

    A `T` that can be restricted runs on the good samples alone, so that a bad one contributes exactly nothing. A bare
    closure runs on all of them, and its bad samples receive a zero cotangent.
    """
    if not torch.is_grad_enabled():
        return point.z
    everyone = torch.arange(len(point.z), device=point.z.device)
    bad = failed(point.status)
    if not bool(bad.any()):
        return step(T, point.last, everyone)
    restrict = getattr(T, "restrict", None)
    if restrict is None:
        failed_rows = _batch.expand(bad, point.z)
        # Constant on its failed samples, T has derivative zero there, even where its own would be NaN.
        return step(lambda z: torch.where(failed_rows, point.z, T(z)), point.last, everyone)
    good = everyone[~bad]
    if len(good) == 0:
        return point.z
    return point.z.index_copy(0, good, step(restrict(good), point.last[good], good))


class CotangentRule(torch.autograd.Function):
    """The identity, whose backward replaces the cotangent `v` of `z = T(z*)` by `rule(T, z, v)`."""

    @staticmethod
    def forward(z: Tensor, T: Map, rule: Rule, refusal: str | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass `z` on."""
        return z.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the point: unpacked in a differentiable backward it carries this very gradient."""
        _, ctx.T, ctx.rule, ctx.refusal = inputs  # pyright: ignore[reportAttributeAccessIssue]
        ctx.save_for_backward(output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple[Tensor | None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the rule, outside autocast like the forward solve."""
        if v is None:
            return None, None, None, None
        if torch.is_grad_enabled() and ctx.refusal is not None:
            raise RuntimeError(ctx.refusal)
        (z,) = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            return ctx.rule(ctx.T, z, v), None, None, None


class OutsideAutocast(torch.autograd.Function):
    """The identity, from which on a backward pass leaves autocast, wherever `backward()` is called.

    PyTorch runs the derivatives of a step under the autocast of the caller of `backward()`. The solve and its attached
    step were recorded outside, and their derivatives belong there too: a product rounded to bfloat16 would put 1e-2 on
    the gradient. What lies behind them, the encoder, follows: it keeps the dtypes it was recorded with.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass `x` on."""
        return x.clone()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass the cotangent on; only inside autocast, where nobody should be, is there anything to do."""
        device = v.device.type
        if torch.is_autocast_enabled(device):
            # The engine restores the caller's state for every node, so each one has to leave for itself. None of them
            # has run yet: they wait for this cotangent.
            for node in _behind(ctx):
                node.register_prehook(lambda _: torch.set_autocast_enabled(device, False))
        return v

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Forward mode (through `Unrolled`) runs where the forward pass does."""
        return tangent.clone()


def _behind(node: Any) -> set[Any]:
    """The nodes of the graph behind `node`, but for those that only add to a `.grad`: they outlive the graph."""
    found: set[Any] = set()
    ahead = [node]
    while ahead:
        new = {child for child, _ in ahead.pop().next_functions if child is not None} - found
        new = {child for child in new if not hasattr(child, "variable")}
        found |= new
        ahead += new
    return found


def refuse_double_backward(mode: str) -> str:
    """The error of a mode whose gradient is not the derivative of `z`, so that differentiating it again is meaningless."""
    return (
        f"{mode} cannot be differentiated twice (backward was called with create_graph=True): its gradient is not the "
        "derivative of the fixed point. Use Implicit() or Unrolled(steps)."
    )


def pullback(T: Map, z: Tensor) -> Callable[[Tensor], Tensor]:
    """Linearise `T` at `z` once; the result maps a cotangent `v` to `v dT/dz` without a graph."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        image = T(point)
    return _product(image, point)


def pullback_and_pushforward(T: Map, z: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Linearise `T` at `z` once: `v -> v dT/dz` as `pullback`, and its transpose `w -> (dT/dz) w`.

    `v -> v dT/dz` is linear in `v`, so that its own derivative is its transpose: no operation of `T` needs forward mode.
    """
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        image = T(point)
        probe = torch.zeros_like(image, requires_grad=True)
        pulled = (
            torch.autograd.grad(image, point, probe, create_graph=True, materialize_grads=True)[0]
            if image.requires_grad
            else torch.zeros_like(point)
        )
    return _product(image, point), _product(pulled, probe)


def _product(output: Tensor, at: Tensor) -> Callable[[Tensor], Tensor]:
    def apply(v: Tensor) -> Tensor:
        if not output.requires_grad:
            return torch.zeros_like(v)
        return torch.autograd.grad(output, at, v, retain_graph=True, materialize_grads=True)[0].detach()

    return apply
