"""Exact combinatorial solvers: from predicted costs to the 0/1 decision that minimises them, for a whole batch."""

from implicit_l2o._numba import has_numba as has_numba
from implicit_l2o.decoders.base import AbstractDecoder as AbstractDecoder
from implicit_l2o.decoders.base import decide_finite as decide_finite
from implicit_l2o.decoders.dijkstra import Dijkstra as Dijkstra
from implicit_l2o.decoders.grid_paths import GridPaths as GridPaths
from implicit_l2o.decoders.knapsack import Knapsack as Knapsack
from implicit_l2o.decoders.milp import MILP as MILP
from implicit_l2o.decoders.travelling_salesman import TravellingSalesman as TravellingSalesman
