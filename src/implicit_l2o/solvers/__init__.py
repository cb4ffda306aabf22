"""Stage 4: iterate `z <- T(z)` to its fixed point."""

from implicit_l2o.solvers.anderson import Anderson as Anderson
from implicit_l2o.solvers.base import AbstractFixedPointSolver as AbstractFixedPointSolver
from implicit_l2o.solvers.base import Stopping as Stopping
from implicit_l2o.solvers.base import iterate as iterate
from implicit_l2o.solvers.halpern import Halpern as Halpern
from implicit_l2o.solvers.krasnoselskii_mann import KrasnoselskiiMann as KrasnoselskiiMann
