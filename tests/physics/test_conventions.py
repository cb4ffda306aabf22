"""Geometries of other packages: the formulas against stand-ins, and the packages where they are installed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from implicit_l2o.interop import geometries
from implicit_l2o.physics import Geometry, Projector
from implicit_l2o.physics._joseph import joseph_matrix

ODD = Geometry(12, [0.1, 0.7, 2.0], 19, pixel_size=0.3, detector_spacing=0.25, center=(0.2, -0.1))


def image(size: int) -> torch.Tensor:
    """Two Gaussians of different size: no turn or reflection leaves it as it is."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    x, y = axis[None], -axis[:, None]
    first = torch.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / 0.05)
    return (first + 0.5 * torch.exp(-((x + 0.4) ** 2 + (y - 0.1) ** 2) / 0.03))[None, None]


def assert_same(one: Geometry, other: Geometry) -> None:
    assert one.sinogram_shape == other.sinogram_shape
    np.testing.assert_allclose(one.angles, other.angles, atol=1e-12)
    numbers = [(g.size, g.pixel_size, g.spacing, *g.center) for g in (one, other)]
    np.testing.assert_allclose(*numbers, rtol=1e-12, atol=1e-12)


def test_astra_dictionaries() -> None:
    projection, volume = geometries.to_astra(ODD)
    assert projection["DetectorWidth"] == 0.25
    assert volume["option"]["WindowMinX"] == pytest.approx(-1.8 - 0.2)
    assert volume["option"]["WindowMaxY"] == pytest.approx(1.8 + 0.1)
    assert_same(geometries.from_astra(projection, volume), ODD)


@pytest.mark.parametrize("geometry", [ODD, Geometry.uniform(128, angles=30), Geometry.uniform(33, angles=7)])
def test_the_matrix_is_astras(geometry: Geometry) -> None:
    astra = pytest.importorskip("astra", reason="astra-toolbox is not installed", exc_type=ImportError)
    projection, volume = geometries.to_astra(geometry)
    window = volume["option"]
    assert volume == astra.create_vol_geom(
        geometry.size, geometry.size, *(window[f"Window{end}{axis}"] for axis in "XY" for end in ("Min", "Max"))
    )
    identifier = astra.create_projector("linear", projection, volume)
    matrix = astra.projector.matrix(identifier)
    theirs, ours = astra.matrix.get(matrix), joseph_matrix(geometry)
    astra.projector.delete(identifier)
    astra.matrix.delete(matrix)
    difference = theirs - ours
    assert np.linalg.norm(difference.data) <= 1e-3 * np.linalg.norm(theirs.data)


def odl_stand_in() -> tuple[SimpleNamespace, object]:
    """What `from_odl` reads, as ODL states the geometry `ODD`."""

    class Parallel2dGeometry(SimpleNamespace):
        pass

    low, high = np.array([-1.8 - 0.1, -1.8 - 0.2]), np.array([1.8 - 0.1, 1.8 - 0.2])
    space = SimpleNamespace(shape=(12, 12), cell_sides=np.array([0.3, 0.3]), min_pt=low, max_pt=high)
    detector = SimpleNamespace(is_uniform=True, cell_sides=np.array([0.25]), mid_pt=np.array([0.0]), size=19)
    angles = np.array([0.1, 0.7, 2.0]) + math.pi / 2
    more = {"det_axis_init": np.array([1.0, 0.0]), "translation": np.zeros(2)}
    return space, Parallel2dGeometry(det_partition=detector, angles=angles, **more)


def test_odl_by_its_attributes() -> None:
    assert_same(geometries.from_odl(*odl_stand_in()), ODD)


@pytest.mark.filterwarnings("ignore")  # ODL's and ASTRA's own
@pytest.mark.parametrize("geometry", [ODD, Geometry.uniform(16, angles=8), Geometry(9, [0.4])])
def test_odl_projects_along_the_same_lines(geometry: Geometry) -> None:
    tomo = pytest.importorskip("odl.applications.tomo", reason="ODL is not installed", exc_type=ImportError)
    pytest.importorskip("astra", reason="astra-toolbox is not installed", exc_type=ImportError)
    space, theirs = geometries.to_odl(geometry)
    assert_same(geometries.from_odl(space, theirs), geometry)
    x = image(geometry.size)
    measured = np.asarray(tomo.RayTransform(space, theirs, impl="astra_cpu")(x[0, 0].float().numpy()).data)
    projector = Projector(geometry, dtype=torch.float64)
    ours = projector.scale * projector.apply(x)[0].numpy()
    np.testing.assert_allclose(measured, ours, atol=2e-3 * ours.max())


def test_the_default_detector_is_odls() -> None:
    """183 bins at 128 and 93 at 64, spanning the diagonal; measured with ODL 1.0.0."""
    assert [Geometry.uniform(size).sinogram_shape[1] for size in (128, 64)] == [183, 93]
    assert Geometry.uniform(128).spacing * 183 == pytest.approx(128 * math.sqrt(2))


@pytest.mark.parametrize("size", [32, 33, 64])
def test_deepinv_by_its_attributes(size: int) -> None:
    physics = SimpleNamespace(
        fan_beam=False, radon=SimpleNamespace(circle=False), angles=torch.tensor([0.0, 45.0, 170.0]), img_width=size
    )
    geometry = geometries.from_deepinv(physics)
    assert geometry.sinogram_shape == (3, math.ceil(math.sqrt(2) * size))
    arguments = geometries.to_deepinv(geometry)
    assert arguments["angles"] == pytest.approx([0.0, 45.0, 170.0])
    assert arguments["img_width"] == size
    d = torch.rand(2, 3, 5)
    assert torch.equal(geometries.from_deepinv_sinogram(geometries.to_deepinv_sinogram(d)), d)


@pytest.mark.filterwarnings("ignore")  # deepinv's own
@pytest.mark.parametrize("size", [64, 66])
def test_deepinv_projects_along_the_same_lines(size: int) -> None:
    """To the accuracy of its bilinear rotation of the image, which smooths."""
    dinv = pytest.importorskip("deepinv.physics", reason="deepinv is not installed", exc_type=ImportError)
    physics = dinv.Tomography(angles=torch.tensor([0.0, 20.0, 75.0, 110.0]), img_width=size, normalize=False)
    x = image(size)
    theirs = geometries.from_deepinv_sinogram(physics.A(x.float())).double()
    projector = Projector(geometries.from_deepinv(physics), dtype=torch.float64)
    ours = projector.scale * projector.apply(x)
    assert (theirs - ours).norm() < 0.01 * ours.norm()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: geometries.from_astra({"type": "fanflat"}, {}), "type 'parallel'; got 'fanflat'"),
        (
            lambda: geometries.from_astra(
                geometries.to_astra(ODD)[0], {**geometries.to_astra(ODD)[1], "GridColCount": 13}
            ),
            r"square pixels; got shape \(13, 12\)",
        ),
        (lambda: geometries.from_odl(odl_stand_in()[0], object()), "takes a Parallel2dGeometry; got object"),
        (lambda: geometries.to_deepinv(ODD), "deepinv has bins=17 at size 12; got bins=19"),
        (
            lambda: geometries.from_deepinv(SimpleNamespace(fan_beam=True, radon=SimpleNamespace(circle=False))),
            "fan_beam=False and circle=False; got True and False",
        ),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
