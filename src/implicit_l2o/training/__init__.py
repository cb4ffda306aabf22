"""Training with Lightning: an application says the loss and the metrics, the rest is here."""

from implicit_l2o.training.base import AbstractTask as AbstractTask
from implicit_l2o.training.base import fit as fit
from implicit_l2o.training.base import one_thread as one_thread
from implicit_l2o.training.base import quiet as quiet
from implicit_l2o.training.checkpoint import AtomicCheckpointIO as AtomicCheckpointIO
from implicit_l2o.training.checkpoint import CheckpointError as CheckpointError
from implicit_l2o.training.checkpoint import read_checkpoint as read_checkpoint
from implicit_l2o.training.checkpoint import write_checkpoint as write_checkpoint
from implicit_l2o.training.files import FileError as FileError
from implicit_l2o.training.logger import MetricsLogger as MetricsLogger
from implicit_l2o.training.memory import peak_memory as peak_memory
from implicit_l2o.training.random_state import RandomState as RandomState
from implicit_l2o.training.random_state import random_state as random_state
from implicit_l2o.training.random_state import restore_random_state as restore_random_state
from implicit_l2o.training.saving import Checkpoints as Checkpoints
