"""Shortest paths on a grid from contexts alone, learned from solutions by Davis-Yin and JFB."""

from implicit_l2o.applications.shortest_path.baselines import Floor as Floor
from implicit_l2o.applications.shortest_path.baselines import TwoStageTask as TwoStageTask
from implicit_l2o.applications.shortest_path.data import PathData as PathData
from implicit_l2o.applications.shortest_path.task import PathTask as PathTask
