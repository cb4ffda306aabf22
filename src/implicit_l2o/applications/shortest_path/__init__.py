"""Shortest paths on a grid from contexts alone, learned from solutions by Davis-Yin and JFB."""

from pathlib import Path
from typing import Any


def run(out: Path, seed: int, progress: bool) -> dict[str, Any]:
    """The shortest-path half of the demonstration: train, compare with the baselines, certify, draw.

    Args:
        out: folder of the figures, made if absent.
        seed: data seed `135 + seed`; also of the weights, the order of the data and the perturbations.
        progress: show a bar for each training.

    Returns:
        `regret`, `regret_two_stage`, `regret_untrained`, `regret_floor` (normalised, on the test data),
        `max_constraint_violation` (Euclidean, in units of flow, over converged inferences), `certificates` (counts of
        labels by property), more in `experiment.summary`; and `figures`: the paths of the PNG files.
    """
    # Lightning and matplotlib take seconds to import: only when they are used.
    from implicit_l2o.applications.shortest_path.experiment import experiment, summary
    from implicit_l2o.applications.shortest_path.figures import draw

    outcome = experiment(seed, progress=progress)
    return summary(outcome) | {"figures": [str(path) for path in draw(outcome, out)]}
