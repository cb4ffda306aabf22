"""Measurement: the parallel-beam geometry and its projector, filtered back-projection, noise."""

from implicit_l2o.physics._stored_matrix import batch_last as batch_last
from implicit_l2o.physics.filtered_back_projection import Filter as Filter
from implicit_l2o.physics.filtered_back_projection import FilteredBackProjection as FilteredBackProjection
from implicit_l2o.physics.geometry import Geometry as Geometry
from implicit_l2o.physics.matrix_free import MatrixFree as MatrixFree
from implicit_l2o.physics.matrix_free import adjoint_error as adjoint_error
from implicit_l2o.physics.noise import PerBeamNoise as PerBeamNoise
from implicit_l2o.physics.noise import PoissonNoise as PoissonNoise
from implicit_l2o.physics.noise import WhiteNoise as WhiteNoise
from implicit_l2o.physics.noise import line_integrals as line_integrals
from implicit_l2o.physics.projector import Projector as Projector
from implicit_l2o.physics.symmetry import sinogram_symmetries as sinogram_symmetries
from implicit_l2o.physics.units import WATER as WATER
from implicit_l2o.physics.units import GreyWindow as GreyWindow
from implicit_l2o.physics.units import UnitRange as UnitRange
from implicit_l2o.physics.units import from_hounsfield as from_hounsfield
from implicit_l2o.physics.units import to_hounsfield as to_hounsfield
from implicit_l2o.physics.upsampled import UpsampledProjector as UpsampledProjector
