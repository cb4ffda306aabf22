"""One seed of the experiment: data, the learned convex cost, what it is compared with; the test data are touched once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o
from implicit_l2o.applications.learned_cost.baselines import (
    BlackBox,
    LinearCostNet,
    MeanDecision,
    QuadraticCostNet,
    count,
)
from implicit_l2o.applications.learned_cost.model import ConvexCostNet, DecisionModel
from implicit_l2o.applications.learned_cost.task import (
    DecisionData,
    ObservedDecisions,
    Recipe,
    decide,
    decision_error,
)
from implicit_l2o.data.decisions import Decisions, DecisionTask
from implicit_l2o.training import fit, one_thread

BLACK_BOX_EPOCHS = 8  # times those of the others

TASKS: Mapping[str, Callable[..., DecisionTask]] = {
    "allocation": DecisionTask.allocation,
    "transport": DecisionTask.transport,
}


@dataclass(frozen=True)
class Settings:
    """Sizes of the data and how the models are trained.

    Args:
        train: observations to learn from.
        validation: observations that choose the epoch and the learning rate.
        test: observations of the reported figures.
        scale: of the totals in the test out of range.
        recipe: of every model.
    """

    train: int = 400
    validation: int = 200
    test: int = 500
    scale: float = 1.5
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Splits:
    """The observations of one seed."""

    train: Decisions
    validation: Decisions
    test: Decisions
    beyond: Decisions  # totals out of the training range


@dataclass(frozen=True)
class Trained:
    """A model with the learning rate that the validation chose.

    Attributes:
        model: with the weights of the best epoch.
        validation_error: the smallest decision error of its epochs on the validation data.
        learning_rate: the one chosen.
        seconds: of this training alone.
    """

    model: nn.Module
    validation_error: float
    learning_rate: float
    seconds: float


def draw_splits(task: DecisionTask, settings: Settings, seed: int) -> Splits:
    """Draws that share no seed with each other or with another `seed`."""
    first = 1000 + 4 * seed
    return Splits(
        train=task.sample(settings.train, seed=first),
        validation=task.sample(settings.validation, seed=first + 1),
        test=task.sample(settings.test, seed=first + 2),
        beyond=task.sample(settings.test, seed=first + 3, scale=settings.scale),
    )


def models(task: DecisionTask) -> dict[str, Callable[[], nn.Module]]:
    """Makers of the trained models, all of at most the parameters of the learned convex cost."""
    budget = count(ConvexCostNet(task))
    return {
        "convex_implicit": lambda: DecisionModel(task, ConvexCostNet(task), backward=il2o.Implicit()),
        "convex_jfb": lambda: DecisionModel(task, ConvexCostNet(task), backward=il2o.JFB()),
        "quadratic": lambda: DecisionModel(task, QuadraticCostNet(task, budget=budget), backward=il2o.Implicit()),
        "linear": lambda: DecisionModel(task, LinearCostNet(task, budget=budget), backward=il2o.Implicit()),
        "black_box": lambda: BlackBox(task, budget=budget),
    }


def train(
    make: Callable[[], nn.Module], splits: Splits, recipe: Recipe, *, seed: int, label: str | None = None
) -> Trained:
    """Train once with each learning rate from the same weights; keep the one with the smallest validation error.

    Args:
        make: makes the untrained model.
        splits: the test parts are not touched.
        recipe: epochs, batch size, learning rates.
        seed: of the weights and of the order of the data.
        label: of the progress bars; None for no bar.
    """
    trials = []
    for rate in recipe.learning_rates:
        start = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make().to(splits.train.decisions.dtype)
        learner = ObservedDecisions(model, contexts=splits.train.contexts.shape[1], learning_rate=rate)
        data = DecisionData(splits.train, splits.validation, splits.test, batch_size=recipe.batch_size, seed=seed)
        label_of_rate = f"{label}, rate {rate:g}"
        training = fit(learner, data, epochs=recipe.epochs, progress=label is not None, label=label_of_rate)
        error = min(epoch[f"val/{ObservedDecisions.METRIC}"] for epoch in training.history)
        trials.append(Trained(model, error, rate, time.perf_counter() - start))
    return min(trials, key=lambda trial: trial.validation_error)


def measure(task: DecisionTask, part: Decisions, decided: Float[Tensor, "N n"], mean: Tensor) -> dict[str, float]:
    """The figures of one method on one data set.

    Args:
        task: gives the true cost and the constraints.
        part: the observations.
        decided: the method's decisions.
        mean: the mean training decision, the origin of the scale of the suboptimality.

    Returns:
        `decision_error`: `|X - X*| / |X*|`. `max_violation`: of `x >= 0` and `A x = b`, Euclidean, the largest.
        `suboptimality`: mean true cost of the decisions projected onto their constraints, less the optimum, as a share
        of the same for the mean training decision: 0 is optimal, 1 is no better than a constant.
        `suboptimality_raw`: without the projection (below 0 where breaking the constraints pays).
    """
    optimum = task.cost(part.decisions, part.contexts).mean()
    constant = task.project(mean.expand_as(part.decisions), part.totals)
    scale = task.cost(constant, part.contexts).mean() - optimum

    def gap(x: Tensor) -> float:
        return float((task.cost(x, part.contexts).mean() - optimum) / scale)

    return {
        "decision_error": decision_error(decided, part.decisions),
        "suboptimality": gap(task.project(decided, part.totals)),
        "suboptimality_raw": gap(decided),
        "max_violation": float(task.violation(decided, part.totals).max()),
    }


def experiment(
    name: str, seed: int, settings: Settings | None = None, *, progress: bool = True
) -> dict[str, dict[str, float]]:
    """Train every model on one task and measure it on the test data: method -> figures.

    The figures of `measure`, the same on totals out of the training range with the suffix `_beyond`, `parameters`, and
    `seconds` of the training with the chosen learning rate.

    Args:
        name: `"allocation"` (projected gradient on the simplex) or `"transport"` (Davis-Yin).
        seed: of the hidden cost, the data, the weights and the order of the data.
        settings: None takes `Settings()`.
        progress: show a bar for each training.
    """
    settings = Settings() if settings is None else settings
    task = TASKS[name](seed=seed)
    with one_thread():
        splits = draw_splits(task, settings, seed)
        trained: dict[str, nn.Module] = {"constant": MeanDecision(splits.train.decisions)}
        figures: dict[str, dict[str, float]] = {"constant": {}}
        for method, make in models(task).items():
            label = f"{name}, {method}" if progress else None
            recipe = settings.recipe
            if method == "black_box":  # its epochs are cheap; more of them only help it
                recipe = replace(recipe, epochs=BLACK_BOX_EPOCHS * recipe.epochs)
            chosen = train(make, splits, recipe, seed=seed, label=label)
            trained[method] = chosen.model
            figures[method] = {
                "parameters": count(chosen.model),
                "learning_rate": chosen.learning_rate,
                "seconds": chosen.seconds,
                "validation_error": chosen.validation_error,
            }
        mean = splits.train.decisions.mean(0)
        for method, model in trained.items():
            for suffix, part in (("", splits.test), ("_beyond", splits.beyond)):
                with torch.no_grad():
                    decided = decide(model, part.contexts, part.totals)
                measured = measure(task, part, decided, mean)
                figures[method] |= {key + suffix: value for key, value in measured.items()}
    return figures
