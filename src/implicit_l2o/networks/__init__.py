"""Learned operators: input-convex costs, nonexpansive, contractive and proximal networks, with bounds that hold."""

from implicit_l2o.networks.activations import AbstractConvexActivation as AbstractConvexActivation
from implicit_l2o.networks.activations import GroupSort as GroupSort
from implicit_l2o.networks.activations import Huber as Huber
from implicit_l2o.networks.activations import Softplus as Softplus
from implicit_l2o.networks.activations import Squareplus as Squareplus
from implicit_l2o.networks.cocoercive import CocoerciveNet as CocoerciveNet
from implicit_l2o.networks.encoders import MLP as MLP
from implicit_l2o.networks.icnn import ICNN as ICNN
from implicit_l2o.networks.icnn import ConvexCost as ConvexCost
from implicit_l2o.networks.increasing import IncreasingCost as IncreasingCost
from implicit_l2o.networks.increasing import IncreasingNet as IncreasingNet
from implicit_l2o.networks.nonexpansive import AbstractNonexpansiveNet as AbstractNonexpansiveNet
from implicit_l2o.networks.nonexpansive import AveragedMap as AveragedMap
from implicit_l2o.networks.nonexpansive import AveragedNet as AveragedNet
from implicit_l2o.networks.nonexpansive import ContractiveMap as ContractiveMap
from implicit_l2o.networks.nonexpansive import ContractiveNet as ContractiveNet
from implicit_l2o.networks.nonexpansive import NonexpansiveConvNet as NonexpansiveConvNet
from implicit_l2o.networks.nonexpansive import NonexpansiveMap as NonexpansiveMap
from implicit_l2o.networks.nonexpansive import NonexpansiveNet as NonexpansiveNet
from implicit_l2o.networks.nonexpansive import ResidualMonotone as ResidualMonotone
from implicit_l2o.networks.proximal import LearnedProx as LearnedProx
from implicit_l2o.networks.proximal import ProximalNet as ProximalNet
from implicit_l2o.networks.spectral import conv2d_norm_bound as conv2d_norm_bound
from implicit_l2o.networks.spectral import dense_norm_bound as dense_norm_bound
