"""The gradients of one sample's loss under several backward modes, at the same fixed point."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.experiment.errors import ConfigurationError, one_line
from implicit_l2o.experiment.recording import iterating
from implicit_l2o.training import AbstractTask, Scene
from implicit_l2o.training.callbacks._implicit import backward_modes, implicit_modules


@dataclass(frozen=True, eq=False, kw_only=True)
class Gradient:
    """What one mode gives.

    Attributes:
        name: of the mode.
        value: `(*shape)` the gradient; None where the loss has none in the parameters.
        norm: its Euclidean norm.
        solved: whether the adjoint equation was solved, where the mode has one; where not, this is the JFB gradient.
    """

    name: str
    value: Tensor | None
    norm: float
    solved: bool


def read_mode(text: str) -> il2o.AbstractBackward:
    """A backward mode by its class path, or by a YAML mapping with `class_path` and `init_args`.

    Raises:
        ConfigurationError: there is no such class, it is no backward mode, or it does not take these arguments.

    Example:
        >>> from implicit_l2o.experiment.gradients import read_mode
        >>> read_mode("implicit_l2o.JFB"), read_mode("{class_path: implicit_l2o.Neumann, init_args: {k: 8}}")
        (JFB(), Neumann(k=8))
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--backward", type=il2o.AbstractBackward)
    make = getattr(parser, "instantiate", parser.instantiate_classes)  # its name before jsonargparse 4.49
    try:
        mode = make(parser.parse_args([f"--backward={text}"]))["backward"]
    except Exception as error:  # of whatever class it names
        raise ConfigurationError(
            f"backward: {text!r} names no backward mode; such are implicit_l2o.JFB, implicit_l2o.Implicit and "
            '"{class_path: implicit_l2o.Neumann, init_args: {k: 8}}".'
        ) from error
    if not isinstance(mode, il2o.AbstractBackward):
        raise ConfigurationError(f"backward: {text!r} is no backward mode but {one_line(type(mode).__name__)}")
    return mode


def in_words(mode: il2o.AbstractBackward) -> str:
    """A mode's name, with its number where it has one.

    Example:
        >>> import implicit_l2o as il2o
        >>> from implicit_l2o.experiment.gradients import in_words
        >>> in_words(il2o.Implicit()), in_words(il2o.Neumann(8))
        ('Implicit', 'Neumann(8)')
    """
    number = getattr(mode, "k", getattr(mode, "steps", None))
    return type(mode).__name__ + (f"({number})" if isinstance(number, int) else "")


@torch.enable_grad()
def compare(
    task: AbstractTask, scene: Scene, batch: Sequence[Tensor], modes: Sequence[il2o.AbstractBackward]
) -> list[Gradient]:
    """The gradient of one sample's loss in its parameters, by each mode; nothing of the task is changed.

    The loss is half the squared distance of `x` to the target where both have one shape, else the task's own.

    Args:
        task: in evaluation mode.
        scene: says what the parameters are.
        batch: of one sample, with its target.
        modes: to compare.
    """
    return [_gradient(task, scene, batch, mode) for mode in modes]


def _gradient(task: AbstractTask, scene: Scene, batch: Sequence[Tensor], mode: il2o.AbstractBackward) -> Gradient:
    reports: list[il2o.AdjointReport] = []
    replaced = backward_modes(implicit_modules(task), lambda _: _Noted(mode, reports))
    with replaced, iterating(task), warnings.catch_warnings():
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # `solved` says it
        p, solve = _split(task, scene, batch[0])
        if p is None:
            return Gradient(name=in_words(mode), value=None, norm=0.0, solved=True)
        loss = _loss(task, solve(p), batch)
        if not loss.requires_grad:
            return Gradient(name=in_words(mode), value=None, norm=0.0, solved=True)
        (gradient,) = torch.autograd.grad(loss, p, allow_unused=True)
    known = [report.status for report in reports if report.status is not None]
    if gradient is None or not bool(torch.isfinite(gradient).all()):
        return Gradient(name=in_words(mode), value=None, norm=0.0, solved=True)
    return Gradient(
        name=in_words(mode),
        value=gradient[0].detach(),
        norm=float(torch.linalg.vector_norm(gradient.double())),
        solved=not any(bool((status == il2o.Status.MAX_STEPS).any()) for status in known),
    )


def _split(task: AbstractTask, scene: Scene, d: Tensor) -> tuple[Tensor | None, Any]:
    if scene.split is None:
        return (d.detach().clone().requires_grad_(), task.infer) if d.is_floating_point() else (None, None)
    with torch.no_grad():
        p, solve = scene.split(d)
    return p.detach().clone().requires_grad_(), solve


def _loss(task: AbstractTask, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
    x = inference.x
    if len(batch) > 1 and batch[1].shape == x.shape and batch[1].is_floating_point():
        return (x - batch[1]).square().sum() / 2
    return task.loss(inference, batch)


def cosine(a: Float[Tensor, "*shape"] | None, b: Float[Tensor, "*shape"] | None) -> float | None:
    """Of the angle between two gradients; None where one is missing or vanishes.

    Example:
        >>> import torch
        >>> from implicit_l2o.experiment.gradients import cosine
        >>> cosine(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])), cosine(torch.zeros(2), torch.ones(2))
        (1.0, None)
    """
    if a is None or b is None:
        return None
    u, v = a.double().flatten(), b.double().flatten()
    sizes = float(u.norm()), float(v.norm())
    if 0.0 in sizes:
        return None
    return max(-1.0, min(1.0, float(torch.dot(u / sizes[0], v / sizes[1]))))


@dataclass(frozen=True, eq=False)
class _Noted(il2o.AbstractBackward):
    """A mode that keeps how its adjoint equations went."""

    mode: il2o.AbstractBackward
    reports: list[il2o.AdjointReport] = field(repr=False)

    def run(self, T: Any, z0: Float[Tensor, "B *shape"], solver: il2o.AbstractFixedPointSolver) -> il2o.FixedPoint:
        """The mode's own."""
        point = self.mode.run(T, z0, solver)
        if point.adjoint is not None:
            self.reports.append(point.adjoint)
        return point
