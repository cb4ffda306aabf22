"""Training with Lightning: an application says the loss and the metrics, the rest is here."""

from implicit_l2o.training.base import AbstractTask as AbstractTask
from implicit_l2o.training.base import fit as fit
from implicit_l2o.training.base import one_thread as one_thread
from implicit_l2o.training.base import quiet as quiet
from implicit_l2o.training.callbacks import GradientCosine as GradientCosine
from implicit_l2o.training.callbacks import SolverProgressBar as SolverProgressBar
from implicit_l2o.training.callbacks import SolverStatistics as SolverStatistics
from implicit_l2o.training.callbacks import WarmWeightAverage as WarmWeightAverage
from implicit_l2o.training.memory import peak_memory as peak_memory
