"""Knapsacks from contexts alone, learned from best selections by Davis-Yin."""

from implicit_l2o.applications.knapsack.baselines import Floor as Floor
from implicit_l2o.applications.knapsack.baselines import ValueTask as ValueTask
from implicit_l2o.applications.knapsack.data import KnapsackData as KnapsackData
from implicit_l2o.applications.knapsack.task import KnapsackTask as KnapsackTask
