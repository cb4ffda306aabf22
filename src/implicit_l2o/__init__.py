"""Learning to optimize with implicit networks: models whose outputs solve a problem, with certificates.

The public names, in the order of the pipeline: a problem (1) of operators (2), a splitting (3), a solver (4), a backward
mode (5), certificates (6); and `fixed_point`, `solve`, `ImplicitLayer`, which put them together.
"""

from implicit_l2o._solution import AdjointReport as AdjointReport
from implicit_l2o._solution import ConvergenceWarning as ConvergenceWarning
from implicit_l2o._solution import FixedPoint as FixedPoint
from implicit_l2o._solution import Solution as Solution
from implicit_l2o._solution import Status as Status
from implicit_l2o.backward import GMRES as GMRES
from implicit_l2o.backward import JFB as JFB
from implicit_l2o.backward import AbstractBackward as AbstractBackward
from implicit_l2o.backward import Implicit as Implicit
from implicit_l2o.backward import Neumann as Neumann
from implicit_l2o.backward import Unrolled as Unrolled
from implicit_l2o.certificates import BanachBound as BanachBound
from implicit_l2o.certificates import BanachEstimate as BanachEstimate
from implicit_l2o.certificates import Calibration as Calibration
from implicit_l2o.certificates import Certificate as Certificate
from implicit_l2o.certificates import CertificateReport as CertificateReport
from implicit_l2o.certificates import ConstraintViolation as ConstraintViolation
from implicit_l2o.certificates import DavisYinDistance as DavisYinDistance
from implicit_l2o.certificates import FixedPointResidual as FixedPointResidual
from implicit_l2o.certificates import Inference as Inference
from implicit_l2o.certificates import Label as Label
from implicit_l2o.certificates import Objective as Objective
from implicit_l2o.certificates import ProximalResidual as ProximalResidual
from implicit_l2o.certificates import RelativeDataFidelity as RelativeDataFidelity
from implicit_l2o.certificates import Sparsity as Sparsity
from implicit_l2o.certificates import Threshold as Threshold
from implicit_l2o.certificates import TotalVariation as TotalVariation
from implicit_l2o.certificates import calibrate as calibrate
from implicit_l2o.certificates import certify as certify
from implicit_l2o.layer import ConvergenceError as ConvergenceError
from implicit_l2o.layer import ImplicitLayer as ImplicitLayer
from implicit_l2o.layer import fixed_point as fixed_point
from implicit_l2o.layer import solve as solve
from implicit_l2o.problem import Problem as Problem
from implicit_l2o.solvers import AbstractFixedPointSolver as AbstractFixedPointSolver
from implicit_l2o.solvers import Anderson as Anderson
from implicit_l2o.solvers import Halpern as Halpern
from implicit_l2o.solvers import KrasnoselskiiMann as KrasnoselskiiMann
from implicit_l2o.solvers import Stopping as Stopping
from implicit_l2o.splittings import AbstractSplitting as AbstractSplitting
from implicit_l2o.splittings import CondatVu as CondatVu
from implicit_l2o.splittings import DavisYin as DavisYin
from implicit_l2o.splittings import DouglasRachford as DouglasRachford
from implicit_l2o.splittings import ForwardBackward as ForwardBackward
from implicit_l2o.splittings import LinearizedADMM as LinearizedADMM
