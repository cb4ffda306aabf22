"""The projector: the contract of a linear operator, line integrals that are known in closed form, derivatives, bad input."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from implicit_l2o.physics import Geometry, Projector, batch_last
from implicit_l2o.physics._joseph import expected_nonzeros, joseph_matrix
from implicit_l2o.testing import check_linear_operator

SMALL = Geometry.uniform(16, angles=8)


def blob(size: int, *, x: float = 0.0, y: float = 0.0, width: float = 0.15) -> Tensor:
    """A Gaussian at `(x, y)`, the image being [-1, 1]^2 with y upwards."""
    across = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * 2 / size
    return torch.exp(-((across[None] - x) ** 2 + (-across[:, None] - y) ** 2) / (2 * width**2))[None, None]


@pytest.mark.parametrize(
    "geometry",
    [SMALL, Geometry(7, [0.0, math.pi / 2, math.pi / 4, 3.0, -1.0], 5, pixel_size=0.3, detector_spacing=0.7)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_contract(geometry: Geometry, dtype: torch.dtype) -> None:
    check_linear_operator(Projector(geometry, dtype=dtype), dtype=dtype)


def test_norm_is_one() -> None:
    projector = Projector(SMALL, dtype=torch.float64)
    dense = projector.apply(torch.eye(256, dtype=torch.float64).reshape(256, 1, 16, 16)).flatten(1)
    assert torch.linalg.matrix_norm(dense, 2).item() == pytest.approx(1, abs=1e-6)


def test_adjoint_in_single_precision() -> None:
    projector = Projector(Geometry.uniform(128, angles=30))
    x, y = torch.rand(4, 1, 128, 128), torch.rand(4, 30, 183)
    Ax, Aty = projector.apply(x), projector.adjoint(y)
    error = (Ax.double() * y).sum() - (x.double() * Aty).sum()
    assert abs(error) <= 1e-6 * Ax.norm() * y.norm()


def test_line_integrals_of_a_gaussian() -> None:
    """Its projection is a Gaussian around `x cos + y sin`: orientation, units and values at once."""
    cx, cy = 0.03, -0.05
    geometry = Geometry(64, [0.0, 0.3, math.pi / 2, 2.0, 3.5], pixel_size=2 / 64, center=(cx, cy))
    projector = Projector(geometry, dtype=torch.float64)
    measured = projector.scale * projector.apply(blob(64, x=0.3, y=-0.2))[0]
    angle = torch.tensor(geometry.angles, dtype=torch.float64)[:, None]
    bins = geometry.sinogram_shape[1]
    s = (torch.arange(bins, dtype=torch.float64) - (bins - 1) / 2) * geometry.spacing
    distance = s - (0.3 - cx) * angle.cos() - (-0.2 - cy) * angle.sin()
    exact = 0.15 * math.sqrt(2 * math.pi) * torch.exp(-(distance**2) / 0.045)
    torch.testing.assert_close(measured, exact, atol=3e-3, rtol=0)


def slow_joseph(geometry: Geometry) -> np.ndarray:
    """The matrix ray by ray: where the ray crosses the middle of a row, or of a column, between which two pixels?"""
    n, h, (angles, bins) = geometry.size, geometry.pixel_size, geometry.sinogram_shape
    matrix = np.zeros((angles * bins, n, n))
    for ray, (angle, k) in enumerate(itertools.product(geometry.angles, range(bins))):
        c, s = math.cos(angle), math.sin(angle)
        middle_x, middle_y = geometry.center
        offset = (k - (bins - 1) / 2) * geometry.spacing + middle_x * c + middle_y * s
        for line in range(n):
            if abs(c) >= abs(s):  # down the rows
                y = ((n - 1) / 2 - line) * h
                crossed, length = ((offset - y * s) / c) / h + (n - 1) / 2, h / abs(c)
            else:
                x = (line - (n - 1) / 2) * h
                crossed, length = (n - 1) / 2 - ((offset - x * c) / s) / h, h / abs(s)
            for pixel in range(n):
                share = max(0.0, 1 - abs(crossed - pixel))
                row, column = (line, pixel) if abs(c) >= abs(s) else (pixel, line)
                matrix[ray, row, column] += share * length
    return matrix.reshape(angles * bins, n * n)


@given(
    size=st.integers(1, 6),
    angles=st.lists(st.floats(-7, 7), min_size=1, max_size=3),
    bins=st.integers(1, 7),
    pixel=st.floats(0.1, 3),
    spacing=st.floats(0.1, 3),
    center=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_the_matrix_ray_by_ray(size, angles, bins, pixel, spacing, center) -> None:
    geometry = Geometry(size, angles, bins, pixel_size=pixel, detector_spacing=spacing, center=center)
    np.testing.assert_allclose(joseph_matrix(geometry).toarray(), slow_joseph(geometry), atol=1e-9 * pixel)


@pytest.mark.parametrize("geometry", [SMALL, Geometry.uniform(128), Geometry(33, [0.1, 2.0], 60)])
def test_the_number_of_entries_is_foreseen(geometry: Geometry) -> None:
    assert expected_nonzeros(geometry) == pytest.approx(joseph_matrix(geometry).nnz, rel=0.02)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, when forward mode loads
def test_derivatives_of_every_order() -> None:
    projector = Projector(SMALL, dtype=torch.float64)
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: projector.apply(x).square(), x)
    assert torch.autograd.gradgradcheck(lambda x: projector.adjoint(projector.apply(x).square()), x)
    value, tangent = torch.func.jvp(projector.apply, (x.detach(),), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, projector.apply(torch.ones_like(x)))
    torch.testing.assert_close(value, projector.apply(x))
    each = torch.func.vmap(lambda x: projector.apply(x[None])[0])(x)
    torch.testing.assert_close(each, value)


@pytest.mark.parametrize("batch", [1, 3, 8, 21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts_and_compiled_transposes_change_nothing(batch: int, dtype: torch.dtype) -> None:
    """At 64x64 a batch is large enough for the compiled transposes, where numba is installed."""
    projector = Projector(Geometry.uniform(64, angles=40), dtype=dtype)
    x = torch.randn(batch, 1, 64, 64, dtype=dtype)
    dense = torch.from_numpy(projector._matrix.matrix @ x.flatten(1).double().numpy().T).T.reshape(batch, 40, 93)
    for layout in (x, batch_last(x), x.mT.contiguous().mT):
        assert torch.equal(layout, x)
        y = projector.apply(layout)
        torch.testing.assert_close(y.double(), dense, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(projector.adjoint(y), projector.adjoint(projector.apply(x)))
    assert projector.apply(x).is_contiguous()
    assert projector.adjoint(projector.apply(batch_last(x))).stride(0) == (1 if batch > 1 else 4096)


def test_it_can_be_copied_and_saved() -> None:
    projector = Projector(SMALL)
    x = torch.rand(2, 1, 16, 16)
    for other in (copy.deepcopy(projector), pickle.loads(pickle.dumps(projector))):
        assert torch.equal(other.apply(x), projector.apply(x))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Geometry(16, []), "at least one angle"),
        (lambda: Geometry(16, [math.nan]), "finite angles"),
        (lambda: Geometry(0, [0.1]), "size >= 1; got size=0"),
        (lambda: Geometry(16, [0.1], 0), "bins >= 1; got bins=0"),
        (lambda: Geometry(16, [0.1], pixel_size=-1.0), "pixel_size > 0"),
        (lambda: Geometry(16, [0.1], detector_spacing=math.inf), "detector_spacing > 0"),
        (lambda: Geometry(16, [0.1], center=(0.0, math.nan)), "finite center"),
        (lambda: Geometry.uniform(16, angles=0), "angles >= 1; got angles=0"),
        (lambda: Projector(SMALL, dtype=torch.int64), "float32 or torch.float64"),
        (lambda: Projector(Geometry.uniform(1024, angles=400)), "implicit_l2o.interop.projectors"),
        (lambda: Projector(Geometry(4, [0.0], 1, center=(100.0, 0.0))), "no ray of the geometry meets the image"),
        (lambda: Projector(SMALL).apply(torch.zeros(2, 1, 17, 16)), r"\(B, 1, 16, 16\); got \(2, 1, 17, 16\)"),
        (lambda: Projector(SMALL).adjoint(torch.zeros(2, 8, 24)), r"\(B, 8, 25\); got \(2, 8, 24\)"),
        (lambda: Projector(SMALL).apply(torch.zeros(2, 1, 16, 16).double()), "float32; got images in torch.float64"),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
