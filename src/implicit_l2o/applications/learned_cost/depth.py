"""Why the iteration runs to convergence: networks of K unrolled steps against the implicit network.

    python -m implicit_l2o.applications.learned_cost --experiment depth

Each network has the same learned cost, weights to start from and training; it differs in the number of steps alone, in
training and in use. On the transportation polytope, where one step reaches neither the constraints nor the optimum.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.learned_cost.experiment import TASKS, Settings, draw_splits, measure, train
from implicit_l2o.applications.learned_cost.model import ConvexCostNet, DecisionModel
from implicit_l2o.applications.learned_cost.task import decision_error
from implicit_l2o.training import one_thread

DEPTHS = (5, 10, 30, 100)
SETTINGS = Settings()


def depth_experiment(
    seed: int, settings: Settings = SETTINGS, *, depths: tuple[int, ...] = DEPTHS, progress: bool = True
) -> dict[str, dict[str, float]]:
    """Train and measure the unrolled networks and the implicit one: `"5"`, ..., `"implicit"` -> figures.

    The figures of `measure`, and

    - `mean_violation`: of the constraints;
    - `residual`: mean of `|T(z) - z|` over the test data, how far the answer is from optimal for the model's own cost;
    - `decision_error_converged`: the decision error of the same weights when they are iterated to a residual of 1e-6:
      whether a cost was learned, or K steps of something;
    - `seconds`: of the training.

    Args:
        seed: of the hidden cost, the data, the weights and the order of the data.
        settings: sizes and recipe.
        depths: the numbers K of unrolled steps.
        progress: show a bar for each training.
    """
    task = TASKS["transport"](seed=seed)
    modes: dict[str, il2o.AbstractBackward] = {str(K): il2o.Unrolled(K) for K in depths}
    modes["implicit"] = il2o.Implicit()

    def maker(mode: il2o.AbstractBackward) -> Callable[[], nn.Module]:
        return lambda: DecisionModel(task, ConvexCostNet(task), backward=mode)

    figures = {}
    with one_thread():
        splits = draw_splits(task, settings, seed)
        for name, mode in modes.items():
            label = f"steps: {name}" if progress else None
            chosen = train(maker(mode), splits, settings.recipe, seed=seed, label=label)
            model = cast("DecisionModel", chosen.model)
            test = splits.test
            with torch.no_grad():
                solution = model(test.contexts, test.totals)
                converged = DecisionModel(task, model.cost)(test.contexts, test.totals)
            figures[name] = measure(task, test, solution.x, splits.train.decisions.mean(0)) | {
                "mean_violation": float(task.violation(solution.x, test.totals).mean()),
                "residual": float(solution.residual.mean()),
                "decision_error_converged": decision_error(converged.x, test.decisions),
                "seconds": chosen.seconds,
            }
    return figures
