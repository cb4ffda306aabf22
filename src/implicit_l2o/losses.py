"""Losses for models whose output solves a problem: against known solutions, or against the cost of the decision.

All are per sample, `(B,)`, unless their name says otherwise, so that a failed sample can be left out before the mean.
"""

from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators.base import AbstractFunction, AbstractSmooth


def solution_mse(x: Float[Tensor, "B *shape"], target: Float[Tensor, "B *shape"]) -> Float[Tensor, " B"]:
    """Mean squared error of each solution, `|x - x*|^2 / n`.

    Args:
        x: solutions of the model, `(B, *shape)`.
        target: the solutions wanted.

    Example:
        >>> import torch
        >>> from implicit_l2o.losses import solution_mse
        >>> solution_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([2.])
    """
    return _batch.flatten(x - target).square().mean(-1)


def regret(
    x: Float[Tensor, "B *shape"], costs: Float[Tensor, "B *shape"], best: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """What a decision costs more than the best one: `<c, x> - <c, x*>` for a linear cost that is minimised.

    It is at least 0 for feasible `x`; an infeasible one may undercut the best.

    Args:
        x: decisions, `(B, *shape)`.
        costs: the costs `c` that came true.
        best: optimal decisions `x*` under these costs.

    Example:
        >>> import torch
        >>> from implicit_l2o.losses import regret
        >>> regret(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([3.])
    """
    return _batch.dot(costs, x - best)


def normalized_regret(
    x: Float[Tensor, "B *shape"], costs: Float[Tensor, "B *shape"], best: Float[Tensor, "B *shape"]
) -> Float[Tensor, ""]:
    """The regret of a whole set of decisions relative to the best: `sum_i (<c_i, x_i> - z_i) / sum_i |z_i|`, a scalar.

    `z_i = <c_i, x*_i>`. This is the regret that PyEPO reports (B. Tang and E. B. Khalil, Math. Prog. Comp. 16, 2024).

    Args:
        x: decisions, `(B, *shape)`.
        costs: the costs `c` that came true.
        best: optimal decisions `x*` under these costs.

    Example:
        >>> import torch
        >>> from implicit_l2o.losses import normalized_regret
        >>> normalized_regret(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(1.5000)
    """
    return regret(x, costs, best).sum() / _batch.dot(costs, best).abs().sum()


def fenchel_young(
    f: AbstractSmooth | AbstractFunction, x: Float[Tensor, "B *shape"], target: Float[Tensor, "B *shape"]
) -> Float[Tensor, " B"]:
    """How far the target is from optimal under the learned objective: `f(x*) - min_C f`, with `x` a minimiser over `C`.

    It is at least 0, and 0 iff the target `x*`, a point of `C`, minimises `f` over `C`. By Danskin's theorem its gradient
    in the parameters of `f` is that of `f(x*)` minus that of `f(x)` with `x` held fixed: no backward mode is needed, and
    a solve under `torch.no_grad()` is enough. For `f(x) = <w, x> + gamma |x|^2 / 2` it is convex in `w`, with gradient
    `x* - x`.

    Args:
        f: the learned objective whose parameters receive the gradient.
        x: the model's solution, a minimiser of `f` over the constraints; its own gradient is ignored.
        target: the solution wanted, feasible.

    Source: M. Blondel, A. F. T. Martins and V. Niculae, Learning with Fenchel-Young Losses, JMLR 21 (2020), definition 2.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.losses import fenchel_young
        >>> w = torch.tensor([[1.0, 3.0]], requires_grad=True)
        >>> cost = il2o.QuadraticCost(linear=w, diagonal=1.0)  # over the simplex its minimiser is (1, 0)
        >>> loss = fenchel_young(cost, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        >>> loss.detach(), *torch.autograd.grad(loss.sum(), w)
        (tensor([2.]), tensor([[-1.,  1.]]))
    """
    return f.value(target) - f.value(x.detach())
