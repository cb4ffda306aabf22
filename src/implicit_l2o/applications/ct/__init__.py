"""Computed tomography from few views: learned regularisers with a guaranteed fidelity, and what they are compared with."""

from typing import TYPE_CHECKING

from implicit_l2o.applications._lazy import lazily
from implicit_l2o.applications.ct.regularisers import AveragedNetwork as AveragedNetwork
from implicit_l2o.applications.ct.regularisers import ConvexPotential as ConvexPotential
from implicit_l2o.applications.ct.regularisers import FreeNetwork as FreeNetwork

if TYPE_CHECKING:
    from implicit_l2o.applications.ct.base import ReconstructionTask as ReconstructionTask
    from implicit_l2o.applications.ct.classical import CGLS as CGLS
    from implicit_l2o.applications.ct.classical import FBP as FBP
    from implicit_l2o.applications.ct.classical_tv import ConstrainedTV as ConstrainedTV
    from implicit_l2o.applications.ct.classical_tv import PenalisedTV as PenalisedTV
    from implicit_l2o.applications.ct.data import EllipseData as EllipseData
    from implicit_l2o.applications.ct.data import LodopabData as LodopabData
    from implicit_l2o.applications.ct.fpn import FPNTask as FPNTask
    from implicit_l2o.applications.ct.learned_primal_dual import LearnedPrimalDualTask as LearnedPrimalDualTask
    from implicit_l2o.applications.ct.network_denoiser import NetworkDenoiser as NetworkDenoiser
    from implicit_l2o.applications.ct.plug_and_play import Denoiser as Denoiser
    from implicit_l2o.applications.ct.plug_and_play import PlugAndPlay as PlugAndPlay
    from implicit_l2o.applications.ct.plug_and_play import PlugAndPlayTask as PlugAndPlayTask
    from implicit_l2o.applications.ct.task import ImplicitReconstructionTask as ImplicitReconstructionTask
    from implicit_l2o.applications.ct.unet import UNetTask as UNetTask

# The training's packages come with these, and only when one of them is asked for.
_TRAINING = {
    "ReconstructionTask": "base",
    "CGLS": "classical",
    "FBP": "classical",
    "ConstrainedTV": "classical_tv",
    "PenalisedTV": "classical_tv",
    "EllipseData": "data",
    "LodopabData": "data",
    "FPNTask": "fpn",
    "LearnedPrimalDualTask": "learned_primal_dual",
    "NetworkDenoiser": "network_denoiser",
    "Denoiser": "plug_and_play",
    "PlugAndPlay": "plug_and_play",
    "PlugAndPlayTask": "plug_and_play",
    "ImplicitReconstructionTask": "task",
    "UNetTask": "unet",
}
__getattr__ = lazily(__name__, _TRAINING)
