"""Handwritten digits by an implicit network with a proven contraction: the backward modes side by side."""

from implicit_l2o.applications.digits.baselines import LogisticRegression as LogisticRegression
from implicit_l2o.applications.digits.data import DigitsData as DigitsData
from implicit_l2o.applications.digits.data import MnistData as MnistData
from implicit_l2o.applications.digits.model import Architecture as Architecture
from implicit_l2o.applications.digits.task import DigitsTask as DigitsTask
