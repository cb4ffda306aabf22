"""Trained layers without their training: saved as one folder, loaded by one call, exported, and served over HTTP."""

from implicit_l2o.serving.errors import InputError as InputError
from implicit_l2o.serving.errors import LayerError as LayerError
from implicit_l2o.serving.folder import is_layer as is_layer
from implicit_l2o.serving.folder import load_layer as load_layer
from implicit_l2o.serving.folder import save_layer as save_layer
from implicit_l2o.serving.layer import Answers as Answers
from implicit_l2o.serving.layer import Layer as Layer
from implicit_l2o.serving.program import export_program as export_program
from implicit_l2o.serving.program import fixed_steps as fixed_steps
from implicit_l2o.serving.program import load_program as load_program
from implicit_l2o.serving.servable import AbstractServable as AbstractServable
