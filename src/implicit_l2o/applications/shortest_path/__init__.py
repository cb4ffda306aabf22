"""Shortest paths on a grid from contexts alone, learned from solutions or from costs by Davis-Yin and JFB."""

from typing import TYPE_CHECKING

from implicit_l2o.applications._lazy import lazily

if TYPE_CHECKING:
    from implicit_l2o.applications.shortest_path.baselines import Floor as Floor
    from implicit_l2o.applications.shortest_path.baselines import Polynomial as Polynomial
    from implicit_l2o.applications.shortest_path.baselines import TwoStageTask as TwoStageTask
    from implicit_l2o.applications.shortest_path.costs import CostPathTask as CostPathTask
    from implicit_l2o.applications.shortest_path.data import LinearPathData as LinearPathData
    from implicit_l2o.applications.shortest_path.data import PathData as PathData
    from implicit_l2o.applications.shortest_path.peers import CvxpyTask as CvxpyTask
    from implicit_l2o.applications.shortest_path.peers import PyEPOTask as PyEPOTask
    from implicit_l2o.applications.shortest_path.task import PathTask as PathTask
    from implicit_l2o.training import TimedTraining as TimedTraining  # the configurations of the study name it here

# The training's packages come with these, and only when one of them is asked for.
_TRAINING = {
    "Floor": "baselines",
    "Polynomial": "baselines",
    "TwoStageTask": "baselines",
    "CostPathTask": "costs",
    "LinearPathData": "data",
    "PathData": "data",
    "CvxpyTask": "peers",
    "PyEPOTask": "peers",
    "PathTask": "task",
    "TimedTraining": "implicit_l2o.training",
}
__getattr__ = lazily(__name__, _TRAINING)
