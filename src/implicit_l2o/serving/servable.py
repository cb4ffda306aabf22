"""What can be saved and served: a module that infers, without anything of a training."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from implicit_l2o import AbstractMeasure, Certificate, Inference


class AbstractServable(nn.Module, ABC):
    """A model as it is used: it infers, reads an answer from the inference, and names its certificates.

    What a subclass is made of has to be in its weights and in the arguments of its constructor: numbers, strings, and
    further classes with such arguments. So a folder with both makes the same model anywhere. It must not need the packages
    of a training.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.serving import AbstractServable
        >>> class Nonnegative(AbstractServable):
        ...     def __init__(self, size: int) -> None:
        ...         super().__init__()
        ...         self.layer = il2o.ImplicitLayer(
        ...             encoder=torch.nn.Linear(size, size),
        ...             build=lambda w: il2o.ForwardBackward(
        ...                 il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.NonnegativeOrthant())),
        ...             x0=torch.zeros_like,
        ...         )
        ...     def infer(self, d):
        ...         return self.layer.inference(d)
        >>> Nonnegative(2).infer(torch.zeros(3, 2)).x.shape
        torch.Size([3, 2])
    """

    @abstractmethod
    def infer(self, d: Tensor) -> Inference:
        """The model's answers to a batch `(B, *shape)`, with whatever is known of the solve."""

    def answer(self, inference: Inference) -> Tensor:
        """What the user wants of an inference, `(B, *shape)`: by default `x`; or the class, or the rounded decision."""
        return inference.x

    def certificates(self) -> Sequence[Certificate]:
        """Certificates with fixed limits; by default none."""
        return ()

    def measures(self) -> Sequence[AbstractMeasure]:
        """Properties whose limits were calibrated, and are saved beside the weights; by default none."""
        return ()

    def check(self, d: Tensor) -> None:
        """Raise a `ValueError` that says what a sample has to be, beyond its shape, its dtype and finite entries."""
