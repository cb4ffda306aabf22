"""Stage 5: how the fixed point gets its gradient."""

from implicit_l2o.backward.base import AbstractBackward as AbstractBackward
from implicit_l2o.backward.gmres import GMRES as GMRES
from implicit_l2o.backward.implicit import Implicit as Implicit
from implicit_l2o.backward.jfb import JFB as JFB
from implicit_l2o.backward.neumann import Neumann as Neumann
from implicit_l2o.backward.normal_cg import NormalCG as NormalCG
from implicit_l2o.backward.unrolled import Unrolled as Unrolled
