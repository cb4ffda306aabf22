"""What is certified of a predicted equilibrium: a pair of strategies, at rest, and in equilibrium as predicted."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.games import MatrixGame

VIOLATION = "distance to the simplices"
RESIDUAL = "fixed-point residual"
GAP = "gap of the predicted game"
MOST_VIOLATION = 1e-6
MOST_RESIDUAL = 1e-5  # ten times the tolerance of the solves


def strategies(actions: int) -> il2o.ProductSet:
    """Both players' simplices."""
    return il2o.ProductSet((il2o.Simplex(), il2o.Simplex()), sizes=(actions, actions))


def of_strategies(actions: int) -> il2o.Certificate:
    """That the answer is a pair of strategies."""
    measure = il2o.ConstraintViolation(strategies(actions), name=VIOLATION)
    return il2o.Certificate(measure, il2o.Threshold(MOST_VIOLATION))


def of_the_solve() -> il2o.Certificate:
    """That the iteration is at rest."""
    return il2o.Certificate(il2o.FixedPointResidual(name=RESIDUAL), il2o.Threshold(MOST_RESIDUAL))


@dataclass(frozen=True, eq=False)
class PredictedGap(il2o.AbstractMeasure):
    """What the players could still gain in the game that the model predicted, entropy included.

    It bounds the distance to that game's equilibrium (`MatrixGame.gap`) and says nothing of how true the game is.

    Args:
        temperature: of the players' entropy.
        name: shown in the report.
    """

    temperature: float
    name: str = field(default=GAP, kw_only=True)

    def __call__(self, inference: il2o.Inference) -> Float[Tensor, " B"]:
        """The gap, per sample."""
        game = inference.need_problem(self.name).F
        assert isinstance(game, il2o.BilinearGame)
        return MatrixGame(game.matrix, self.temperature).gap(inference.x)
