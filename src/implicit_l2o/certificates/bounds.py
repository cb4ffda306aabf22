"""A-posteriori bounds on unknown distances by the residual alone.

Sources: Davis and Yin, A Three-Operator Splitting Scheme (2017), for the iteration; Banach (1922) for the contraction.
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from implicit_l2o.certificates.base import AbstractMeasure, Inference
from implicit_l2o.operators.base import AbstractSet


@dataclass(frozen=True, eq=False)
class DavisYinDistance(AbstractMeasure):
    """A proven bound `dist(x, C2) <= |T(z) - z|` on the distance of a Davis-Yin answer to the set `C2` of `h`.

    With `x = P1(z)` the iteration is `T(z) - z = P2(2 x - z - step F(x)) - x`: the residual is the distance of `x` to
    one point of `C2`, so at least the distance to the nearest. It costs no projection, and holds whether or not the
    solve converged, up to rounding of the order of `eps |z|`. Douglas-Rachford is the case `F = 0`.

    Args:
        name: shown in the report.

    Raises:
        ValueError: the inference carries no residual or no problem, `h` is not a set, or the problem is not one of
            Davis-Yin (it has `K`, or `z` has not the shape of `x`). That Davis-Yin solved it is the caller's word.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.certificates import DavisYinDistance, Inference
        >>> problem = il2o.Problem(g=il2o.Box(lower=0.0), h=il2o.AffineSet(torch.ones(1, 2), torch.ones(1)))
        >>> solution = il2o.solve(il2o.DavisYin(problem, step=1.0), torch.tensor([[3.0, 1.0]]))
        >>> inference = Inference.of(solution, problem=problem)
        >>> bool(problem.h.violation(solution.x) <= DavisYinDistance()(inference) + 1e-6)
        True
    """

    name: str = field(default="distance to h's set (bound)", kw_only=True)

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The bound, per sample."""
        problem = inference.need_problem(self.name)
        if not isinstance(problem.h, AbstractSet):
            kind = type(problem.h).__name__
            raise ValueError(f"'{self.name}' needs a set as the problem's h; got {kind}, which has no distance.")
        if problem.K is not None or (inference.z is not None and inference.z.shape != inference.x.shape):
            raise ValueError(f"'{self.name}' holds for Davis-Yin and Douglas-Rachford alone; this solve was another.")
        return inference.need_residual(self.name)


@dataclass(frozen=True, eq=False)
class BanachBound(AbstractMeasure):
    """A proven bound `|z - z*| <= |T(z) - z| / (1 - gamma)` on the distance to the fixed point of a contraction.

    For `|T(y) - T(z)| <= gamma |y - z|` it follows from `|z - z*| <= |z - T(z)| + |T(z) - T(z*)|`. If the readout is
    nonexpansive the same bounds `|x - x*|`. Give only a factor that is proven, by spectral norms or strong convexity:
    for a measured one use `BanachEstimate`. Holds up to rounding of the order of `eps |z| / (1 - gamma)`.

    Args:
        gamma: proven contraction factor, in [0, 1), of all samples.
        name: shown in the report.

    Raises:
        ValueError: gamma outside [0, 1), or no residual.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import BanachBound, Inference
        >>> BanachBound(0.5)(Inference(x=torch.zeros(1, 3), residual=torch.tensor([0.25])))
        tensor([0.5000])
    """

    gamma: float
    name: str = field(default="distance to the fixed point (bound)", kw_only=True)

    def __post_init__(self) -> None:
        _check_gamma(self.gamma, "BanachBound", "a proven")

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The bound, per sample."""
        return inference.need_residual(self.name) / (1 - self.gamma)


@dataclass(frozen=True, eq=False)
class BanachEstimate(AbstractMeasure):
    """An estimate `|T(z) - z| / (1 - gamma)` of the distance to the fixed point, with a measured `gamma`: no bound.

    Args:
        gamma: estimated contraction factor, in [0, 1), e.g. the largest of `contraction_estimate`.
        name: shown in the report; it must contain the word "estimate".

    Raises:
        ValueError: gamma outside [0, 1), a name that hides that it is an estimate, or no residual.

    Example:
        >>> import torch
        >>> from implicit_l2o.certificates import BanachEstimate
        >>> BanachEstimate(0.9).name
        'distance to the fixed point (estimate)'
    """

    gamma: float
    name: str = field(default="distance to the fixed point (estimate)", kw_only=True)

    def __post_init__(self) -> None:
        _check_gamma(self.gamma, "BanachEstimate", "an estimated")
        if "estimate" not in self.name:
            raise ValueError(f"the name of a BanachEstimate must contain the word 'estimate'; got name={self.name!r}.")

    def __call__(self, inference: Inference) -> Float[Tensor, " B"]:
        """The estimate, per sample."""
        return inference.need_residual(self.name) / (1 - self.gamma)


def _check_gamma(gamma: float, owner: str, kind: str) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(f"{owner} needs {kind} contraction factor 0 <= gamma < 1; got gamma={gamma}.")
