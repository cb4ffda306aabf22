"""Contexts with equilibria as splits of a training; how they are drawn is in `implicit_l2o.data.matrix_games`."""

from typing import final

from torch.utils.data import TensorDataset

from implicit_l2o.data.matrix_games import Kind, PayoffLaw
from implicit_l2o.training import AbstractData, Splits


@final
class MatrixGameData(AbstractData):
    """Contexts with the exact equilibria of their games, drawn anew for every seed of a run: the law and the contexts.

    A batch is `(contexts, x, upper)`, float64: `x` both strategies joined, `upper` the payoffs above the diagonal, which
    the metrics read and no model may.

    Args:
        actions: of each player.
        kind: see `PayoffLaw`.
        train: training contexts.
        validation: validation contexts, of a seed of their own.
        test: test contexts, of a seed of their own.
        first_data_seed: everything is drawn with this plus the run's seed.
        batch_size: contexts of a training batch.
        evaluation_batch: the most contexts that are validated or tested at once.
        seed: of the data; None takes that of the run.

    Example:
        >>> from implicit_l2o.applications.matrix_games import MatrixGameData
        >>> splits = MatrixGameData(actions=4, train=3, validation=2, test=2).splits
        >>> [tuple(field.shape) for field in splits.train.tensors]
        [(3, 3), (3, 8), (3, 6)]
    """

    def __init__(
        self,
        *,
        actions: int = 5,
        kind: Kind = "entropic",
        train: int = 2000,
        validation: int = 200,
        test: int = 500,
        first_data_seed: int = 0,
        batch_size: int = 200,
        evaluation_batch: int = 250,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, evaluation_batch=evaluation_batch, seed=seed)
        self.sizes = (train, validation, test)
        self.first_data_seed = first_data_seed
        self.actions = actions
        self.kind: Kind = kind

    @property
    def law(self) -> PayoffLaw:
        """Of the run."""
        return PayoffLaw(self.actions, self.kind, 4 * (self.first_data_seed + self.run_seed))

    def load(self) -> Splits:
        """Draw the contexts of each split by a seed of its own, and solve their games."""
        law, parts = self.law, []
        for offset, count in enumerate(self.sizes):
            games = law.draw(count, seed=law.seed + 1 + offset)
            parts.append(TensorDataset(games.contexts, games.x, games.contexts @ law.weight.mT))
        return Splits(*parts)
