"""Learning to optimize with implicit networks: models whose outputs solve a problem, with certificates.

The public names in the order of the pipeline. `fixed_point`, `solve` and `ImplicitLayer` put the stages together.
"""

from implicit_l2o._version import __version__ as __version__

# 1  the problem
from implicit_l2o.problem import Problem as Problem

# 2  operators: what a problem is made of
from implicit_l2o.operators import AbstractAffineFactor as AbstractAffineFactor
from implicit_l2o.operators import AffineSet as AffineSet
from implicit_l2o.operators import affine_factor as affine_factor
from implicit_l2o.operators import AbstractFunction as AbstractFunction
from implicit_l2o.operators import AbstractLinearOperator as AbstractLinearOperator
from implicit_l2o.operators import AbstractMonotone as AbstractMonotone
from implicit_l2o.operators import AbstractProximable as AbstractProximable
from implicit_l2o.operators import AbstractSet as AbstractSet
from implicit_l2o.operators import AbstractSmooth as AbstractSmooth
from implicit_l2o.operators import BilinearGame as BilinearGame
from implicit_l2o.operators import Box as Box
from implicit_l2o.operators import Conjugate as Conjugate
from implicit_l2o.operators import Convolution2D as Convolution2D
from implicit_l2o.operators import EntropicSimplex as EntropicSimplex
from implicit_l2o.operators import FiniteDifferences2D as FiniteDifferences2D
from implicit_l2o.operators import Free as Free
from implicit_l2o.operators import Graph as Graph
from implicit_l2o.operators import GroupL2Norm as GroupL2Norm
from implicit_l2o.operators import HalfSpace as HalfSpace
from implicit_l2o.operators import Identity as Identity
from implicit_l2o.operators import L1Ball as L1Ball
from implicit_l2o.operators import L1Norm as L1Norm
from implicit_l2o.operators import L2Ball as L2Ball
from implicit_l2o.operators import L2Norm as L2Norm
from implicit_l2o.operators import LeastSquares as LeastSquares
from implicit_l2o.operators import LinearCost as LinearCost
from implicit_l2o.operators import LInfBall as LInfBall
from implicit_l2o.operators import Logit as Logit
from implicit_l2o.operators import Matrix as Matrix
from implicit_l2o.operators import MonotoneSum as MonotoneSum
from implicit_l2o.operators import NonnegativeOrthant as NonnegativeOrthant
from implicit_l2o.operators import ProductSet as ProductSet
from implicit_l2o.operators import QuadraticCost as QuadraticCost
from implicit_l2o.operators import Scale as Scale
from implicit_l2o.operators import ScaleSet as ScaleSet
from implicit_l2o.operators import SecondOrderCone as SecondOrderCone
from implicit_l2o.operators import ExponentialCone as ExponentialCone
from implicit_l2o.operators import PowerCone as PowerCone
from implicit_l2o.operators import SemidefiniteCone as SemidefiniteCone
from implicit_l2o.operators import ConeProduct as ConeProduct
from implicit_l2o.operators import SeparableSum as SeparableSum
from implicit_l2o.operators import Simplex as Simplex
from implicit_l2o.operators import SmoothSum as SmoothSum
from implicit_l2o.operators import Translate as Translate
from implicit_l2o.operators import TranslateSet as TranslateSet

#    how the tensor fields of a user's own operator meet the batch
from implicit_l2o._batch import DATA as DATA
from implicit_l2o._batch import MATRIX as MATRIX
from implicit_l2o._batch import SCALAR as SCALAR
from implicit_l2o._batch import VECTOR as VECTOR

# 3  splittings: from a problem to a map T and a readout R
from implicit_l2o.splittings import AbstractSplitting as AbstractSplitting
from implicit_l2o.splittings import ForwardBackward as ForwardBackward
from implicit_l2o.splittings import DouglasRachford as DouglasRachford
from implicit_l2o.splittings import DavisYin as DavisYin
from implicit_l2o.splittings import ForwardBackwardForward as ForwardBackwardForward
from implicit_l2o.splittings import CombettesPesquet as CombettesPesquet
from implicit_l2o.splittings import CondatVu as CondatVu
from implicit_l2o.splittings import LinearizedADMM as LinearizedADMM

