"""Linear programs as layers: the polyhedron, and its differentiable solution for predicted costs."""

from implicit_l2o.linear_program.layer import LPLayer as LPLayer
from implicit_l2o.linear_program.program import LinearProgram as LinearProgram
from implicit_l2o.linear_program.vertices import VertexWarning as VertexWarning
