"""Warcraft maps: an image of a terrain, the cost of every cell, and the cheapest path from corner to corner.

The public data set is of M. Vlastelica, A. Paulus, V. Musil, G. Martius and M. Rolinek, Differentiation of Blackbox
Combinatorial Solvers, ICLR (2020), published at https://doi.org/10.17617/3.YJCQ5S. `load` reads its folder; `generate` draws
terrain maps in the same format, so that nothing has to be downloaded, and `save` writes them in its layout.

A path goes from the first cell to the last over the eight neighbours of a cell, and costs what the cells cost that it
enters: the cell it starts in does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.data import _terrain
from implicit_l2o.decoders import Dijkstra

SOURCE = "https://doi.org/10.17617/3.YJCQ5S"
Split: TypeAlias = Literal["train", "val", "test"]

_SPLITS = ("train", "val", "test")
_BLOCK = 500  # maps drawn at once; it is part of what a seed means


@final
@dataclass(frozen=True)
class CellGrid:
    """A square grid of cells with arcs to the eight neighbours, whose costs are those of the cells they enter.

    Cell `(row, column)` is node `side row + column`. There are `4 (side - 1) (2 side - 1)` arcs, 1,012 at side 12.

    Args:
        side: cells along one side, at least 2.

    Raises:
        ValueError: the side is below 2.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.warcraft import CellGrid
        >>> grid = CellGrid(3)
        >>> costs = torch.tensor([[[1.0, 1.0, 9.0], [9.0, 9.0, 1.0], [9.0, 9.0, 1.0]]])
        >>> grid.shortest_paths(costs)
        tensor([[[1., 1., 0.],
                 [0., 0., 1.],
                 [0., 0., 1.]]])
        >>> CellGrid().n_arcs
        1012
    """

    side: int = 12

    def __post_init__(self) -> None:
        if self.side < 2:
            raise ValueError(f"CellGrid needs side >= 2; got side={self.side}.")

    @cached_property
    def arcs(self) -> NDArray[np.int64]:
        """Tail and head of every arc, `(arcs, 2)`, by their tails."""
        cells = np.stack(np.divmod(np.arange(self.side**2), self.side), axis=1)
        steps = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx])
        heads = cells[:, None] + steps
        tails, step = np.nonzero(((heads >= 0) & (heads < self.side)).all(-1))
        return np.stack([tails, heads[tails, step] @ np.array([self.side, 1])], axis=1)

    @property
    def n_arcs(self) -> int:
        """Number of arcs."""
        return 4 * (self.side - 1) * (2 * self.side - 1)

    @cached_property
    def decoder(self) -> Dijkstra:
        """Finds the cheapest path over arcs with costs that are not negative."""
        return Dijkstra(self.side**2, self.arcs, source=0, target=self.side**2 - 1)

    def program(self) -> il2o.LinearProgram:
        """The unit flows from the first cell to the last, `{x >= 0 : A x = b}`, one row a cell, `A` sparse."""
        from scipy.sparse import coo_array

        column, cells = np.arange(self.n_arcs), self.side**2
        entries = np.concatenate([np.full(self.n_arcs, -1.0), np.ones(self.n_arcs)])
        place = (self.arcs.T.ravel(), np.concatenate([column, column]))
        b = torch.zeros(cells)
        b[0], b[-1] = -1.0, 1.0
        return il2o.LinearProgram(A_eq=coo_array((entries, place), shape=(cells, self.n_arcs)).tocsr(), b_eq=b)

    def arc_costs(self, costs: Float[Tensor, "B side side"]) -> Float[Tensor, "B arcs"]:
        """The cost of every arc: that of the cell it enters."""
        return costs.flatten(1)[:, self._heads(costs)]

    def cells(self, flow: Float[Tensor, "B arcs"]) -> Float[Tensor, "B side side"]:
        """How much of a flow enters every cell; 1 in the cell where it starts. For a path, 1 on its cells."""
        entered = flow.new_zeros(len(flow), self.side**2).index_add(1, self._heads(flow), flow)
        start = torch.zeros_like(entered[0])
        start[0] = 1.0
        return (entered + start).unflatten(1, (self.side, self.side))

    def path_arcs(self, paths: Float[Tensor, "B side side"]) -> Float[Tensor, "B arcs"]:
        """The arcs of cheapest paths that are given by their cells.

        A cheapest path takes no two cells that are neighbours but one after the other, where costs are positive; so its
        cells say the arcs.
        """
        return self.decoder(self.arc_costs(torch.where(paths > 0.5, 1.0, float(self.side**2))))

    def shortest_paths(self, costs: Float[Tensor, "B side side"]) -> Float[Tensor, "B side side"]:
        """The cells of the cheapest path of every sample, 0/1, for costs that are not negative."""
        return self.cells(self.decoder(self.arc_costs(costs)))

    def _heads(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.arcs[:, 1]).to(like.device)


@final
@dataclass(frozen=True, eq=False)
class Maps:
    """Maps with the costs of their cells and their cheapest paths.

    Args:
        images: `(N, height, width, 3)`, intensities 0 to 255.
        costs: `(N, side, side)`, positive.
        paths: `(N, side, side)`, 1 on the cells of the cheapest path, else 0.
    """

    images: UInt8[Tensor, "N height width 3"]
    costs: Float[Tensor, "N side side"]
    paths: Float[Tensor, "N side side"]

    def __len__(self) -> int:
        return len(self.images)


def path_costs(paths: Float[Tensor, "B side side"], costs: Float[Tensor, "B side side"]) -> Float[Tensor, " B"]:
    """What the cells of a path cost, without the one it starts in, in double precision.

    Example:
        >>> import torch
        >>> from implicit_l2o.data.warcraft import path_costs
        >>> path_costs(torch.eye(2)[None], torch.tensor([[[9.0, 2.0], [3.0, 4.0]]]))
        tensor([4.], dtype=torch.float64)
    """
    return (paths.double() * costs.double()).flatten(1)[:, 1:].sum(1)


def generate(count: int, *, seed: int | Sequence[int], side: int = 12) -> Maps:
    """Terrain maps of five terrains that cost .8, 1.2, 5.3, 7.7 and 9.2, and their cheapest paths; see `_terrain`.

    Args:
        count: of the maps, at least 1. Fewer maps of the same seed are not always the first of more.
        seed: of everything that is random; a sequence of integers is one seed as well.
        side: cells along one side; a cell is 8 pixels wide.

    Raises:
        ValueError: there is no map, or the side is below 2.
        ModuleNotFoundError: numba is not installed.

    Example:
        >>> from implicit_l2o.data.warcraft import generate
        >>> maps = generate(3, seed=0)
        >>> maps.images.shape, maps.costs.shape, float(maps.paths[0, -1, -1])
        (torch.Size([3, 96, 96, 3]), torch.Size([3, 12, 12]), 1.0)
    """
    if count < 1:
        raise ValueError(f"generate needs count >= 1; got count={count}.")
    grid, rng = CellGrid(side), np.random.default_rng(seed)
    images = np.empty((count, side * _terrain.TILE, side * _terrain.TILE, 3), dtype=np.uint8)
    costs = np.empty((count, side, side), dtype=np.float32)
    for first in range(0, count, _BLOCK):
        here = slice(first, min(first + _BLOCK, count))
        kinds = _terrain.terrain(rng, here.stop - first, side)
        images[here], costs[here] = _terrain.draw(rng, kinds), _terrain.COSTS[kinds]
    known = torch.from_numpy(costs)
    return Maps(torch.from_numpy(images), known, grid.shortest_paths(known))


def load(folder: str | Path, split: Split) -> Maps:
    """A split of a folder in the layout of the public data set: `train_maps.npy` and so on.

    Args:
        folder: holds `SPLIT_maps.npy` (N, 8 side, 8 side, 3) in bytes, `SPLIT_vertex_weights.npy` and
            `SPLIT_shortest_paths.npy` (N, side, side).
        split: `"train"`, `"val"` or `"test"`.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: another split, or a file that holds something else.
    """
    _check_split(split)
    images, costs, paths = (_read(Path(folder) / name) for name in _names(split))
    _expect(images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8, split, 0, "(N, h, w, 3)", images)
    side = images.shape[1] // _terrain.TILE
    shape = (len(images), side, side)
    _expect(images.shape[1:3] == (side * _terrain.TILE,) * 2 and side >= 2, split, 0, "(N, 8 side, 8 side, 3)", images)
    _expect(costs.shape == shape and costs.dtype.kind in "fiu", split, 1, str(shape), costs)
    _expect(paths.shape == shape and paths.dtype.kind in "fiub", split, 2, str(shape), paths)
    if not (np.isfinite(costs).all() and (costs > 0).all()):
        raise ValueError(f"{_names(split)[1]} needs positive costs; got {costs.min()} to {costs.max()}.")
    if not np.isin(paths, (0, 1)).all():
        raise ValueError(f"{_names(split)[2]} needs zeros and ones; got {paths.min()} to {paths.max()}.")
    return Maps(torch.from_numpy(images), *(torch.from_numpy(part.astype(np.float32)) for part in (costs, paths)))


def save(folder: str | Path, split: Split, maps: Maps) -> None:
    """Write a split in the layout of the public data set, which `load` reads.

    Args:
        folder: made where it is missing.
        split: `"train"`, `"val"` or `"test"`.
        maps: to write.

    Raises:
        ValueError: another split.
    """
    _check_split(split)
    Path(folder).mkdir(parents=True, exist_ok=True)
    parts = (maps.images.numpy(), maps.costs.numpy(), maps.paths.numpy().astype(np.uint8))
    for name, part in zip(_names(split), parts, strict=True):
        np.save(Path(folder) / name, part)


def _names(split: str) -> tuple[str, str, str]:
    return f"{split}_maps.npy", f"{split}_vertex_weights.npy", f"{split}_shortest_paths.npy"


def _read(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the Warcraft maps are published at {SOURCE}.")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of NumPy, or it is truncated.") from error


def _expect(holds: bool, split: str, which: int, shape: str, array: NDArray[Any]) -> None:
    if not holds:
        kind = "bytes" if which == 0 else "numbers"
        raise ValueError(f"{_names(split)[which]} needs {kind} {shape}; got {array.dtype} {array.shape}.")


def _check_split(split: str) -> None:
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}; got {split!r}.")
