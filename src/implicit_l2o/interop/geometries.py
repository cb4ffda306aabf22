"""Parallel-beam geometries of ASTRA, ODL and deepinv: the same lines in their words, both ways.

| | image `x[i, j]` | angle | bins | sinogram |
|---|---|---|---|---|
| here, ASTRA | rows down, columns to the right | theta | any | `(angles, bins)` |
| ODL | first axis is the first coordinate: the same array is turned | theta + pi / 2 | any | `(angles, bins)` |
| deepinv | rows down | theta in degrees, by default from 0 | `ceil(sqrt(2) size)`, one pixel apart | `(bins, angles)` |

ODL's adjoint carries the weights of its spaces: `interop.projectors` takes them out.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.physics import Geometry


def to_astra(geometry: Geometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's projection and volume geometry, the dictionaries that `astra.create_projector` takes; needs no ASTRA.

    Example:
        >>> from implicit_l2o.interop.geometries import to_astra
        >>> from implicit_l2o.physics import Geometry
        >>> projection, volume = to_astra(Geometry.uniform(128, angles=30))
        >>> projection["type"], projection["DetectorCount"], volume["option"]["WindowMaxX"]
        ('parallel', 183, 64.0)
    """
    half = geometry.size * geometry.pixel_size / 2
    x, y = geometry.center
    projection = {
        "type": "parallel",
        "DetectorWidth": geometry.spacing,
        "DetectorCount": geometry.sinogram_shape[1],
        "ProjectionAngles": np.asarray(geometry.angles),
    }
    # ASTRA turns about the origin, so the window of the image moves.
    window = {"WindowMinX": -half - x, "WindowMaxX": half - x, "WindowMinY": -half - y, "WindowMaxY": half - y}
    return projection, {"GridRowCount": geometry.size, "GridColCount": geometry.size, "option": window}


def from_astra(projection: dict[str, Any], volume: dict[str, Any]) -> Geometry:
    """The geometry of ASTRA's dictionaries.

    Args:
        projection: of `astra.create_proj_geom("parallel", ...)`.
        volume: of `astra.create_vol_geom(...)`, a square image of square pixels.

    Raises:
        ValueError: another type of geometry; an image or pixels that are not square.
    """
    if projection.get("type") != "parallel":
        raise ValueError(f"from_astra takes a geometry of type 'parallel'; got {projection.get('type')!r}.")
    rows, columns, window = volume["GridRowCount"], volume["GridColCount"], volume["option"]
    low = np.array([window["WindowMinX"], window["WindowMinY"]])
    high = np.array([window["WindowMaxX"], window["WindowMaxY"]])
    pixel = _square("from_astra", (columns, rows), (high - low) / (columns, rows))
    center = -(low + high) / 2
    return Geometry(
        int(rows),
        np.asarray(projection["ProjectionAngles"]),
        int(projection["DetectorCount"]),
        pixel_size=pixel,
        detector_spacing=float(projection["DetectorWidth"]),
        center=(float(center[0]), float(center[1])),
    )


def to_odl(geometry: Geometry, dtype: str = "float32") -> tuple[Any, Any]:
    """ODL's space of images and its geometry, for `odl.applications.tomo.RayTransform(space, geometry)`.

    The same arrays serve: ODL's first coordinate is that of the first axis, which is minus our `y`, so its angles are a
    quarter of a turn ahead.

    Raises:
        ModuleNotFoundError: ODL is not installed.
        ValueError: the angles do not increase, as ODL's partitions do.
    """
    import odl  # pyright: ignore[reportMissingImports]
    from odl.applications.tomo import Parallel2dGeometry  # pyright: ignore[reportMissingImports]

    angles = np.asarray(geometry.angles) + math.pi / 2
    steps = np.diff(angles)
    if (steps <= 0).any():
        raise ValueError(
            f"ODL needs increasing angles; got a step of {steps.min():.3g} rad. Sort them, and the sinogram."
        )
    half, bins = geometry.size * geometry.pixel_size / 2, geometry.sinogram_shape[1]
    x, y = geometry.center
    space = odl.uniform_discr([-half + y, -half - x], [half + y, half - x], (geometry.size,) * 2, dtype=dtype)
    if len(angles) == 1 or np.allclose(steps, steps[0], rtol=1e-9, atol=0):
        cell = steps[0] if len(steps) else math.pi
        directions = odl.uniform_partition(angles[0] - cell / 2, angles[-1] + cell / 2, len(angles))
    else:
        directions = odl.nonuniform_partition(angles)
    edge = bins * geometry.spacing / 2
    return space, Parallel2dGeometry(directions, odl.uniform_partition(-edge, edge, bins))


