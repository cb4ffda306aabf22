"""Games as variational inequalities, and traffic networks with their exact equilibrium solver."""

from implicit_l2o.games.matrix_game import MatrixGame as MatrixGame
from implicit_l2o.games.minkowski import BlockSum as BlockSum
from implicit_l2o.games.minkowski import minkowski_problem as minkowski_problem
from implicit_l2o.games.quantal_response import QuantalResponse as QuantalResponse
from implicit_l2o.games.quantal_response import quantal_response_equilibrium as quantal_response_equilibrium
from implicit_l2o.games.variational_inequality import Player as Player
from implicit_l2o.games.variational_inequality import game as game
from implicit_l2o.games.variational_inequality import natural_residual as natural_residual
from implicit_l2o.games.variational_inequality import splitting_of as splitting_of
