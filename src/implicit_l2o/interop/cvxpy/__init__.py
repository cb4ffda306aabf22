"""Any CVXPY problem as an implicit layer; CVXPY is in the extra `implicit_l2o[cvxpy]`."""

from implicit_l2o.interop.cvxpy.certificates import CvxpyViolation as CvxpyViolation
from implicit_l2o.interop.cvxpy.certificates import DualityGap as DualityGap
from implicit_l2o.interop.cvxpy.layer import CvxpyLayer as CvxpyLayer
from implicit_l2o.interop.cvxpy.solution import ConicSolution as ConicSolution
from implicit_l2o.interop.cvxpy.solution import GradientReport as GradientReport
from implicit_l2o.interop.cvxpy.solution import ZeroGradientWarning as ZeroGradientWarning
