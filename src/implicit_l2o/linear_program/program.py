"""The feasible set of a linear program, in SciPy's words; `scipy.optimize.linprog` has the same arguments."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.operators._sparse import is_sparse, to_scipy

Matrix = Any  # a dense tensor, a sparse tensor, a NumPy array or a SciPy sparse matrix
Bound = float | Tensor


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LinearProgram:
    """The polyhedron `{x : A_eq x = b_eq, A_ub x <= b_ub, lower <= x <= upper}` over which a cost is minimised.

    The costs are not part of it: a model predicts them, and `LPLayer` solves for them.

    Args:
        A_eq: `(m, n)` equations; a dense or sparse tensor, a NumPy array or a SciPy sparse matrix. None for none.
        b_eq: `(m,)`, or `(B, m)` for one a sample.
        A_ub: `(p, n)` inequalities `A_ub x <= b_ub`, in the same forms. None for none.
        b_ub: `(p,)` or `(B, p)`.
        lower: lower bounds: a number, `(n,)` or `(B, n)`; None or `-inf` for none.
        upper: upper bounds, likewise; None or `inf` for none.
        n: the number of variables; needed only where no matrix and no bound says it.

    Raises:
        ValueError: a matrix without its right-hand side or the reverse, shapes that do not fit, entries that are not
            finite, or bounds that cross.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.LinearProgram(A_eq=torch.ones(1, 3), b_eq=torch.ones(1)).n
        3
    """

    A_eq: Matrix = field(default=None, repr=False)
    b_eq: Any = field(default=None, repr=False)
    A_ub: Matrix = field(default=None, repr=False)
    b_ub: Any = field(default=None, repr=False)
    lower: Any = 0.0
    upper: Any = None
    n: int = 0

    def __post_init__(self) -> None:
        for kind in ("eq", "ub"):
            self._take_rows(kind)
        for name, infinite in (("lower", -math.inf), ("upper", math.inf)):
            object.__setattr__(self, name, _bound(getattr(self, name), name, infinite))
        object.__setattr__(self, "n", self._count())
        for name in ("lower", "upper"):
            bound = getattr(self, name)
            if isinstance(bound, Tensor) and bound.ndim and bound.shape[-1] not in (1, self.n):
                raise ValueError(
                    f"LinearProgram has n={self.n} variables, so {name} must be a number, ({self.n},) or (B, {self.n}); "
                    f"got {tuple(bound.shape)}."
                )
        _check_order(self.lower, self.upper)

    @property
    def m_eq(self) -> int:
        """Number of equations."""
        return 0 if self.A_eq is None else self.A_eq.shape[0]

    @property
    def m_ub(self) -> int:
        """Number of inequalities."""
        return 0 if self.A_ub is None else self.A_ub.shape[0]

    def with_rhs(self, *, b_eq: Tensor | None = None, b_ub: Tensor | None = None) -> "LinearProgram":
        """The same matrices and bounds with other right-hand sides; what is not given stays."""
        b_eq = self.b_eq if b_eq is None else b_eq
        return replace(self, b_eq=b_eq, b_ub=self.b_ub if b_ub is None else b_ub)

    def violation(self, x: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        """The largest violation of any equation, inequality or bound, in their own units; 0 iff `x` is feasible.

        Example:
            >>> import torch, implicit_l2o as il2o
            >>> il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1)).violation(torch.tensor([[2.0, -0.5]]))
            tensor([0.5000])
        """
        parts = [torch.zeros_like(x[:, :1])]
        if self.A_eq is not None:
            parts.append((_product(self.A_eq, x) - self.b_eq.to(x)).abs())
        if self.A_ub is not None:
            parts.append(_product(self.A_ub, x) - self.b_ub.to(x))
        lower, upper = (b.to(x) if isinstance(b, Tensor) else b for b in (self.lower, self.upper))
        parts += [lower - x, x - upper]
        return torch.cat(parts, dim=1).amax(1).clamp_min(0.0)

    def _take_rows(self, kind: str) -> None:
        """Bring a matrix to a dense tensor or a SciPy matrix, and its right-hand side to a tensor; drop an empty block."""
        A, b = getattr(self, f"A_{kind}"), getattr(self, f"b_{kind}")
        if (A is None) != (b is None):
            missing, given = (f"b_{kind}", f"A_{kind}") if b is None else (f"A_{kind}", f"b_{kind}")
            raise ValueError(f"LinearProgram got {given} without {missing}.")
        if A is None:
            return
        A = to_scipy(A, f"LinearProgram.A_{kind}") if is_sparse(A) else _dense(A, f"A_{kind}")
        b = torch.as_tensor(b)
        b = b if b.is_floating_point() else b.to(torch.get_default_dtype())
        if len(A.shape) != 2 or b.ndim not in (1, 2) or b.shape[-1] != A.shape[0]:
            raise ValueError(
                f"LinearProgram needs A_{kind} of shape (m, n) and b_{kind} of (m,) or (B, m); got {tuple(A.shape)} and "
                f"{tuple(b.shape)}."
            )
        if b.ndim == 1 and not bool(
            torch.isfinite(b).all()
        ):  # one a sample comes out of a network, and fails that sample
            raise ValueError(f"LinearProgram: b_{kind} has entries that are NaN or infinite; leave such a row out.")
        if self.n and A.shape[1] != self.n:
            raise ValueError(f"LinearProgram: A_{kind} has {A.shape[1]} columns, but n={self.n}.")
        object.__setattr__(self, "n", A.shape[1])
        empty = A.shape[0] == 0
        object.__setattr__(self, f"A_{kind}", None if empty else A)
        object.__setattr__(self, f"b_{kind}", None if empty else b)

    def _count(self) -> int:
        if self.n:
            return self.n
        for bound in (self.lower, self.upper):
            if isinstance(bound, Tensor) and bound.ndim:
                return bound.shape[-1]
        raise ValueError("LinearProgram cannot tell the number of variables: give a matrix, a vector of bounds, or n.")


def _dense(A: Any, name: str) -> Tensor:
    A = torch.as_tensor(A)
    A = A if A.is_floating_point() else A.to(torch.get_default_dtype())
    if not bool(torch.isfinite(A).all()):
        raise ValueError(f"LinearProgram: {name} has entries that are NaN or infinite.")
    return A


def _bound(value: Any, name: str, infinite: float) -> Bound:
    if value is None:
        return infinite
    if isinstance(value, int | float):
        if math.isnan(value):
            raise ValueError(f"LinearProgram: {name} is NaN.")
        return float(value)
    value = torch.as_tensor(value)
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    if bool(torch.isnan(value).any()):
        raise ValueError(f"LinearProgram: {name} has entries that are NaN.")
    return value


def _check_order(lower: Bound, upper: Bound) -> None:
    low, high = torch.as_tensor(lower), torch.as_tensor(upper)
    crossed = low > high.to(low) if high.ndim else low > high
    if bool(crossed.any()):
        where = int(crossed.reshape(-1).nonzero()[0]) % max(1, crossed.shape[-1] if crossed.ndim else 1)
        raise ValueError(f"LinearProgram needs lower <= upper; they cross at variable {where}.")


def _product(A: Matrix, x: Tensor) -> Tensor:
    """`A x` for every sample."""
    if isinstance(A, Tensor):
        return x @ A.to(x).mT
    return torch.as_tensor((A @ x.detach().double().cpu().numpy().T).T).to(x)
