"""Arbitrage between automated market makers whose reserves are seen with noise, by Davis-Yin."""

from typing import TYPE_CHECKING

from implicit_l2o.applications._lazy import lazily
from implicit_l2o.applications.arbitrage.analytic import optimal_trade as optimal_trade
from implicit_l2o.applications.arbitrage.execution import Market as Market
from implicit_l2o.applications.arbitrage.model import ArbitrageLayer as ArbitrageLayer

if TYPE_CHECKING:
    from implicit_l2o.applications.arbitrage.baselines import Analytic as Analytic
    from implicit_l2o.applications.arbitrage.baselines import DenseTask as DenseTask
    from implicit_l2o.applications.arbitrage.baselines import Hindsight as Hindsight
    from implicit_l2o.applications.arbitrage.data import ArbitrageData as ArbitrageData
    from implicit_l2o.applications.arbitrage.task import ArbitrageTask as ArbitrageTask

# The training's packages come with these, and only when one of them is asked for.
_TRAINING = {
    "Analytic": "baselines",
    "DenseTask": "baselines",
    "Hindsight": "baselines",
    "ArbitrageData": "data",
    "ArbitrageTask": "task",
}
__getattr__ = lazily(__name__, _TRAINING)
