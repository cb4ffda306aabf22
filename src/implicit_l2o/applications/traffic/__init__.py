"""Traffic equilibria on road networks from contexts, learned from observed link flows."""

from implicit_l2o.applications.traffic.data import TrafficData as TrafficData
from implicit_l2o.applications.traffic.model import Road as Road
from implicit_l2o.applications.traffic.task import EquilibriumTask as EquilibriumTask
from implicit_l2o.applications.traffic.task import FlowTask as FlowTask
