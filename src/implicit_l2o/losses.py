"""Losses for models whose output solves a problem: against known solutions, or against the cost of the decision.

All are per sample, `(B,)`, unless their name says otherwise, so that a failed sample can be left out before the mean.
"""

from collections.abc import Callable

import torch
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


def spo_plus(
    oracle: Callable[[Tensor], Tensor],
    predicted: Float[Tensor, "B *shape"],
    costs: Float[Tensor, "B *shape"],
    best: Float[Tensor, "B *shape"],
) -> Float[Tensor, " B"]:
    """SPO+, a convex bound on the regret of deciding by predicted costs: `<2 c_hat - c, x*(c) - x*(2 c_hat - c)>`.

    This is `max_x <c - 2 c_hat, x> + 2 <c_hat, x*(c)> - <c, x*(c)>`. It is at least the regret, and 0 where `c_hat = c`. The
    oracle is solved once and not differentiated: by Danskin's theorem `2 (x*(c) - x*(2 c_hat - c))` is a subgradient
    in `c_hat`. It sees the true costs, and no gradient reaches them.

    Args:
        oracle: from costs `(B, *shape)` to exact minimisers of `<c, x>`, for instance a decoder. `2 c_hat - c` may be
            negative where both costs are positive.
        predicted: the predicted costs `c_hat`.
        costs: the costs `c` that came true.
        best: optimal decisions `x*(c)` under these costs.

    Source: A. N. Elmachtoub and P. Grigas, Smart "Predict, then Optimize", Management Science 68 (2022), definition 3 and
        proposition 3.

    Example:
        >>> import torch
        >>> from implicit_l2o.losses import spo_plus
        >>> one_hot = lambda c: torch.nn.functional.one_hot(c.argmin(1), 2).to(c)  # the cheapest of two
        >>> predicted = torch.tensor([[3.0, 1.0]], requires_grad=True)
        >>> loss = spo_plus(one_hot, predicted, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        >>> loss.detach(), *torch.autograd.grad(loss.sum(), predicted)
        (tensor([5.]), tensor([[ 2., -2.]]))
    """
    spread = 2 * predicted - costs.detach()
    with torch.no_grad():
        direction = best - oracle(spread)
    return _batch.dot(spread, direction)


def perturbed_fenchel_young(
    oracle: Callable[[Tensor], Tensor],
    predicted: Float[Tensor, "B *shape"],
    target: Float[Tensor, "B *shape"],
    *,
    sigma: float = 1.0,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """The perturbed Fenchel-Young loss: the mean of `<c_hat + sigma z, x* - x*(c_hat + sigma z)>` over Gaussian noise `z`.

    Each term is how far the target is from optimal under perturbed costs, so at least 0 for a feasible target. With
    `F(c) = E max_x <-c - sigma z, x>` the expectation is `F(c_hat) + <c_hat, x*>`, convex in `c_hat`: the loss of Berthet
    et al. up to a constant of the target. Its gradient, `x* - mean x*(c_hat + sigma z)`, needs no derivative of the
    oracle. It learns from decisions alone.

    Args:
        oracle: from costs to exact minimisers of `<c, x>`, for instance a decoder; it sees `(B samples, *shape)` at once.
        predicted: the predicted costs `c_hat`, `(B, *shape)`.
        target: the decisions `x*` wanted.
        sigma: standard deviation of the Gaussian noise, above 0, in the units of the costs.
        samples: draws of the noise a sample.
        generator: of the noise `(B, samples, *shape)`; PyTorch's global one where None.

    Raises:
        ValueError: `sigma` is not above 0, or `samples` is below 1.

    Source: Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 33 (2020), section 4.

    Example:
        >>> import torch
        >>> from implicit_l2o.losses import perturbed_fenchel_young
        >>> one_hot = lambda c: torch.nn.functional.one_hot(c.argmin(1), 2).to(c)  # the cheapest of two
        >>> predicted = torch.tensor([[9.0, 1.0]], requires_grad=True)
        >>> loss = perturbed_fenchel_young(one_hot, predicted, torch.tensor([[1.0, 0.0]]), sigma=0.1, samples=4)
        >>> torch.autograd.grad(loss.sum(), predicted)
        (tensor([[ 1., -1.]]),)
    """
    if not sigma > 0.0:
        raise ValueError(f"perturbed_fenchel_young needs sigma > 0; got sigma={sigma}.")
    if samples < 1:
        raise ValueError(f"perturbed_fenchel_young needs samples >= 1; got samples={samples}.")
    noise = torch.randn(
        (predicted.shape[0], samples, *predicted.shape[1:]),
        generator=generator,
        dtype=predicted.dtype,
        device=predicted.device,
    )
    perturbed = predicted.unsqueeze(1) + sigma * noise
    with torch.no_grad():
        decided = oracle(perturbed.flatten(0, 1)).reshape(perturbed.shape)
    gaps = _batch.dot(perturbed.flatten(0, 1), (target.detach().unsqueeze(1) - decided).flatten(0, 1))
    return gaps.reshape(-1, samples).mean(1)
