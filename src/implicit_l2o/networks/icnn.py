"""Input-convex networks: a learned cost `f_theta(x; d)`, convex and smooth in x, arbitrary in d, its curvature bounded.

Amos, Xu, Kolter, "Input Convex Neural Networks" (ICML 2017), with smooth activations, so that the gradient is Lipschitz
with a constant computed from the weights. One layer is the ridge form of Goujon et al., "A Neural-Network-Based Convex
Regularizer for Inverse Problems" (IEEE TCI 2023).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from implicit_l2o._batch import DATA, SCALAR, flatten
from implicit_l2o.networks.activations import AbstractConvexActivation, Softplus
from implicit_l2o.networks.spectral import dense_norm_bound
from implicit_l2o.operators.base import AbstractSmooth


@dataclass(frozen=True, eq=False)
class ConvexCost(AbstractSmooth):
    """A convex network `f` at one batch of contexts, with its gradient in closed form. Made by `ICNN.condition`.

        a_1 = W_1 x + s_1,   a_{k+1} = U_k phi(a_k) + W_{k+1} x + s_{k+1}
        f(x) = q.x + (strong / 2) |x|^2 + sum_j c_j phi(a_K)_j,      U_k >= 0, c >= 0

    Args:
        in_shape: shape of one sample of x, `n` entries in all.
        inputs: `W_k`, `(m_k, n)`.
        couplings: `U_k >= 0`, `(m_{k+1}, m_k)`; one fewer than `inputs`.
        shift: the `s_k` joined, `(sum m_k,)` or `(B, sum m_k)`.
        weight: `c >= 0`, `(m_K,)` or `(B, m_K)`.
        linear: `q`, `(n,)` or `(B, n)`.
        curvature: an upper bound of the Hessian's norm, `()` or `(B,)`; it carries the gradient of the weights.
        activation: the convex `phi`.
        strong: modulus of strong convexity.
    """

    in_shape: tuple[int, ...]
    inputs: tuple[Tensor, ...]
    couplings: tuple[Tensor, ...]
    shift: Tensor = field(metadata=DATA)
    weight: Tensor = field(metadata=DATA)
    linear: Tensor = field(metadata=DATA)
    curvature: Tensor = field(metadata=SCALAR)
    activation: AbstractConvexActivation
    strong: float

    @property
    def lipschitz(self) -> Tensor:
        """The bound `curvature`, detached: step sizes are no path for gradients."""
        return self.curvature.detach()

    def value(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
        """`f(x)`, per sample."""
        point = flatten(x)
        top = self.activation.value(self._preactivations(point)[-1])
        quadratic = 0.5 * self.strong * point.square().sum(-1)
        return (self.linear * point).sum(-1) + quadratic + (self.weight * top).sum(-1)

    def apply(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """`q + strong x + sum_k W_k^T v_k`, with `v_K = c phi'(a_K)`, `v_k = phi'(a_k) U_k^T v_{k+1}`; per sample."""
        point = flatten(x)
        gradient = self.linear + self.strong * point
        slopes = [self.activation.slope(a) for a in self._preactivations(point)]
        sensitivity = self.weight * slopes[-1]
        gradient = gradient + sensitivity @ self.inputs[-1]
        for index in reversed(range(len(self.couplings))):
            sensitivity = slopes[index] * (sensitivity @ self.couplings[index])
            gradient = gradient + sensitivity @ self.inputs[index]
        return gradient.reshape(x.shape)

    def _preactivations(self, point: Float[Tensor, "B n"]) -> list[Float[Tensor, "B m"]]:
        shifts = self.shift.split([weight.shape[0] for weight in self.inputs], dim=-1)
        levels = [F.linear(point, self.inputs[0]) + shifts[0]]
        for coupling, weight, shift in zip(self.couplings, self.inputs[1:], shifts[1:], strict=True):
            levels.append(F.linear(self.activation.value(levels[-1]), coupling) + F.linear(point, weight) + shift)
        return levels


class ICNN(nn.Module):
    """`f_theta(x; d)`: convex in x, arbitrary in d, with a proven Lipschitz constant of its gradient.

    The context acts on the shifts `s_k(d)`, the unit weights `c(d) = softplus(...) >= 0` and the linear term `q(d)` of
    `ConvexCost`, all affine in the vector that `condition` receives: put an encoder (`MLP`) before it. So a plain
    learned linear cost is the special case `c = 0`.

    The bound: the Hessian is `strong I + sum_k J_k^T diag(v_k phi''(a_k)) J_k` with `J_k = da_k/dx` and
    `0 <= v_k <= c_k`, where `c_K = c` and `c_k = U_k^T c_{k+1}`. The recursion `J_{k+1} = W_{k+1} + U_k D_k J_k` has a
    diagonal `D_k = diag(phi'(a_k))` between 0 and 1, that is within 1/2 of its middle, so `|J_k| <= l_k = |C_k| + r_k`
    with `C_1 = W_1`, `r_1 = 0`, `C_{k+1} = W_{k+1} + U_k C_k / 2` and `r_{k+1} = |U_k| (|C_k| / 2 + r_k)`. Hence the
    Hessian's norm is at most `strong + sup phi'' sum_k max(c_k) l_k^2`; `dense_norm_bound` bounds the norms.

    Args:
        in_shape: shape of one sample of x; an integer for a vector.
        context: length of the vector d; 0 for none.
        widths: units of each layer; one entry is the ridge form `sum_j c_j phi(w_j.x + s_j)`.
        activation: smooth and convex; beyond one layer also increasing.
        strong: modulus of strong convexity, at least 0.

    Raises:
        ValueError: no layer, an activation that is not increasing beyond one layer, or `strong < 0`.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import ICNN
        >>> _ = torch.manual_seed(0)
        >>> f = ICNN(4, context=2, widths=(16, 16)).condition(torch.randn(3, 2))
        >>> x, y = torch.randn(2, 3, 4)
        >>> bool((f.value((x + y) / 2) <= (f.value(x) + f.value(y)) / 2).all())
        True
        >>> bool(((f.apply(x) - f.apply(y)).norm(dim=1) <= f.lipschitz * (x - y).norm(dim=1)).all())
        True
    """

    def __init__(
        self,
        in_shape: int | tuple[int, ...],
        *,
        context: int = 0,
        widths: Sequence[int] = (64,),
        activation: AbstractConvexActivation | None = None,
        strong: float = 0.0,
    ) -> None:
        super().__init__()
        activation = Softplus() if activation is None else activation
        if len(widths) < 1 or min(widths) < 1:
            raise ValueError(f"ICNN needs at least one layer, all widths positive; got widths={tuple(widths)}.")
        if len(widths) > 1 and not activation.increasing:
            raise ValueError(
                f"{type(activation).__name__} is not increasing, so it keeps convexity in one layer only; "
                f"got widths={tuple(widths)}."
            )
        if strong < 0:
            raise ValueError(f"ICNN needs strong >= 0; got strong={strong}.")
        self.in_shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
        self.activation = activation
        self.strong = strong
        n = math.prod(self.in_shape)
        self.inputs = nn.ParameterList(nn.init.kaiming_uniform_(torch.empty(m, n), a=5**0.5) for m in widths)
        # softplus(raw) = 1 / m: each unit starts as the mean of the layer below, so depth does not inflate the bound.
        self.raw_couplings = nn.ParameterList(
            torch.full((above, below), math.log(math.expm1(1 / below))) for below, above in itertools.pairwise(widths)
        )
        self.sizes = (sum(widths), widths[-1], n)  # shifts, unit weights, linear term
        self.theta = nn.Parameter(torch.zeros(sum(self.sizes)))
        # Spread the kinks of the units over the region where x is of size one.
        nn.init.uniform_(self.theta.data[: self.sizes[0]], -1.0, 1.0)
        # Unit weights for which the curvature bound is one: the cost starts neither flat nor stiff. Far stiffer ones
        # hide the context's influence on the minimiser, and training stalls there.
        with torch.no_grad():
            unit = _hessian_bound(tuple(self.inputs), self._couplings(), torch.ones(widths[-1]))
            self.theta[self.sizes[0] : -n] = torch.expm1(1 / (activation.curvature * unit)).log()
        self.heads = nn.Linear(context, sum(self.sizes), bias=False) if context else None

    def condition(self, context: Float[Tensor, "B c"] | None = None) -> ConvexCost:
        """`f(.; context)` as an operator, with its curvature bound.

        Args:
            context: `(B, context)`, or None for a network built without.

        Raises:
            ValueError: a context is given to a network built without, or the reverse.
        """
        if (self.heads is None) != (context is None):
            raise ValueError(
                "the network was built without context=; condition() takes none."
                if self.heads is None
                else "the network was built with context=; condition(context) needs it."
            )
        theta = self.theta if self.heads is None else self.theta + self.heads(context)
        shift, raw_weight, linear = theta.split(self.sizes, dim=-1)
        weight = F.softplus(raw_weight)
        inputs, couplings = tuple(self.inputs), self._couplings()
        return ConvexCost(
            in_shape=self.in_shape,
            inputs=inputs,
            couplings=couplings,
            shift=shift,
            weight=weight,
            linear=linear,
            curvature=self.strong + self.activation.curvature * _hessian_bound(inputs, couplings, weight),
            activation=self.activation,
            strong=self.strong,
        )

    def _couplings(self) -> tuple[Tensor, ...]:
        return tuple(F.softplus(raw) for raw in self.raw_couplings)


def _hessian_bound(inputs: tuple[Tensor, ...], couplings: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    """`sum_k max(c_k) l_k^2`, in the notation of `ICNN`."""
    centre, radius = inputs[0], inputs[0].new_zeros(())
    lengths = [dense_norm_bound(centre)]
    for coupling, matrix in zip(couplings, inputs[1:], strict=True):
        radius = dense_norm_bound(coupling) * (dense_norm_bound(centre) / 2 + radius)
        centre = matrix + coupling @ centre / 2
        lengths.append(dense_norm_bound(centre) + radius)
    total = weight.amax(-1) * lengths[-1].square()
    for coupling, length in zip(reversed(couplings), reversed(lengths[:-1]), strict=True):
        weight = weight @ coupling
        total = total + weight.amax(-1) * length.square()
    return total
