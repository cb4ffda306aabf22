"""Computed tomography from few views: learned regularisers with a guaranteed fidelity, and what they are compared with."""

from implicit_l2o.applications.ct.base import ReconstructionTask as ReconstructionTask
from implicit_l2o.applications.ct.data import EllipseData as EllipseData
from implicit_l2o.applications.ct.regularisers import AveragedNetwork as AveragedNetwork
from implicit_l2o.applications.ct.regularisers import ConvexPotential as ConvexPotential
from implicit_l2o.applications.ct.regularisers import FreeNetwork as FreeNetwork
from implicit_l2o.applications.ct.task import ImplicitReconstructionTask as ImplicitReconstructionTask
