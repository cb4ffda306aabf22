"""Every projector as two functions, with one batch that each of them likes."""

import importlib.machinery
import importlib.util
import math
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from implicit_l2o.interop.geometries import from_deepinv, to_odl
from implicit_l2o.interop.projectors import astra_projector
from implicit_l2o.physics import Geometry, Projector, batch_last


@dataclass(frozen=True)
class Pair:
    """A projector and its adjoint, each with a batch to act on; tensors or arrays.

    `differentiable`: whether PyTorch differentiates `forward`. `mebibytes`: of stored matrices, None where there is none.
    """

    forward: Callable[[Any], Any]
    adjoint: Callable[[Any], Any]
    x: Any
    y: Any
    differentiable: bool = False
    mebibytes: float | None = None


Make = Callable[[Geometry, int], Pair]


def points(geometry: Geometry, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, *geometry.image_shape, generator=generator)
    return x, torch.rand(batch, *geometry.sinogram_shape, generator=generator)


def ours(geometry: Geometry, batch: int) -> Pair:
    projector, (x, y) = Projector(geometry), points(geometry, batch)
    return Pair(projector.apply, projector.adjoint, x, y, True, stored(projector))


def ours_batch_last(geometry: Geometry, batch: int) -> Pair:
    projector, (x, y) = Projector(geometry), points(geometry, batch)
    return Pair(projector.apply, projector.adjoint, batch_last(x), batch_last(y), True, stored(projector))


def stored(projector: Projector) -> float:
    """Of the matrix and its transpose, 8 bytes an entry each."""
    return 16 * projector._matrix.matrix.nnz / 2**20


def torch_sparse(geometry: Geometry, batch: int) -> Pair:
    """The same matrix as a CSR tensor that PyTorch differentiates itself."""
    matrix = Projector(geometry)._matrix.matrix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        indptr, indices = (torch.from_numpy(part.astype(np.int32)) for part in (matrix.indptr, matrix.indices))
        A = torch.sparse_csr_tensor(indptr, indices, torch.from_numpy(matrix.data).float(), matrix.shape)
        At = A.t()
    x, y = points(geometry, batch)
    columns = [part.flatten(1).T.contiguous() for part in (x, y)]
    return Pair(lambda x: A @ x, lambda y: At @ y, *columns, True, 8 * matrix.nnz / 2**20)


def torch_dense(geometry: Geometry, batch: int) -> Pair:
    A = torch.from_numpy(Projector(geometry)._matrix.matrix.toarray()).float()
    x, y = points(geometry, batch)
    return Pair(lambda x: x @ A.T, lambda y: y @ A, x.flatten(1), y.flatten(1), True, 4 * A.numel() / 2**20)


def scipy_sparse(geometry: Geometry, batch: int) -> Pair:
    A = Projector(geometry)._matrix.matrix.astype(np.float32)
    At = A.T.tocsr()
    columns = [part.flatten(1).T.contiguous().numpy() for part in points(geometry, batch)]
    return Pair(lambda x: A @ x, lambda y: At @ y, *columns, False, 16 * A.nnz / 2**20)


def astra(geometry: Geometry, batch: int) -> Pair:
    operator = astra_projector(geometry, norm=1.0)
    return Pair(operator.forward, operator.transpose, *points(geometry, batch))


def odl(geometry: Geometry, batch: int) -> Pair:
    """Its adjoint is weighted; the weights are constant on a uniform grid, and nothing to the time."""
    from odl.applications.tomo import RayTransform

    transform = RayTransform(*to_odl(geometry), impl="astra_cpu")
    x, y = (part.numpy().reshape(batch, *part.shape[-2:]) for part in points(geometry, batch))
    ratio = transform.domain.weighting.const / transform.range.weighting.const
    adjoint = transform.adjoint
    return Pair(one_by_one(transform), one_by_one(lambda y: ratio * np.asarray(adjoint(y).data)), x, y)


def pylops(geometry: Geometry, batch: int) -> Pair:
    from pylops.medical import CT2D

    size, (_, bins) = geometry.size, geometry.sinogram_shape
    operator = CT2D(
        (size, size), geometry.spacing, bins, np.asarray(geometry.angles), engine="cpu", projector_type="linear"
    )
    x, y = (part.flatten(1).numpy() for part in points(geometry, batch))
    return Pair(one_by_one(operator.matvec), one_by_one(operator.rmatvec), x, y)


def deepinv(geometry: Geometry, batch: int) -> Pair:
    """Its own detector: `ceil(sqrt(2) size)` bins, one pixel apart."""
    without_torchvision()
    from deepinv.physics import Tomography

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        degrees = [math.degrees(angle) for angle in geometry.angles]
        physics = Tomography(angles=torch.tensor(degrees), img_width=geometry.size, normalize=False)
    like = from_deepinv(physics)
    x, _ = points(geometry, batch)
    y = torch.rand(batch, 1, *like.sinogram_shape[::-1], generator=torch.Generator().manual_seed(1))
    return Pair(physics.A, physics.A_adjoint, x, y, True)


def scikit_image(geometry: Geometry, batch: int) -> Pair:
    from skimage.transform import iradon, radon

    theta, size = np.degrees(geometry.angles), geometry.size
    x, _ = points(geometry, batch)
    images = x[:, 0].numpy()

    def project(image: np.ndarray) -> np.ndarray:
        return radon(image, theta, circle=False)

    def back(sinogram: np.ndarray) -> np.ndarray:
        back_projection = iradon(sinogram, theta, output_size=size, filter_name=None, circle=False)
        return back_projection * (2 * len(theta) / np.pi)  # its factor of the inverse

    bins = project(images[0]).shape[0]
    y = np.random.default_rng(0).random((batch, bins, len(theta)), dtype=np.float32)
    return Pair(one_by_one(project), one_by_one(back), images, y)


def one_by_one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda batch: np.stack([np.asarray(getattr(value, "data", value)) for value in map(function, batch)])


def without_torchvision() -> None:
    """Let deepinv be imported where torchvision is not installed: its projector uses nothing of it."""
    if importlib.util.find_spec("torchvision") is not None:
        return

    class Empty(types.ModuleType):
        __path__: list[str] = []  # noqa: RUF012

        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            return (
                importlib.machinery.ModuleSpec(name, self, is_package=True) if name.startswith("torchvision") else None
            )

        def create_module(self, spec: Any) -> types.ModuleType:
            return Empty(spec.name)

        def exec_module(self, module: types.ModuleType) -> None: ...

    sys.meta_path.append(Finder())


PEERS: dict[str, Make] = {
    "ours": ours,
    "ours, batch last": ours_batch_last,
    "SciPy CSR": scipy_sparse,
    "PyTorch CSR, own autograd": torch_sparse,
    "PyTorch dense": torch_dense,
    "ASTRA, CPU": astra,
    "ODL, astra_cpu": odl,
    "PyLops CT2D": pylops,
    "deepinv Tomography": deepinv,
    "scikit-image radon, iradon": scikit_image,
}
