"""A model with its certificates and the shape of its inputs: what is saved, loaded and served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.serving.errors import InputError
from implicit_l2o.serving.servable import AbstractServable


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What a layer says of a batch.

    Attributes:
        answer: `(B, *shape)` what the user wants: `x`, or the class or decision that is read from it.
        x: `(B, *shape)` the solutions.
        status: `(B,)` integers of `Status`; None where nothing was solved.
        residual: `(B,)` Euclidean `|T(z) - z|`; None as above.
        steps: `(B,)` iterations; None as above.
        report: values and labels of the certificates.
    """

    answer: Tensor
    x: Tensor
    status: Int[Tensor, " B"] | None
    residual: Float[Tensor, " B"] | None
    steps: Int[Tensor, " B"] | None
    report: il2o.CertificateReport


@final
class Layer:
    """A servable model in evaluation mode, with its certificates; calling it infers without a graph.

    Args:
        model: with the weights that will be used; it is put into evaluation mode.
        example: `(B, *shape)` inputs with B >= 1: they say the shape and dtype of a sample, and the answers to them are
            saved with the model and compared when it is loaded.
        calibrated: the certificates of the model's `measures`, with their limits.

    Raises:
        ValueError: the example is no batch of inputs, or the calibrated certificates are not those of the measures.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.shortest_path.served import ServedPaths
        >>> from implicit_l2o.serving import Layer
        >>> layer = Layer(ServedPaths(side=3), example=torch.zeros(1, 5))
        >>> answers = layer(torch.ones(2, 5))
        >>> answers.answer.shape, answers.report.names
        (torch.Size([2, 12]), ('constraint violation', "distance to h's set (bound)"))
    """

    def __init__(
        self, model: AbstractServable, *, example: Tensor, calibrated: Sequence[il2o.Certificate] = ()
    ) -> None:
        if not isinstance(model, AbstractServable):
            raise ValueError(f"Layer takes an AbstractServable; got {type(model).__name__}.")
        if example.ndim == 0 or len(example) == 0:
            raise ValueError(f"Layer needs an example of at least one sample (B, *shape); got {tuple(example.shape)}.")
        names = [measure.name for measure in model.measures()]
        if calibrated and [certificate.name for certificate in calibrated] != names:
            found = [certificate.name for certificate in calibrated]
            raise ValueError(f"the calibrated certificates must be those of the measures, {names}; got {found}.")
        self.model = model.eval()
        self.example = example.detach().clone()
        self.calibrated = tuple(calibrated)
        self.certificates = (*model.certificates(), *self.calibrated)
        self.check(example)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.example.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        return self.example.dtype

    def check(self, d: Tensor) -> None:
        """Raise an `InputError` unless `d` is a batch of inputs that this layer takes."""
        if d.ndim != len(self.shape) + 1 or tuple(d.shape[1:]) != self.shape:
            wanted = ", ".join(("B", *map(str, self.shape)))
            raise InputError(f"inputs of shape ({wanted}) are needed; got {tuple(d.shape)}.")
        if d.dtype != self.dtype:
            raise InputError(f"inputs in {self.dtype} are needed; got {d.dtype}.")
        if d.is_floating_point():
            broken = (~torch.isfinite(d)).flatten(1).any(1)
            if bool(broken.any()):
                raise InputError(f"inputs must be finite; sample {int(broken.nonzero()[0])} has NaN or infinity.")
        try:
            self.model.check(d)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from error

    @torch.no_grad()
    def __call__(self, d: Tensor) -> Answers:
        """The answers to a batch.

        Args:
            d: `(B, *shape)`, finite, in the layer's dtype.

        Raises:
            InputError: `d` is not that.
        """
        self.check(d)
        inference = self.model.infer(d)
        return Answers(
            answer=self.model.answer(inference),
            x=inference.x,
            status=inference.status,
            residual=inference.residual,
            steps=inference.steps,
            report=il2o.certify(self.certificates, inference),
        )
