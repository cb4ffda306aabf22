"""Experiments: a configuration in, a trained, tested and certified model with its report out."""

from implicit_l2o.experiment.catalogue import find_experiment as find_experiment
from implicit_l2o.experiment.certify import certify as certify
from implicit_l2o.experiment.certify import load_run as load_run
from implicit_l2o.experiment.certify import load_task as load_task
from implicit_l2o.experiment.config import ExperimentCLI as ExperimentCLI
from implicit_l2o.experiment.errors import ConfigurationError as ConfigurationError
from implicit_l2o.experiment.export import export as export
from implicit_l2o.experiment.export import layer_of as layer_of
from implicit_l2o.experiment.folder import RunFolder as RunFolder
from implicit_l2o.experiment.gradients import read_mode as read_mode
from implicit_l2o.experiment.play import play as play
from implicit_l2o.experiment.run import Options as Options
from implicit_l2o.experiment.run import run as run
from implicit_l2o.experiment.show import rebuild as rebuild
from implicit_l2o.experiment.show import table as table
