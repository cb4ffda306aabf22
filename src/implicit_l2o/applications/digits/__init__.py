"""Handwritten digits by an implicit network with a proven contraction: the backward modes side by side."""

from pathlib import Path
from typing import Any


def run(out: Path, seed: int, progress: bool) -> dict[str, Any]:
    """The digits half of the demonstration: train by JFB and by `Implicit`, certify, draw.

    Args:
        out: folder of the figures, made if absent.
        seed: of the splits, the weights and the order of the images.
        progress: show a bar for each training.

    Returns:
        `accuracy_jfb`, `accuracy_implicit`, `seconds_per_epoch_jfb`, ..., `peak_memory_jfb`, ... (bytes), `parameters`,
        `certificates` (counts of labels by property on the test images), the baselines' accuracies, and `figures`: the
        paths of the PNG files. See `experiment.summary`.
    """
    # Lightning, scikit-learn and matplotlib take seconds to import: only when they are used.
    from implicit_l2o.applications.digits.experiment import experiment, summary
    from implicit_l2o.applications.digits.figures import draw
    from implicit_l2o.applications.digits.task import digits_splits
    from implicit_l2o.training import one_thread

    with one_thread():
        outcome = experiment(digits_splits(seed), seed, progress=progress)
    return summary(outcome) | {"figures": [str(path) for path in draw(outcome, out)]}
