"""Derivatives `D` of the projections onto cones of one kind and size, of a whole batch, for the batched equations."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

import implicit_l2o as il2o
from implicit_l2o.interop.cvxpy.chunks import WIDTH, aligned, from_chunks, to_chunks
from implicit_l2o.interop.cvxpy.projections import eigh, from_matrices, groups, put, take, to_matrices

DELTA = 1e-7  # what D and I - D are enlarged by: eigenvalues of E between this and its inverse leave room for rounding
SLIM = 6  # entries of a second-order cone up to which its block of the equations is dense

Rows = Float[np.ndarray, "B cones d"]


class AbstractBend(ABC):
    """`D` of every cone of a group; `places` says which rows they take."""

    places: Int[np.ndarray, "cones d"]

    @abstractmethod
    def apply(self, v: Rows) -> Rows:
        """`D v`."""

    @abstractmethod
    def inverse(self, v: Rows) -> Rows:
        """`(D - (1 + DELTA) I)^-1 v`."""

    @abstractmethod
    def entries(self) -> Float[np.ndarray, "B cones entries"]:
        """Those of `-E = -(D + DELTA I) ((1 + DELTA) I - D)^-1`, as the pattern of the equations has them."""

    def chunks(self) -> Float[np.ndarray, "chunks cones entries 8"]:
        """The same, eight samples at a time."""
        own = self.entries()
        rows = to_chunks(own.reshape(len(own), -1))
        return rows.reshape(len(rows), *own.shape[1:], WIDTH)


@dataclass(frozen=True, eq=False)
class Triples(AbstractBend):
    """Of exponential or power cones, as matrices."""

    places: Int[np.ndarray, "cones 3"]
    matrices: Float[np.ndarray, "B cones 3 3"]

    @classmethod
    def at(cls, cones: il2o.ConeProduct, kind: str, w: Float[np.ndarray, "B m"]) -> "Triples":
        """At a point."""
        places = cones.triples(kind)
        exponential = kind == "exponential"
        own = il2o.ConeProduct(exponential=len(places)) if exponential else il2o.ConeProduct(power=cones.power)
        (_, matrices), *_ = own.derivative(torch.as_tensor(w[:, places.reshape(-1).numpy()]))[1]
        return cls(places.numpy(), matrices.numpy())

    def apply(self, v: Rows) -> Rows:
        """`D v`."""
        return (self.matrices @ v[..., None])[..., 0]

    def inverse(self, v: Rows) -> Rows:
        """By factoring."""
        return np.linalg.solve(self.matrices - (1.0 + DELTA) * np.eye(3), v[..., None])[..., 0]

    def entries(self) -> Float[np.ndarray, "B cones 6"]:
        """The lower triangles, by rows."""
        eye = np.eye(3)
        E = (self.matrices + DELTA * eye) @ np.linalg.inv((1.0 + DELTA) * eye - self.matrices)
        i, j = np.tril_indices(3)
        return -((E + E.transpose(0, 1, 3, 2)) / 2)[:, :, i, j]


@dataclass(frozen=True, eq=False)
class SecondOrder(AbstractBend):
    """Of second-order cones, by eigenvalues: those of `(1, e)`, of `(1, -e)` and of what is orthogonal to both.

    Between the cone and its polar they are 1, 0 and `(1 + t / |u|) / 2` at `(t, u)`, with `e = u / |u|`.
    """

    places: Int[np.ndarray, "cones d"]
    e: Float[np.ndarray, "B cones d-1"]
    along: Float[np.ndarray, "B cones"]
    across: Float[np.ndarray, "B cones"]
    rest: Float[np.ndarray, "B cones"]

    @classmethod
    def at(cls, places: Int[np.ndarray, "cones d"], w: Rows) -> "SecondOrder":
        """At a point."""
        t, u = w[..., 0], w[..., 1:]
        length = np.sqrt(np.square(u).sum(-1))
        inside, polar = length <= t, length <= -t
        safe = np.where(inside | polar, 1.0, length)
        rest = np.where(inside, 1.0, np.where(polar, 0.0, (1.0 + t / safe) / 2))
        return cls(places, u / safe[..., None], np.where(polar & ~inside, 0.0, 1.0), np.where(inside, 1.0, 0.0), rest)

    def apply(self, v: Rows) -> Rows:
        """`D v`."""
        return self._apply(self.along, self.across, self.rest, v)

    def inverse(self, v: Rows) -> Rows:
        """By the inverse eigenvalues."""
        along, across, rest = (1.0 / (part - 1.0 - DELTA) for part in (self.along, self.across, self.rest))
        return self._apply(along, across, rest, v)

    def _apply(self, along: np.ndarray, across: np.ndarray, rest: np.ndarray, v: Rows) -> Rows:
        inner = (self.e * v[..., 1:]).sum(-1)
        first, second = (along - rest) * (v[..., 0] + inner) / 2, (across - rest) * (v[..., 0] - inner) / 2
        out = rest[..., None] * v
        out[..., 0] += first + second
        out[..., 1:] += (first - second)[..., None] * self.e
        return out

    def entries(self) -> Float[np.ndarray, "B cones entries"]:
        """The lower triangles by rows, or for large cones the diagonal, `u`, `v` and the pivots of two more unknowns."""
        along, across, rest = (_stretched(part) for part in (self.along, self.across, self.rest))
        size = self.places.shape[1]
        ones, e = np.ones_like(self.e[..., :1]), self.e
        if size > SLIM:
            # E = rest I + u u^T - v v^T.
            u = np.sqrt(np.maximum(along - rest, 0.0) / 2)[..., None] * np.concatenate([ones, e], -1)
            v = np.sqrt(np.maximum(rest - across, 0.0) / 2)[..., None] * np.concatenate([ones, -e], -1)
            diagonal = np.broadcast_to(-rest[..., None], v.shape)
            return np.concatenate([diagonal, u, v, ones, -ones], -1)
        vectors = np.concatenate([ones, e], -1), np.concatenate([ones, -e], -1)
        i, j = np.tril_indices(size)
        E = np.where(i == j, rest[..., None], 0.0)
        for value, vector in zip((along, across), vectors, strict=True):
            E += ((value - rest) / 2)[..., None] * vector[..., i] * vector[..., j]
        return -E


@dataclass(frozen=True, eq=False)
class Semidefinite(AbstractBend):
    """Of semidefinite cones: `V (D o (V^T X V)) V^T`, with divided differences of `max(., 0)` in the eigenvectors V.

    For a positive eigenvalue `l` and another one `-m` the difference is `l / (l + m)`, and `E` has `l / m` there, a product:
    so `E` is a sum of few terms `X -> A X B`. Small `l` and `m` are enlarged instead of D and `I - D`.

    Attributes:
        vectors: V.
        differences: those of D.
        rest: those of `I - D`, enlarged.
        up, down: enlarged `l` and `1 / m`, relative to the largest of them, zero for the others.
    """

    places: Int[np.ndarray, "cones d"]
    vectors: Float[np.ndarray, "B cones n n"]
    differences: Float[np.ndarray, "B cones n n"]
    rest: Float[np.ndarray, "B cones n n"]
    up: Float[np.ndarray, "B cones n"]
    down: Float[np.ndarray, "B cones n"]

    @classmethod
    def at(cls, places: Int[np.ndarray, "cones d"], matrices: Float[np.ndarray, "B cones n n"]) -> "Semidefinite":
        """At a point."""
        values, vectors = eigh(matrices)
        size, inside = np.abs(values), values > 0
        both, neither = inside[..., :, None] & inside[..., None, :], ~inside[..., :, None] & ~inside[..., None, :]
        positive = np.where(inside, values, 0.0)
        sums = size[..., :, None] + size[..., None, :]
        mixed = (positive[..., :, None] + positive[..., None, :]) / np.where(sums > 0, sums, 1.0)
        differences = np.where(both, 1.0, np.where(neither, 0.0, mixed))
        largest = size.max(-1, keepdims=True, initial=0.0)
        large = np.maximum(size / np.where(largest > 0, largest, 1.0), DELTA)
        outer = np.where(inside, 0.0, large)
        share = (outer[..., :, None] + outer[..., None, :]) / (large[..., :, None] + large[..., None, :])
        rest = np.where(both, DELTA, np.where(neither, 1.0, share))
        return cls(places, vectors, differences, rest, np.where(inside, large, 0.0), np.where(inside, 0.0, 1.0 / large))

    def apply(self, v: Rows) -> Rows:
        """`D v`."""
        return self._apply(self.differences, v)

    def inverse(self, v: Rows) -> Rows:
        """By the inverse eigenvalues."""
        return self._apply(-1.0 / self.rest, v)

    def _apply(self, by: np.ndarray, v: Rows) -> Rows:
        V, transposed = self.vectors, self.vectors.swapaxes(-1, -2)
        return from_matrices(V @ (by * (transposed @ to_matrices(v, V.shape[-1]) @ V)) @ transposed)

    def entries(self) -> Float[np.ndarray, "B cones entries"]:
        """The lower triangles, by rows."""
        chunks = self.chunks()
        rows = from_chunks(chunks.reshape(len(chunks), -1, WIDTH), len(self.vectors))
        return rows.reshape(len(rows), *chunks.shape[1:3])

    def chunks(self) -> Float[np.ndarray, "chunks cones entries 8"]:
        """The lower triangles by rows, by compiled loops over eight samples."""
        from implicit_l2o.interop.cvxpy.bend_kernels import stretched_all  # which compiles

        order = self.vectors.shape[-1]
        size = order * (order + 1) // 2
        V = self.vectors
        parts = [
            (V * by[..., None, :]) @ V.swapaxes(-1, -2) for by in (self.up, self.down, (self.up > 0).astype(float))
        ]
        out = aligned(-(-len(V) // WIDTH), len(self.places), size * (size + 1) // 2, WIDTH)
        for cone in range(len(self.places)):
            rows = (to_chunks(part[:, cone].reshape(-1, order * order)) for part in parts)
            stretched_all(*rows, 1.0 / DELTA, DELTA, out[:, cone])
        return out


def _stretched(values: np.ndarray) -> np.ndarray:
    """Eigenvalues of E for those of D."""
    return (values + DELTA) / (1.0 + DELTA - values)


def derivative_product(
    free: Bool[np.ndarray, "B first"], bends: Sequence[AbstractBend], v: Float[np.ndarray, "B m"]
) -> Float[np.ndarray, "B m"]:
    """`D v`, given which inequalities are idle."""
    out = np.empty_like(v)
    first = free.shape[1]
    out[:, :first] = free * v[:, :first]
    for bend in bends:
        put(out, bend.places, bend.apply(take(v, bend.places)))
    return out


def bends_at(cones: il2o.ConeProduct, w: Float[np.ndarray, "B m"]) -> tuple[AbstractBend, ...]:
    """Those of all cones but zero and nonnegative ones."""
    out: list[AbstractBend] = []
    for _, places in groups(cones, "second_order"):
        out.append(SecondOrder.at(places, take(w, places)))
    for order, places in groups(cones, "semidefinite"):
        out.append(Semidefinite.at(places, to_matrices(take(w, places), order)))
    if cones.exponential:
        out.append(Triples.at(cones, "exponential", w))
    if cones.power:
        out.append(Triples.at(cones, "power", w))
    return tuple(out)