# 4  solvers: iterate z <- T(z)
from implicit_l2o.solvers import AbstractFixedPointSolver as AbstractFixedPointSolver
from implicit_l2o.solvers import Stopping as Stopping
from implicit_l2o.solvers import KrasnoselskiiMann as KrasnoselskiiMann
from implicit_l2o.solvers import Anderson as Anderson
from implicit_l2o.solvers import Halpern as Halpern

# 5  backward modes: how the fixed point gets its gradient
from implicit_l2o.backward import AbstractBackward as AbstractBackward
from implicit_l2o.backward import JFB as JFB
from implicit_l2o.backward import Neumann as Neumann
from implicit_l2o.backward import Implicit as Implicit
from implicit_l2o.backward import GMRES as GMRES
from implicit_l2o.backward import NormalCG as NormalCG
from implicit_l2o.backward import Unrolled as Unrolled

# 6  certificates: whether an answer can be trusted
from implicit_l2o.certificates import AbstractMeasure as AbstractMeasure
from implicit_l2o.certificates import AbstractRule as AbstractRule
from implicit_l2o.certificates import Certificate as Certificate
from implicit_l2o.certificates import CertificateReport as CertificateReport
from implicit_l2o.certificates import Inference as Inference
from implicit_l2o.certificates import Label as Label
from implicit_l2o.certificates import certify as certify
from implicit_l2o.certificates import BanachBound as BanachBound
from implicit_l2o.certificates import BanachEstimate as BanachEstimate
from implicit_l2o.certificates import DavisYinDistance as DavisYinDistance
from implicit_l2o.certificates import Calibration as Calibration
from implicit_l2o.certificates import Threshold as Threshold
from implicit_l2o.certificates import calibrate as calibrate
from implicit_l2o.certificates import Conformal as Conformal
from implicit_l2o.certificates import conformal as conformal
from implicit_l2o.certificates import p_values as p_values
from implicit_l2o.certificates import adjusted as adjusted
from implicit_l2o.certificates import SelectiveLimit as SelectiveLimit
from implicit_l2o.certificates import selective_limit as selective_limit
from implicit_l2o.certificates import Coverage as Coverage
from implicit_l2o.certificates import coverage as coverage
from implicit_l2o.certificates import certificates_from_json as certificates_from_json
from implicit_l2o.certificates import certificates_to_json as certificates_to_json
from implicit_l2o.certificates import ensure as ensure
from implicit_l2o.certificates import Ensured as Ensured
from implicit_l2o.certificates import Checked as Checked
from implicit_l2o.certificates import PostconditionError as PostconditionError
from implicit_l2o.certificates import PostconditionWarning as PostconditionWarning
from implicit_l2o.certificates import AuditLog as AuditLog
from implicit_l2o.certificates import AuditError as AuditError
from implicit_l2o.certificates import read_audit as read_audit
from implicit_l2o.certificates import ConstraintViolation as ConstraintViolation
from implicit_l2o.certificates import FixedPointResidual as FixedPointResidual
from implicit_l2o.certificates import Objective as Objective
from implicit_l2o.certificates import ProximalResidual as ProximalResidual
from implicit_l2o.certificates import RelativeDataFidelity as RelativeDataFidelity
from implicit_l2o.certificates import Sparsity as Sparsity
from implicit_l2o.certificates import TotalVariation as TotalVariation

# The whole pipeline, and what it returns
from implicit_l2o.layer import fixed_point as fixed_point
from implicit_l2o.layer import solve as solve
from implicit_l2o.layer import ImplicitLayer as ImplicitLayer
from implicit_l2o.layer import ConvergenceError as ConvergenceError
from implicit_l2o.linear_program import LinearProgram as LinearProgram
from implicit_l2o.linear_program import LPLayer as LPLayer
from implicit_l2o._solution import AdjointReport as AdjointReport
from implicit_l2o._solution import ConvergenceWarning as ConvergenceWarning
from implicit_l2o._solution import FixedPoint as FixedPoint
from implicit_l2o._solution import Solution as Solution
from implicit_l2o._solution import Status as Status

# Diagnostics: how good a gradient or an iteration is
from implicit_l2o.diagnostics import contraction_estimate as contraction_estimate
from implicit_l2o.diagnostics import lipschitz_lower_bound as lipschitz_lower_bound
from implicit_l2o.diagnostics import DescentReport as DescentReport
from implicit_l2o.diagnostics import descent_conditions as descent_conditions
from implicit_l2o.diagnostics import GradientReport as GradientReport
from implicit_l2o.diagnostics import gradient_report as gradient_report
