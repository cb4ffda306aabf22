"""Products of the standard cones, many of one kind at once: the feasible sets of cone programs."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o import _batch
from implicit_l2o.operators import _cone_derivative, exponential_cone
from implicit_l2o.operators._cone_derivative import ConeBlock
from implicit_l2o.operators.base import AbstractSet
from implicit_l2o.operators.exponential_cone import ExponentialCone
from implicit_l2o.operators.power_cone import PowerCone
from implicit_l2o.operators.second_order_cone import SecondOrderCone
from implicit_l2o.operators.semidefinite_cone import SemidefiniteCone


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ConeProduct(AbstractSet):
    """Zero, nonnegative, second-order, semidefinite, exponential and power cones, in this order, over one vector.

    A semidefinite cone takes `n (n + 1) / 2` entries: the upper triangle by columns, entries off the diagonal times
    `sqrt(2)`, so that the Euclidean distance is the Frobenius distance. Cones of one kind and size are projected together.

    Args:
        zero: entries that are zero.
        nonnegative: entries that are at least zero.
        second_order: entries of each second-order cone, the bound first.
        semidefinite: rows of each matrix.
        exponential: how many exponential cones, of three entries each.
        power: the exponent of each power cone, of three entries each.

    Raises:
        ValueError: a size is negative or zero, or an exponent not in (0, 1); or, when projecting, a sample of another size.

    Example:
        >>> import torch, implicit_l2o as il2o
        >>> il2o.ConeProduct(zero=1, nonnegative=1, second_order=(2,)).project(torch.tensor([[5.0, -1.0, 0.0, 2.0]]))
        tensor([[0., 0., 1., 1.]])
    """

    zero: int = 0
    nonnegative: int = 0
    second_order: tuple[int, ...] = ()
    semidefinite: tuple[int, ...] = ()
    exponential: int = 0
    power: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("zero", "nonnegative", "exponential"):
            if getattr(self, name) < 0:
                raise ValueError(f"ConeProduct needs {name} >= 0; got {name}={getattr(self, name)}.")
        for name in ("second_order", "semidefinite", "power"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("second_order", "semidefinite"):
            if any(size < 1 for size in getattr(self, name)):
                raise ValueError(f"ConeProduct needs sizes >= 1 in {name}; got {getattr(self, name)}.")
        if any(not 0 < alpha < 1 for alpha in self.power):
            raise ValueError(f"ConeProduct needs exponents in (0, 1) in power; got {self.power}.")

    @cached_property
    def size(self) -> int:
        """How many entries a sample has."""
        triangles = sum(n * (n + 1) // 2 for n in self.semidefinite)
        return (
            self.zero
            + self.nonnegative
            + sum(self.second_order)
            + triangles
            + 3 * self.exponential
            + 3 * len(self.power)
        )

    @cached_property
    def starts(self) -> dict[str, int]:
        """Where the entries of each kind start."""
        triangles = sum(n * (n + 1) // 2 for n in self.semidefinite)
        sizes = (self.zero, self.nonnegative, sum(self.second_order), triangles, 3 * self.exponential)
        names = ("zero", "nonnegative", "second_order", "semidefinite", "exponential", "power")
        return {name: sum(sizes[:place]) for place, name in enumerate(names)}

    def groups(self, kind: str) -> list[tuple[int, Tensor]]:
        """Second-order or semidefinite cones by their size: that size, and the places `(cones, entries)` of theirs."""
        return [(size, torch.as_tensor(places)) for size, places in self._groups[kind]]

    @cached_property
    def _groups(self) -> dict[str, list[tuple[int, np.ndarray]]]:
        """Arrays: tensors made in inference mode or by an export could not be used again elsewhere."""
        return {
            kind: _grouped(getattr(self, kind), self.starts[kind], kind == "semidefinite")
            for kind in ("second_order", "semidefinite")
        }

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def triangle(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The entries of a semidefinite cone: their rows, columns and scales, and the entry at each place of the matrix.

        Example:
            >>> import implicit_l2o as il2o
            >>> rows, columns, scales, entry = il2o.ConeProduct.triangle(2)
            >>> rows.tolist(), columns.tolist(), scales.round(2).tolist(), entry.tolist()
            ([0, 0, 1], [0, 1, 1], [1.0, 1.41, 1.0], [0, 1, 1, 2])
        """
        columns, rows = np.tril_indices(n)
        entry = np.empty((n, n), int)
        entry[rows, columns] = entry[columns, rows] = np.arange(len(rows))
        return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0)), entry.reshape(-1)

    def project(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """Each block onto its cone."""
        flat = _batch.flatten(x)
        if flat.shape[1] != self.size:
            raise ValueError(f"ConeProduct acts on samples with {self.size} entries; got x of shape {tuple(x.shape)}.")
        first = self.zero + self.nonnegative
        parts = [torch.zeros_like(flat[:, : self.zero]), flat[:, self.zero : first].clamp(min=0)]
        if self.size == first:
            return torch.cat(parts, 1).reshape(x.shape)
        out = torch.cat([*parts, flat[:, first:]], 1)
        for _, places in self.groups("second_order"):
            out = _put(out, places, SecondOrderCone().project(_take(flat, places)))
        for n, places in self.groups("semidefinite"):
            matrices = to_matrices(_take(flat, places), n)
            out = _put(out, places, from_matrices(SemidefiniteCone().project(matrices)))
        for kind, count in (("exponential", self.exponential), ("power", len(self.power))):
            if count:
                cone = ExponentialCone() if kind == "exponential" else PowerCone(self.alphas(flat))
                places = self.triples(kind)
                out = _put(out, places, cone.project(_take(flat, places)))
        return out.reshape(x.shape)

    @torch.no_grad()
    def derivative(self, x: Float[Tensor, "B n"]) -> tuple[Float[Tensor, "B linear"], list[ConeBlock]]:
        """The derivative of the projection at `x`, a symmetric block matrix with eigenvalues in `[0, 1]`.

        Returns:
            Its diagonal for the entries of zero and nonnegative cones, and a block for every kind and size of the others.
        """
        first = self.zero + self.nonnegative
        diagonal = torch.cat([torch.zeros_like(x[:, : self.zero]), (x[:, self.zero : first] > 0).to(x)], 1)
        blocks = []
        for _, places in self.groups("second_order"):
            blocks.append(self._block(x, places, _cone_derivative.second_order))
        for n, places in self.groups("semidefinite"):
            basis = to_matrices(torch.eye(places.shape[1], dtype=x.dtype, device=x.device), n)
            blocks.append(
                self._block(
                    x,
                    places,
                    lambda rows, n=n, basis=basis: _cone_derivative.semidefinite(
                        to_matrices(rows, n), basis, from_matrices
                    ),
                )
            )
        if self.exponential:
            blocks.append(self._block(x, self.triples("exponential"), exponential_cone.derivative))
        if self.power:
            power = PowerCone(self.alphas(x)).project
            places = self.triples("power")
            blocks.append(self._block(x, places, lambda rows: _cone_derivative.by_rows(power, rows)))
        return diagonal, blocks

    @staticmethod
    def _block(x: Tensor, places: Tensor, derivative: Callable[[Tensor], Tensor]) -> ConeBlock:
        matrices = derivative(_take(x, places))
        return ConeBlock(places, matrices.reshape(len(x), *places.shape, places.shape[1]))

    def triples(self, kind: str) -> Tensor:
        """The places `(cones, 3)` of exponential or power cones."""
        count = self.exponential if kind == "exponential" else len(self.power)
        return self.starts[kind] + torch.arange(3 * count).reshape(count, 3)

    def alphas(self, like: Float[Tensor, "B n"]) -> Float[Tensor, " samples_cones"] | float:
        """The exponents of the power cones, for every sample of a batch one after the other."""
        return (
            torch.as_tensor(self.power, dtype=like.dtype, device=like.device).repeat(len(like)) if self.power else 0.5
        )


def _grouped(sizes: tuple[int, ...], start: int, triangles: bool) -> list[tuple[int, np.ndarray]]:
    places: dict[int, list[np.ndarray]] = {}
    for size in sizes:
        entries = size * (size + 1) // 2 if triangles else size
        places.setdefault(size, []).append(start + np.arange(entries))
        start += entries
    return [(size, np.stack(rows)) for size, rows in places.items()]


def _take(flat: Tensor, places: Tensor) -> Tensor:
    """The entries of some cones, all of one size: one row for every sample and cone."""
    return flat[:, _span(places, flat.device)].reshape(-1, places.shape[1])


def _put(flat: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    """`flat` with those entries replaced."""
    return flat.index_copy(1, places.reshape(-1).to(flat.device), rows.reshape(len(flat), places.numel()))


def _span(places: Tensor, device: torch.device) -> slice | Tensor:
    """Those of neighbours as a slice, which is a view."""
    first, last = int(places[0, 0]), int(places[-1, -1])
    return slice(first, last + 1) if last + 1 - first == places.numel() else places.reshape(-1).to(device)


def to_matrices(entries: Float[Tensor, "B k"], n: int) -> Float[Tensor, "B n n"]:
    """Symmetric matrices from their scaled upper triangles."""
    _, _, scale, place = ConeProduct.triangle(n)
    scaled = entries / torch.as_tensor(scale, dtype=entries.dtype, device=entries.device)
    return scaled[:, torch.as_tensor(place, device=entries.device)].reshape(-1, n, n)


def from_matrices(x: Float[Tensor, "B n n"]) -> Float[Tensor, "B k"]:
    """The scaled upper triangles of symmetric matrices."""
    rows, columns, scale, _ = ConeProduct.triangle(x.shape[-1])
    entries = x[:, torch.as_tensor(rows, device=x.device), torch.as_tensor(columns, device=x.device)]
    return entries * torch.as_tensor(scale, dtype=x.dtype, device=x.device)
