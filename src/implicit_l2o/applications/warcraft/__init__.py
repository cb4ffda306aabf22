"""Cheapest paths on Warcraft maps from their images, learned from paths alone by Davis-Yin and JFB."""

from implicit_l2o.applications.warcraft.baselines import PyEPOTask as PyEPOTask
from implicit_l2o.applications.warcraft.baselines import TwoStageTask as TwoStageTask
from implicit_l2o.applications.warcraft.data import WarcraftData as WarcraftData
from implicit_l2o.applications.warcraft.model import PatchNetwork as PatchNetwork
from implicit_l2o.applications.warcraft.model import ResNetStem as ResNetStem
from implicit_l2o.applications.warcraft.task import WarcraftTask as WarcraftTask
