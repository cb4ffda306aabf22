"""Stage 3: from a problem to a map `T` whose fixed points solve it, and the readout of the answer."""

from implicit_l2o.splittings.base import AbstractSplitting as AbstractSplitting
from implicit_l2o.splittings.combettes_pesquet import CombettesPesquet as CombettesPesquet
from implicit_l2o.splittings.davis_yin import DavisYin as DavisYin
from implicit_l2o.splittings.douglas_rachford import DouglasRachford as DouglasRachford
from implicit_l2o.splittings.forward_backward import ForwardBackward as ForwardBackward
from implicit_l2o.splittings.forward_backward_forward import ForwardBackwardForward as ForwardBackwardForward
from implicit_l2o.splittings.linearized_admm import LinearizedADMM as LinearizedADMM
from implicit_l2o.splittings.primal_dual import CondatVu as CondatVu