def from_odl(space: Any, geometry: Any) -> Geometry:
    """The geometry of ODL's space and `Parallel2dGeometry`, with the same arrays for images and sinograms.

    Raises:
        ValueError: not a two-dimensional parallel beam, a detector that is not uniform or not in the middle, or an image
            or pixels that are not square.
    """
    if type(geometry).__name__ != "Parallel2dGeometry":
        raise ValueError(f"from_odl takes a Parallel2dGeometry; got {type(geometry).__name__}.")
    pixel = _square("from_odl", tuple(space.shape), np.asarray(space.cell_sides, dtype=np.float64))
    detector = geometry.det_partition
    if not detector.is_uniform:
        raise ValueError("from_odl takes a uniform detector partition; this one is not.")
    spacing = float(np.ravel(detector.cell_sides)[0])
    middle = float(np.ravel(detector.mid_pt)[0])
    turned = float(np.ravel(geometry.det_axis_init)[0])
    if abs(middle) > 1e-9 * spacing or abs(turned - 1) > 1e-12 or np.any(np.asarray(geometry.translation) != 0):
        raise ValueError(
            "from_odl takes a detector in the middle, along the first axis at angle 0, without translation; "
            f"got mid_pt={middle}, det_axis_init={geometry.det_axis_init}, translation={geometry.translation}."
        )
    first, second = (np.asarray(space.min_pt) + np.asarray(space.max_pt)) / 2
    return Geometry(
        int(space.shape[0]),
        np.asarray(geometry.angles) - math.pi / 2,
        int(detector.size),
        pixel_size=pixel,
        detector_spacing=spacing,
        center=(-float(second), float(first)),
    )


def to_deepinv(geometry: Geometry) -> dict[str, Any]:
    """The arguments of `deepinv.physics.Tomography`: `angles` in degrees, `img_width`, `circle`; needs no deepinv.

    Raises:
        ValueError: deepinv cannot state it: it has `ceil(sqrt(2) size)` bins, one pixel apart.
    """
    like = _deepinv_geometry(geometry.size, geometry.angles, geometry.pixel_size)
    for name, ours, theirs in (
        ("bins", geometry.sinogram_shape[1], like.sinogram_shape[1]),
        ("detector_spacing", geometry.spacing, like.spacing),
        ("center", geometry.center, like.center),
    ):
        if not np.allclose(ours, theirs, rtol=1e-9, atol=1e-12):
            raise ValueError(f"deepinv has {name}={theirs} at size {geometry.size}; got {name}={ours}.")
    return {"angles": [math.degrees(angle) for angle in geometry.angles], "img_width": geometry.size, "circle": False}


def from_deepinv(physics: Any) -> Geometry:
    """The geometry of a `deepinv.physics.Tomography`, in pixels; sinograms are transposed by `from_deepinv_sinogram`.

    Where `ceil(sqrt(2) size) - size` is odd, deepinv turns about a point half a pixel off the middle; so does this geometry.

    Raises:
        ValueError: fan beams; `circle=True`, which cuts the image.
    """
    if physics.fan_beam or physics.radon.circle:
        raise ValueError(
            f"from_deepinv takes fan_beam=False and circle=False; got {physics.fan_beam} and {physics.radon.circle}."
        )
    degrees = np.asarray([float(angle) for angle in physics.angles])
    return _deepinv_geometry(int(physics.img_width), np.radians(degrees), 1.0)


def to_deepinv_sinogram(d: Float[Tensor, "B angles bins"]) -> Float[Tensor, "B 1 bins angles"]:
    """A sinogram as deepinv lays it out."""
    return d.mT[:, None]


def from_deepinv_sinogram(y: Float[Tensor, "B 1 bins angles"]) -> Float[Tensor, "B angles bins"]:
    """A sinogram of deepinv as this package lays it out."""
    return y[:, 0].mT


def _deepinv_geometry(size: int, angles: Any, pixel: float) -> Geometry:
    bins = math.ceil(math.sqrt(2) * size)
    # It pads the image to `bins`, the smaller half of an odd padding first, and turns about the middle of that.
    before = bins // 2 - size // 2
    off = ((bins - 1) / 2 - before - (size - 1) / 2) * pixel
    return Geometry(size, angles, bins, pixel_size=pixel, detector_spacing=pixel, center=(off, -off))


def _square(name: str, shape: tuple[int, ...], cells: np.ndarray) -> float:
    if len(shape) != 2 or shape[0] != shape[1] or not np.isclose(cells[0], cells[1], rtol=1e-9, atol=0):
        raise ValueError(f"{name} takes a square image of square pixels; got shape {tuple(shape)}, pixels {cells}.")
    return float(cells[0])
