"""Measurement: the parallel-beam geometry and its projector, filtered back-projection, noise."""

from implicit_l2o.physics.filtered_back_projection import FilteredBackProjection as FilteredBackProjection
from implicit_l2o.physics.geometry import Geometry as Geometry
from implicit_l2o.physics.noise import PerBeamNoise as PerBeamNoise
from implicit_l2o.physics.noise import PoissonNoise as PoissonNoise
from implicit_l2o.physics.noise import WhiteNoise as WhiteNoise
from implicit_l2o.physics.noise import line_integrals as line_integrals
from implicit_l2o.physics.projector import Projector as Projector
from implicit_l2o.physics.symmetry import sinogram_symmetries as sinogram_symmetries
