"""Games as variational inequalities, and traffic networks with their exact equilibrium solver."""

from implicit_l2o.games import gaps as gaps
from implicit_l2o.games.assignment import Assignment as Assignment
from implicit_l2o.games.assignment import Assignments as Assignments
from implicit_l2o.games.assignment import PathFlows as PathFlows
from implicit_l2o.games.assignment import user_equilibria as user_equilibria
from implicit_l2o.games.assignment import user_equilibrium as user_equilibrium
from implicit_l2o.games.equilibrium_layer import EquilibriumLayer as EquilibriumLayer
from implicit_l2o.games.equilibrium_layer import InUnits as InUnits
from implicit_l2o.games.exact_start import flow_units as flow_units
from implicit_l2o.games.flow_set import Conservation as Conservation
from implicit_l2o.games.flow_set import OriginFlows as OriginFlows
from implicit_l2o.games.frank_wolfe import LinkAssignment as LinkAssignment
from implicit_l2o.games.frank_wolfe import frank_wolfe as frank_wolfe
from implicit_l2o.games.latency import PolynomialLatency as PolynomialLatency
from implicit_l2o.games.matrix_game import MatrixGame as MatrixGame
from implicit_l2o.games.minkowski import BlockSum as BlockSum
from implicit_l2o.games.minkowski import minkowski_problem as minkowski_problem
from implicit_l2o.games.polynomial_cost import PolynomialCost as PolynomialCost
from implicit_l2o.games.quantal_response import QuantalResponse as QuantalResponse
from implicit_l2o.games.quantal_response import quantal_response_equilibrium as quantal_response_equilibrium
from implicit_l2o.games.traffic_network import TrafficNetwork as TrafficNetwork
from implicit_l2o.games.variational_inequality import Player as Player
from implicit_l2o.games.variational_inequality import game as game
from implicit_l2o.games.variational_inequality import natural_residual as natural_residual
from implicit_l2o.games.variational_inequality import splitting_of as splitting_of
