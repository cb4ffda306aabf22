"""Projections onto cones in NumPy, where calls of PyTorch would take longer than the arithmetic, and the rows of cones."""

import functools

import numpy as np
import torch
from jaxtyping import Float, Int

import implicit_l2o as il2o


@functools.lru_cache(maxsize=256)
def groups(cones: il2o.ConeProduct, kind: str) -> tuple[tuple[int, Int[np.ndarray, "cones d"]], ...]:
    """Second-order or semidefinite cones by their size, as `ConeProduct.groups`."""
    return tuple((size, places.numpy()) for size, places in cones.groups(kind))


def take(v: Float[np.ndarray, "B m"], places: Int[np.ndarray, "cones d"]) -> Float[np.ndarray, "B cones d"]:
    """The entries of a group of cones."""
    return v[:, _span(places)].reshape(len(v), *places.shape)


def put(v: Float[np.ndarray, "B m"], places: Int[np.ndarray, "cones d"], rows: Float[np.ndarray, "B cones d"]) -> None:
    """Replace them."""
    v[:, _span(places)] = rows.reshape(len(v), -1)


def _span(places: np.ndarray) -> slice | np.ndarray:
    """Those of neighbours as a slice, which is read several times faster."""
    first, last = int(places[0, 0]), int(places[-1, -1])
    return slice(first, last + 1) if last + 1 - first == places.size else places.reshape(-1)


def project(cones: il2o.ConeProduct, w: Float[np.ndarray, "B m"]) -> Float[np.ndarray, "B m"]:
    """The nearest points of the cones."""
    if cones.exponential or cones.power:
        with torch.no_grad():
            return cones.project(torch.as_tensor(w)).numpy()
    s = np.maximum(w, 0.0)
    s[:, : cones.zero] = 0.0
    for _, places in groups(cones, "second_order"):
        put(s, places, _second_order(take(w, places)))
    for order, places in groups(cones, "semidefinite"):
        values, vectors = eigh(to_matrices(take(w, places), order))
        inside = (vectors * np.maximum(values, 0.0)[..., None, :]) @ vectors.swapaxes(-1, -2)
        put(s, places, from_matrices(inside))
    return s


def eigh(
    x: Float[np.ndarray, "B cones n n"],
) -> tuple[Float[np.ndarray, "B cones n"], Float[np.ndarray, "B cones n n"]]:
    """Eigenvalues and eigenvectors, by PyTorch, the faster one; NaN and anything for matrices that are not finite."""
    matrices = torch.as_tensor(x)
    sound = torch.isfinite(matrices).all(-1).all(-1)[..., None]
    values, vectors = torch.linalg.eigh(torch.where(sound[..., None], matrices, 0.0))
    return torch.where(sound, values, torch.nan).numpy(), vectors.numpy()


def to_matrices(x: Float[np.ndarray, "B cones k"], order: int) -> Float[np.ndarray, "B cones n n"]:
    """Symmetric matrices from their scaled triangles."""
    _, _, scale, place = il2o.ConeProduct.triangle(order)
    return (x / scale)[..., place].reshape(*x.shape[:2], order, order)


def from_matrices(x: Float[np.ndarray, "B cones n n"]) -> Float[np.ndarray, "B cones k"]:
    """The scaled triangles of symmetric matrices."""
    rows, columns, scale, _ = il2o.ConeProduct.triangle(x.shape[-1])
    return x[..., rows, columns] * scale


def _second_order(x: Float[np.ndarray, "B cones d"]) -> Float[np.ndarray, "B cones d"]:
    t, u = x[..., :1], x[..., 1:]
    length = np.sqrt(np.square(u).sum(-1, keepdims=True))
    inside, polar = length <= t, length <= -t
    height = np.where(polar, 0.0, (t + length) / 2)
    middle = np.concatenate([height, height / np.where(length > 0, length, 1.0) * u], -1)
    return np.where(inside, x, middle)
