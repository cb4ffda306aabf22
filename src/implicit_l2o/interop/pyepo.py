"""PyEPO, both ways: our linear programs and decoders as its models, its models as our linear programs, its losses.

Source: B. Tang and E. B. Khalil, PyEPO: a PyTorch-based end-to-end predict-then-optimize library for linear and integer
programming, Mathematical Programming Computation 16 (2024).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]


def opt_model(
    lp: il2o.LinearProgram, decoder: Callable[[Tensor], Tensor] | None = None, *, maximize: bool = False
) -> Any:
    """A PyEPO `optModel` over a linear program, which solves a whole batch in one call.

    PyEPO's losses, data sets and metrics take it as they take their own models. They ask for one sample after another; the
    model answers from one solve of the batch (and compares each sample's costs with those solved).

    Args:
        lp: the feasible set, shared by all samples.
        decoder: from costs `(B, n)`, to be minimised, to decisions: a decoder, or a relaxation such as
            `lambda c: layer(c).x` with an `LPLayer`. None solves the linear program itself by HiGHS, to a vertex.
        maximize: whether PyEPO's costs are values, to be maximised (a knapsack's). The decoder then sees their negative.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
        ValueError: a right-hand side or a bound differs by sample.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.decoders import GridPaths
        >>> from implicit_l2o.data.shortest_path import Grid
        >>> from implicit_l2o.interop.pyepo import opt_model
        >>> A, b = Grid(2).flow_constraints()
        >>> model = opt_model(il2o.LinearProgram(A_eq=A, b_eq=b), GridPaths(2))
        >>> model.setObj(torch.tensor([1.0, 2.0, 1.0, 2.0]))
        >>> x, objective = model.solve()
        >>> x.tolist(), objective
        ([1.0, 0.0, 1.0, 0.0], 2.0)
    """
    _require_pyepo()
    for name in ("b_eq", "b_ub", "lower", "upper"):
        value = getattr(lp, name)
        if isinstance(value, Tensor) and value.ndim == 2:
            raise ValueError(
                f"opt_model takes one feasible set for all samples; got {name} of shape {tuple(value.shape)}."
            )
    from implicit_l2o.interop._pyepo_model import LinearProgramModel

    return LinearProgramModel(lp, decoder, maximize)


def linear_program(model: Any) -> il2o.LinearProgram:
    """The constraints of a PyEPO model as a `LinearProgram`, for an `LPLayer` or a decoder; integrality is dropped.

    It reads what `opt_model` made, a `pyepo.dsl.Problem` and what that compiles to (over all its variables), and
    models of OR-Tools (pywraplp), Pyomo, Gurobi and MPAX that have one cost a variable, user cuts included.
    A `LinearProgram` is always minimised over: where `model.modelSense` is `EPO.MAXIMIZE`, its costs are minus PyEPO's.

    Args:
        model: a PyEPO `optModel` or `dsl.Problem`.

    Raises:
        ModuleNotFoundError: PyEPO is not installed.
        TypeError: another kind of model: COPT's and CP-SAT's, or one that is no formulation but an algorithm.
        ValueError: the model is not linear, or its variables have not one cost each (as PyEPO's travelling salesmen).

    Example:
        >>> from pyepo import dsl
        >>> from implicit_l2o.interop.pyepo import linear_program
        >>> x, c = dsl.Variable(3, lb=0.0, ub=1.0), dsl.Parameter(3)
        >>> lp = linear_program(dsl.Problem(dsl.Minimize(c @ x), [x.sum() == 1.0]))
        >>> lp.A_eq.tolist(), lp.b_eq.tolist(), lp.upper.tolist()
        ([[1.0, 1.0, 1.0]], [1.0], [1.0, 1.0, 1.0])
    """
    _require_pyepo()
    from implicit_l2o.interop._pyepo_constraints import read

    return read(model)


class AbstractPyEPOLoss(ABC):
    """One of PyEPO's losses with its options, to be bound to a model: `criterion(predicted, costs, best) -> scalar`.

    The options stand in a configuration before there is a model; `bind` makes PyEPO's own module, which keeps the state of
    its random numbers. `predicted` and `costs` are `(B, n)` in the model's sense, `best` the optimal decisions.
    """

    @abstractmethod
    def bind(self, model: Any) -> Criterion:
        """The loss over a PyEPO `optModel`, the mean over the batch.

        Args:
            model: of `opt_model`, or any other of PyEPO's.
        """


@final
@dataclass(frozen=True)
class SPOPlus(AbstractPyEPOLoss):
    """PyEPO's SPO+: a convex bound on the regret, which sees the true costs.

    Source: A. N. Elmachtoub and P. Grigas, Smart "Predict, then Optimize", Management Science 68 (2022).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.interop.pyepo import SPOPlus, opt_model
        >>> lp = il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1))
        >>> criterion = SPOPlus().bind(opt_model(lp))
        >>> criterion(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(5.)
    """

    def bind(self, model: Any) -> Criterion:
        """SPO+ over the model."""
        _require_pyepo()
        from pyepo.func import SPOPlus as Module  # pyright: ignore[reportMissingImports]

        module = Module(model)

        def criterion(predicted: Tensor, costs: Tensor, best: Tensor) -> Tensor:
            return module(predicted, costs, best, _objective(costs, best).unsqueeze(1))

        return criterion


@final
@dataclass(frozen=True, kw_only=True)
class PFYL(AbstractPyEPOLoss):
    """PyEPO's perturbed Fenchel-Young loss, which learns from decisions alone.

    Args:
        samples: draws of the noise a sample.
        sigma: standard deviation of the noise.
        seed: of the noise.

    Source: Q. Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 33 (2020).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.interop.pyepo import PFYL, opt_model
        >>> lp = il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1))
        >>> predicted = torch.tensor([[9.0, 1.0]], requires_grad=True)
        >>> loss = PFYL(samples=3, sigma=0.1).bind(opt_model(lp))(predicted, predicted, torch.tensor([[1.0, 0.0]]))
        >>> torch.autograd.grad(loss, predicted)
        (tensor([[ 1., -1.]]),)
    """

    samples: int = 3
    sigma: float = 1.0
    seed: int = 135

    def bind(self, model: Any) -> Criterion:
        """The perturbed Fenchel-Young loss over the model."""
        _require_pyepo()
        from pyepo.func import perturbedFenchelYoung  # pyright: ignore[reportMissingImports]

        module = perturbedFenchelYoung(model, n_samples=self.samples, sigma=self.sigma, seed=self.seed)

        def criterion(predicted: Tensor, costs: Tensor, best: Tensor) -> Tensor:
            return module(predicted, best)

        return criterion


@final
@dataclass(frozen=True, kw_only=True)
class DBB(AbstractPyEPOLoss):
    """PyEPO's differentiable black box: the solver's gradient by interpolation, under a loss of the decision.

    Args:
        lambd: length of the interpolation, in units of the costs per unit of the loss's gradient.
        regret: True takes the regret under the true costs (as PyEPO's examples do); False the mean absolute
            difference from the best decision, which learns from decisions alone.

    Source: M. Vlastelica et al., Differentiation of Blackbox Combinatorial Solvers, ICLR (2020).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.interop.pyepo import DBB, opt_model
        >>> lp = il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1))
        >>> DBB().bind(opt_model(lp))(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(1.)
    """

    lambd: float = 10.0
    regret: bool = True

    def bind(self, model: Any) -> Criterion:
        """The black box over the model."""
        _require_pyepo()
        from pyepo.func import blackboxOpt  # pyright: ignore[reportMissingImports]

        return _decision_loss(blackboxOpt(model, lambd=self.lambd), regret=self.regret)


@final
@dataclass(frozen=True, kw_only=True)
class NID(AbstractPyEPOLoss):
    """PyEPO's negative identity: the solver's Jacobian is replaced by minus the identity, under a loss of the decision.

    Args:
        regret: as in `DBB`.

    Source: S. S. Sahoo et al., Backpropagation through Combinatorial Algorithms, ICLR (2023).

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> from implicit_l2o.interop.pyepo import NID, opt_model
        >>> lp = il2o.LinearProgram(A_eq=torch.ones(1, 2), b_eq=torch.ones(1))
        >>> predicted = torch.tensor([[3.0, 1.0]], requires_grad=True)
        >>> loss = NID().bind(opt_model(lp))(predicted, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        >>> torch.autograd.grad(loss, predicted)
        (tensor([[-1., -2.]]),)
    """

    regret: bool = True

    def bind(self, model: Any) -> Criterion:
        """The negative identity over the model."""
        _require_pyepo()
        from pyepo.func import negativeIdentity  # pyright: ignore[reportMissingImports]

        return _decision_loss(negativeIdentity(model), regret=self.regret)


def _decision_loss(module: Callable[[Tensor], Tensor], *, regret: bool) -> Criterion:
    """The mean absolute error of the decision's objective, or of the decision."""

    def criterion(predicted: Tensor, costs: Tensor, best: Tensor) -> Tensor:
        x = module(predicted)
        error = _objective(costs, x) - _objective(costs, best) if regret else x - best
        return error.abs().mean()

    return criterion


def _objective(costs: Float[Tensor, "B n"], x: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    return (costs * x).sum(1)


def _require_pyepo() -> None:
    if find_spec("pyepo") is None:
        raise ModuleNotFoundError("interop.pyepo needs PyEPO: pip install 'pyepo>=2.2'.", name="pyepo")
