"""Handwritten digits by an implicit network with a proven contraction: the backward modes side by side."""

from typing import TYPE_CHECKING

from implicit_l2o.applications._lazy import lazily
from implicit_l2o.applications.digits.model import Architecture as Architecture

if TYPE_CHECKING:
    from implicit_l2o.applications.digits.baselines import LogisticRegression as LogisticRegression
    from implicit_l2o.applications.digits.data import DigitsData as DigitsData
    from implicit_l2o.applications.digits.data import MnistData as MnistData
    from implicit_l2o.applications.digits.task import DigitsTask as DigitsTask

# The training's packages come with these, and only when one of them is asked for.
_TRAINING = {
    "LogisticRegression": "baselines",
    "DigitsData": "data",
    "MnistData": "data",
    "DigitsTask": "task",
}
__getattr__ = lazily(__name__, _TRAINING)
