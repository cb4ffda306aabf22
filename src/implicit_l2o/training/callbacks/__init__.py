"""Callbacks for Lightning's `Trainer`; in a configuration they are named by class path."""

from implicit_l2o.training.callbacks.collect import CollectSamples as CollectSamples
from implicit_l2o.training.callbacks.convergence import Convergence as Convergence
from implicit_l2o.training.callbacks.epoch_timer import EpochTimer as EpochTimer
from implicit_l2o.training.callbacks.gamma_continuation import GammaContinuation as GammaContinuation
from implicit_l2o.training.callbacks.gradient_cosine import GradientCosine as GradientCosine
from implicit_l2o.training.callbacks.progress import SolverProgressBar as SolverProgressBar
from implicit_l2o.training.callbacks.solver_statistics import SolverStatistics as SolverStatistics
from implicit_l2o.training.callbacks.time_limit import TimeLimit as TimeLimit
from implicit_l2o.training.callbacks.weight_average import WarmWeightAverage as WarmWeightAverage
