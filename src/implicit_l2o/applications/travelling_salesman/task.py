"""Learning tours from solutions alone: the costs that came true never enter, not even to choose the epoch."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.travelling_salesman import figures
from implicit_l2o.applications.travelling_salesman.base import AbstractTourTask
from implicit_l2o.applications.travelling_salesman.certificates import CONSTRAINTS, VIOLATION, EdgesOffTour
from implicit_l2o.applications.travelling_salesman.cuts import frequent_cuts
from implicit_l2o.applications.travelling_salesman.model import TourNetwork, cost_network
from implicit_l2o.decoders import TravellingSalesman
from implicit_l2o.losses import fenchel_young, normalized_regret, regret
from implicit_l2o.training import About, Optimization, Samples, Splits

_ABOUT = About(
    title="Tours from contexts",
    summary="From a context alone, without the costs of the edges, to the tour through all cities that will be the "
    "cheapest. It is learned from contexts and the tours that were best; the costs that came true are never seen.",
    problem=r"x_\theta(d) = \operatorname*{argmin}_{x} \; \langle c_\theta(d), x \rangle + \frac{\gamma}{2} \| x \|^2 "
    r"\quad \text{subject to} \quad \sum_{e \ni i} x_e = 2 \;\; \forall i, \;\; 0 \le x \le 1",
    guarantees=(
        "The relaxed tour x lies in [0, 1], exactly.",
        "How far its cities are from having two edges each is measured for every answer.",
        "The decision is the exact cheapest tour under the predicted costs, so it is always one closed tour.",
    ),
)


@final
class TourTask(AbstractTourTask):
    """Tours learned from solutions: an affine map predicts costs, and the layer answers with a relaxed tour under them.

    With `loss="fenchel_young"` the best tour is to be optimal for the layer's problem, `min f(x*; c) - min_x f(x; c)`, which
    is convex in the costs and needs no backward mode. With `loss="solution"` the layer's answer is to be that tour,
    `min |x(c) - x*|^2`, through the backward mode. Costs may be perturbed in training, `c + perturbation e`, several copies
    for each context: the loss is then the mean over them, or that of the mean solution.

    Args:
        n_cities: how many cities.
        features: length of a context.
        gamma: of the quadratic term. The costs are learned in units of it.
        loss: what a training minimises, on the validation data too.
        perturbation: standard deviation of Gaussian noise on the predicted costs in training; 0 for none.
        copies: perturbed solutions for each context.
        cut_epochs: after each of so many first epochs, subtour constraints are added to the relaxation: those that its
            solutions on the training contexts violate most often.
        cuts: how many an epoch, at most.
        polish: see `TourNetwork`.
        tolerance: see `TourNetwork`.
        training_tolerance: see `TourNetwork`.
        backward: None takes `JFB()`.
        optimization: AdamW and its schedule.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.travelling_salesman import TourTask
        >>> task = TourTask(n_cities=6)
        >>> task.answer(task.infer(torch.zeros(1, 5))).sum()  # as many edges as cities
        tensor(6.)
    """

    def __init__(
        self,
        *,
        n_cities: int = 20,
        features: int = 5,
        gamma: float = 1.0,
        loss: Literal["solution", "fenchel_young"] = "fenchel_young",
        perturbation: float = 0.0,
        copies: int = 1,
        cut_epochs: int = 0,
        cuts: int = 20,
        polish: bool = False,
        tolerance: float = 1e-3,
        training_tolerance: float = 0.1,
        backward: il2o.AbstractBackward | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if loss not in ("solution", "fenchel_young"):
            raise ValueError(f'loss must be "solution" or "fenchel_young"; got {loss!r}.')
        for name, value in (("gamma", gamma), ("tolerance", tolerance), ("training_tolerance", training_tolerance)):
            if not value > 0:
                raise ValueError(f"TourTask needs {name} > 0; got {name}={value}.")
        for name, value, least in (
            ("perturbation", perturbation, 0.0),
            ("copies", copies, 1),
            ("cut_epochs", cut_epochs, 0),
            ("cuts", cuts, 1),
        ):
            if not value >= least:
                raise ValueError(f"TourTask needs {name} >= {least}; got {name}={value}.")
        decoder = TravellingSalesman(n_cities)
        model = TourNetwork(
            cost_network(features, decoder.n),
            decoder,
            most_cuts=cut_epochs * cuts,
            gamma=gamma,
            polish=polish,
            tolerance=tolerance,
            training_tolerance=training_tolerance,
            backward=backward,
        )
        super().__init__(model, decoder, optimization=optimization)
        self._loss = loss
        self._perturbation, self._copies = perturbation, copies
        self._cut_epochs, self._cuts = cut_epochs, cuts

    @property
    def tours(self) -> TourNetwork:
        """`d -> x(d)`."""
        assert isinstance(self.model, TourNetwork)
        return self.model

    def costs(self, d: Tensor) -> Tensor:
        """The predicted costs, in units of gamma."""
        return self.tours.network(d)

    def infer(self, d: Tensor) -> il2o.Inference:
        """The relaxed tours."""
        return self.tours(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The relaxed tours under perturbed costs, to a looser tolerance; one copy of the batch after another."""
        cost = self.costs(d).repeat(self._copies, 1)
        if self._perturbation:
            cost = cost + self._perturbation * torch.randn_like(cost)
        layer = self.tours.layer(training=True)
        if self._loss == "solution":
            return layer.inference(cost)
        with torch.no_grad():  # the Fenchel-Young loss needs no gradient of the solution
            solved = layer.inference(cost)
        problem = il2o.Problem(F=il2o.QuadraticCost(linear=cost, diagonal=layer.gamma), g=il2o.Box(0.0, 1.0))
        return dataclasses.replace(solved, problem=problem)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """The loss on a batch, summed over the edges; it takes the contexts and the tours, and no costs."""
        tours = batch[1]
        if self._loss == "fenchel_young":
            cost = inference.need_problem("fenchel_young").F
            assert isinstance(cost, il2o.QuadraticCost)
            return fenchel_young(cost, inference.x, tours.repeat(self._copies, 1)).mean()
        mean = inference.x.unflatten(0, (self._copies, -1)).mean(0)
        return (mean - tours).square().sum(1).mean()

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Add the subtour constraints that the relaxed tours of the training contexts violate most often."""
        if self.current_epoch < self._cut_epochs:
            data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
            contexts = data.splits.train.tensors[0].to(self.device)
            x = self.tours.layer(training=True)(self.costs(contexts)).x
            self.tours.add_cuts(frequent_cuts(x, self.decoder.edges, most=self._cuts))

    def certificates(self) -> Sequence[il2o.Certificate]:
        """That the relaxed tour satisfies its constraints."""
        return CONSTRAINTS

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """How much of the relaxed tour is not on the decided one."""
        return (EdgesOffTour(self.decoder),)

    def about(self) -> About:
        """See the base."""
        return _ABOUT

    @torch.no_grad()
    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The decided tour and the relaxed one, with the cities on a circle."""
        inference = self.infer(sample["inputs"].unsqueeze(0).to(self.device))
        figures.example(figure, self.decoder, sample, relaxed=inference.x[0].cpu())

    @torch.no_grad()
    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Tours on the map where it is known, and what doubt costs."""
        contexts, _, _, mean_costs = samples.batch
        relaxed = self.infer(contexts.to(self.device)).x.cpu()
        return {
            "Tours": figures.tours(self._places(), self.decoder, samples, relaxed),
            "Doubt": figures.doubt(samples, self.decoder(mean_costs)),
        }

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """More on the regret, the cuts, and the largest violation of the constraints.

        `regret_floor` is that of the best possible predictor (see `Floor`), and `excess` what the model has above it.
        `exact_tours` is the share of the contexts whose decided tour is the best one.
        """
        _, tours, costs, mean_costs = samples.batch
        best = self.decoder(mean_costs)
        floor = float(normalized_regret(best.double(), costs.double(), tours.double()))
        found = float(normalized_regret(samples.answer.double(), costs.double(), tours.double()))
        converged = torch.ones_like(samples.worst, dtype=torch.bool)
        if samples.status is not None:
            converged = samples.status == il2o.Status.CONVERGED
        violation = samples.values[:, samples.names.index(VIOLATION)][converged]
        extra = regret(samples.answer.double(), costs.double(), tours.double())
        return {
            "regret_floor": floor,
            "excess": found - floor,
            "exact_tours": float((extra < 1e-4).double().mean()),  # costs have four decimals
            "cuts": int(self.tours.cuts.any(1).sum()),
            "max_constraint_violation": float(violation.max()) if len(violation) else None,
        }

    def _places(self) -> Tensor:
        """The cities on the map of the data, else on a circle."""
        trainer = self._trainer
        drawn = getattr(getattr(trainer, "datamodule", None), "cities", None)
        return figures.circle(self.decoder.n_cities) if drawn is None else drawn
