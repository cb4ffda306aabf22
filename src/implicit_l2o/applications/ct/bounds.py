"""Bounds on what a reconstruction claims, by Lagrangian duality: computable from one sinogram-sized multiplier.

For the images of the box that explain a measurement, `C = {x in [0, 1]^n : |A x - d| <= rho}`, every multiplier `v` (of the
shape of `d`) and every vector `g` give

    <g, y> = <g + A^T v, y> - <v, A y>  >=  sum_i min(0, (g + A^T v)_i) - <v, d> - rho |v|     for all y in C.

With the gradient of a convex function as `g` this bounds how far an image is from the best one; with `g = 0` it proves,
where the right side is positive, that `C` is empty. The bounds hold for any `v`; a good one makes them tight. Source:
Lagrangian duality (Boyd and Vandenberghe, Convex Optimization, section 5.2); for `g` a gradient, the gap of Frank and
Wolfe (1956).
"""

import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o

_DOUBLINGS = 60  # of the bracket around the best length of a multiplier
_HALVINGS = 60


def suboptimality(
    A: il2o.AbstractLinearOperator,
    x: Float[Tensor, "B *image"],
    gradient: Float[Tensor, "B *image"],
    d: Float[Tensor, "B *sinogram"],
    radius: Float[Tensor, " B"],
    direction: Float[Tensor, "B *sinogram"],
) -> Float[Tensor, " B"]:
    """An upper bound on `f(x) - min {f(y) : y in [0, 1]^n, |A y - d| <= radius}` for a convex `f`.

    By convexity `f(y) >= f(x) + <grad f(x), y - x>`, so `f(x) - f(y) <= <g, x> - <g, y>` and, for every `t >= 0`,

        f(x) - f*  <=  <g, x> - sum_i min(0, (g + t A^T u)_i) + t <u, d> + t radius |u|.

    The least of these over `t` is returned. It is zero where `x` is optimal and `u` points along the multiplier of the ball,
    which is `A x - d` if the ball is active there. It holds for every `x`: one outside the constraints may be better than
    every image inside, so read it beside their certificates.

    Args:
        A: the projector.
        x: the image.
        gradient: of `f` at `x`.
        d: the measurement.
        radius: of the ball, in the unit of `d`.
        direction: `u`, of any length.

    Returns:
        The bound per sample, in the unit of `f`, in double precision; up to the rounding of `A`. Infinite where `u` proves
        that no image meets the constraints, for then there is no best one.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.bounds import suboptimality
        >>> A, d = il2o.Matrix(torch.eye(1)), torch.tensor([[0.75]])
        >>> x = torch.tensor([[0.5]])  # the least of f(x) = x with |x - 0.75| <= 0.25
        >>> suboptimality(A, x, torch.ones(1, 1), d, torch.tensor([0.25]), A.apply(x) - d).round(decimals=6)
        tensor([0.], dtype=torch.float64)
    """
    g, unit = _flat(gradient), _unit(_flat(direction))
    pull = _flat(A.adjoint(unit.reshape(d.shape).to(d.dtype)))
    slope = (unit * _flat(d)).sum(1) + radius.double() * unit.norm(dim=1)
    length = _best_length(g, pull, slope)
    reach = (g + length[:, None] * pull).clamp_max(0).sum(1)
    bound = (g * _flat(x)).sum(1) - reach + length * slope
    empty = slope < pull.clamp_max(0).sum(1)  # the bound falls for ever: u separates the ball from all sinograms
    return torch.where(empty, torch.inf, bound)


def least_misfit(
    A: il2o.AbstractLinearOperator,
    x: Float[Tensor, "B *image"],
    d: Float[Tensor, "B *sinogram"],
    *,
    steps: int = 100,
) -> Float[Tensor, " B"]:
    """A lower bound on `min {|A y - d| : y in [0, 1]^n}`: no image of the box explains the measurement better.

    For every unit vector `u` and every `y` of the box, `|A y - d| >= <u, A y - d> >= sum_i min(0, (A^T u)_i) - <u, d>`. With
    `u` along `A y - d` at the minimiser it is tight; that is approached from `x` by accelerated projected gradient steps.

    Args:
        A: the projector.
        x: where the search begins; the answer of a solve is a good place.
        d: the measurement.
        steps: of the search, at least 0. Every number of steps gives a valid bound.

    Returns:
        The bound per sample, in the unit of `d`, in double precision; at least 0. Up to the rounding of `A`.

    Raises:
        ValueError: `steps` is negative.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.applications.ct.bounds import least_misfit
        >>> A, d = il2o.Matrix(torch.eye(1)), torch.tensor([[3.0], [0.5]])
        >>> least_misfit(A, torch.zeros(2, 1), d)
        tensor([2., 0.], dtype=torch.float64)
    """
    if steps < 0:
        raise ValueError(f"least_misfit needs steps >= 0; got steps={steps}.")
    y = x.nan_to_num(0.0).clamp(0, 1)
    bound = _misfit_bound(A, y, d)
    ahead, momentum = y, 1.0
    step = 1.0 / A.norm_bound**2
    for _ in range(steps):  # Beck and Teboulle (2009)
        after = (ahead - step * A.adjoint(A.apply(ahead) - d)).clamp(0, 1)
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = after + (momentum - 1) / grown * (after - y)
        y, momentum = after, grown
    return torch.maximum(bound, _misfit_bound(A, y, d)).clamp_min(0)


def _misfit_bound(A: il2o.AbstractLinearOperator, y: Tensor, d: Tensor) -> Tensor:
    unit = _unit(_flat(A.apply(y) - d))
    pull = _flat(A.adjoint(unit.reshape(d.shape).to(d.dtype)))
    return pull.clamp_max(0).sum(1) - (unit * _flat(d)).sum(1)


def _best_length(g: Tensor, pull: Tensor, slope: Tensor) -> Tensor:
    """The `t >= 0` with the least `-sum min(0, g + t pull) + t slope`, a convex function, by bisection of its derivative."""

    def derivative(t: Tensor) -> Tensor:
        return slope - torch.where(g + t[:, None] * pull < 0, pull, 0.0).sum(1)

    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    for _ in range(_DOUBLINGS):
        falling = derivative(high) < 0
        if not torch.compiler.is_exporting() and not bool(falling.any()):
            break
        low, high = torch.where(falling, high, low), torch.where(falling, 2 * high, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        falling = derivative(middle) < 0
        low, high = torch.where(falling, middle, low), torch.where(falling, high, middle)
    # Where the derivative stays positive the best length is 0, which the bisection only approaches.
    return torch.where(derivative(torch.zeros_like(slope)) >= 0, 0.0, high)


def _flat(value: Tensor) -> Tensor:
    return value.flatten(1).double()


def _unit(vector: Tensor) -> Tensor:
    """The vector at length 1, zero where it is zero."""
    length = vector.norm(dim=1, keepdim=True)
    return torch.where(length > 0, vector / length, 0.0)
