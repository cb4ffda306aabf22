"""Games as variational inequalities, and traffic networks with their exact equilibrium solver."""

from implicit_l2o.games.latency import PolynomialLatency as PolynomialLatency
from implicit_l2o.games.traffic_network import TrafficNetwork as TrafficNetwork
