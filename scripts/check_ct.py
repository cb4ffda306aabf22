"""Compute the numbers of a tomography run again, from the images on file: PSNR, SSIM, box and fidelity.

    python scripts/check_ct.py runs/ct_64

Nothing of the package is imported, and no matrix is built: rays are followed through the images one view at a time, in
double precision. The sinograms on file must be those of the true images up to noise, the recorded scores and certificates
those of the answers, and the model's answers inside the box and the ball. Which shares of every method's answers leave them
is printed.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = (
    1e-4  # of the constraints: of the box as a root mean square over the pixels, of the fidelity relative to |d|
)
ROUNDED = 2e-5  # what float32 may move a relative fidelity by
MOST_NOISE = 0.2  # a sinogram that differs by more from that of the true image is another's
WINDOW = 7  # pixels along a side of SSIM's window

Array = NDArray[np.float64]


class Scanner:
    """Parallel rays through the image, sampled where they cross its rows or columns (Joseph, 1982), at norm 1.

    Views are `(i + 1/2) pi / angles`; the bins span the diagonal of the image, pixels have side 1, the rotation centre is
    the middle, rows go down.
    """

    def __init__(self, size: int, angles: int, bins: int) -> None:
        self.size, self.angles, self.bins = size, angles, bins
        self.scale = 1.0
        self.scale = self._norm()

    def project(self, images: Array) -> Array:
        """Sinograms `(N, angles, bins)` of images `(N, size, size)`."""
        return np.stack([self._view(images, view) for view in range(self.angles)], axis=1) / self.scale

    def _crossings(self, view: int) -> tuple[bool, Array, float]:
        """Whether the rays go down the rows; where each crosses each line, `(bins, size)`; the length between two lines."""
        theta = (view + 0.5) * math.pi / self.angles
        cosine, sine = math.cos(theta), math.sin(theta)
        offset = (np.arange(self.bins) - (self.bins - 1) / 2) * (math.sqrt(2) * self.size / self.bins)
        along = np.arange(self.size) - (self.size - 1) / 2  # of the lines' centres: to the right, or down
        if abs(cosine) >= abs(sine):  # x cos + y sin = offset with y = -along
            at = (offset[:, None] + along * sine) / cosine
            return True, at + (self.size - 1) / 2, 1 / abs(cosine)
        at = (offset[:, None] - along * cosine) / sine  # y; the row is -y
        return False, (self.size - 1) / 2 - at, 1 / abs(sine)

    def _view(self, images: Array, view: int) -> Array:
        down, at, length = self._crossings(view)
        lines = images if down else images.transpose(0, 2, 1)  # (N, line, place on it)
        padded = np.pad(lines, ((0, 0), (0, 0), (1, 2)))
        place = np.clip(at, -1.0, float(self.size)) + 1
        left = np.floor(place).astype(int)
        share = place - left
        total = np.zeros((len(images), self.bins))
        for line in range(self.size):  # line by line, for a batch of large images would not fit
            one = padded[:, line]
            total += (1 - share[:, line]) * one[:, left[:, line]] + share[:, line] * one[:, left[:, line] + 1]
        return total * length

    def _norm(self) -> float:
        """The spectral norm, by power iteration; the transpose spreads each ray over the pixels that it was read from."""
        image = np.ones((self.size, self.size))
        norm = 1.0
        for _ in range(60):
            sinogram = self.project(image[None])[0]
            image = np.sum([self._spread(sinogram[view], view) for view in range(self.angles)], axis=0)
            norm = float(np.linalg.norm(image))
            image = image / norm
        return math.sqrt(norm)

    def _spread(self, rays: Array, view: int) -> Array:
        down, at, length = self._crossings(view)
        place = np.clip(at, -1.0, float(self.size)) + 1
        left = np.floor(place).astype(int)
        share = place - left
        wide = self.size + 3
        index = left + wide * np.arange(self.size)
        weights = rays[:, None] * length
        flat = np.bincount(index.ravel(), (weights * (1 - share)).ravel(), wide * self.size)
        flat += np.bincount(index.ravel() + 1, (weights * share).ravel(), wide * self.size)
        image: Array = flat.astype(np.float64).reshape(self.size, wide)[:, 1:-2]
        return image if down else image.T


def psnr(x: Array, truth: Array) -> Array:
    """In dB, of each image, for values in [0, 1]."""
    return -10 * np.log10(((x - truth) ** 2).mean((1, 2)))


def ssim(x: Array, truth: Array) -> Array:
    """Structural similarity of each image over all windows of 7x7 pixels (Wang et al., 2004)."""

    def mean(image: Array) -> Array:
        sums = np.pad(image, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
        w = WINDOW
        return (sums[:, w:, w:] - sums[:, :-w, w:] - sums[:, w:, :-w] + sums[:, :-w, :-w]) / w**2

    a, b = mean(x), mean(truth)
    variance = mean(x**2) - a**2 + mean(truth**2) - b**2
    covariance = mean(x * truth) - a * b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * a * b + c1) * (2 * covariance + c2) / ((a**2 + b**2 + c1) * (variance + c2))).mean((1, 2))


def outside(x: Array) -> Array:
    """The Euclidean distance of each image to [0, 1]."""
    return np.sqrt(((x - np.clip(x, 0, 1)) ** 2).sum((1, 2)))


def fidelity(scanner: Scanner, x: Array, d: Array) -> Array:
    """`|A x - d| / |d|` of each image."""
    return np.linalg.norm((scanner.project(x) - d).reshape(len(d), -1), axis=1) / np.linalg.norm(
        d.reshape(len(d), -1), axis=1
    )


def read(folder: Path) -> tuple[dict[str, Array], Array, Array]:
    """Answers by method, true images and sinograms of one run."""
    with np.load(folder / "predictions.npz") as file:
        if "inputs" not in file.files:
            raise SystemExit(f"{folder}/predictions.npz holds no sinograms: there were too many to be kept.")
        answers, truth, d = {"model": file["answer"]}, file["target"], file["inputs"]
    if (folder / "baselines.npz").is_file():
        with np.load(folder / "baselines.npz") as file:
            answers |= {name: file[name] for name in file.files}
    images = {name: x.reshape(truth.shape)[:, 0].astype(np.float64) for name, x in answers.items()}
    return images, truth[:, 0].astype(np.float64), d.astype(np.float64)


def complaints(
    folder: Path, shares: dict[str, tuple[float, float]] | None = None, radius: float | None = None
) -> Iterator[str]:
    """What does not agree for one seed of a run.

    Args:
        folder: of the seed.
        shares: is given, by method, the shares of images that leave the box and the ball.
        radius: of the ball, relative, where the run's model promises none.
    """
    results = json.loads((folder / "results.json").read_text())
    answers, truth, d = read(folder)
    scanner = Scanner(truth.shape[-1], *d.shape[1:])
    promised = results["extra"].get("delta")
    delta = next((float(value) for value in (promised, radius) if value is not None), math.inf)
    if outside(truth).max() > 0:
        yield "a true image leaves [0, 1]"
    noise = fidelity(scanner, truth, d)
    if noise.max() > MOST_NOISE:
        yield f"{int((noise > MOST_NOISE).sum())} sinograms are not those of the true images"
    for name, x in answers.items():
        yield from _scores(name, results["test"].get(name), x, truth)
        left, excess = outside(x), np.maximum(0.0, fidelity(scanner, x, d) - delta)
        beyond = left > TOLERANCE * truth.shape[-1], excess > TOLERANCE
        if shares is not None:
            shares[name] = (float(beyond[0].mean()), float(beyond[1].mean()))
        if name == "model" and promised is not None:
            yield from _certificates(folder, left, excess)
            for what, failing in zip(("box", "ball"), beyond, strict=True):
                if failing.any():
                    yield f"model: {int(failing.sum())} of {len(x)} answers leave the {what}"


def _scores(name: str, recorded: Mapping[str, float] | None, x: Array, truth: Array) -> Iterator[str]:
    if recorded is None:
        yield f"{name}: there are answers, but no scores"
        return
    for metric, of, allowed in (("PSNR", psnr, 2e-3), ("SSIM", ssim, 1e-4)):
        value = float(of(x, truth).mean())
        if metric in recorded and not abs(value - recorded[metric]) <= allowed:
            yield f"{name}: {metric} is {value:.4f}, recorded {recorded[metric]:.4f}"


def _certificates(folder: Path, left: Array, excess: Array) -> Iterator[str]:
    """The recorded values of the certificates, and the labels that follow from them."""
    record: dict[str, Any] = json.loads((folder / "certificates.json").read_text())
    for name, values in (("box violation", left), ("fidelity excess", excess)):
        if name not in record["samples"]["values"]:
            yield f"model: no certificate '{name}' is recorded"
            continue
        recorded = np.array([np.nan if v is None else v for v in record["samples"]["values"][name]], dtype=float)
        if not np.allclose(recorded, values, rtol=1e-3, atol=ROUNDED):
            worst = int(np.nanargmax(np.abs(recorded - values)))
            yield f"model: '{name}' of image {worst} is {values[worst]:.2e}, recorded {recorded[worst]:.2e}"
        limit = record["limits"][name][1]
        labels = np.array([label == "FAIL" for label in record["samples"]["labels"][name]])
        missed = (values > limit + ROUNDED) & ~labels
        if missed.any():
            yield f"model: '{name}' of {int(missed.sum())} images is beyond its limit, and does not fail"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every seed of the runs; the exit status is 1 if anything does not agree."""
    parser = argparse.ArgumentParser(description="Compute the numbers of tomography runs again.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders that il2o run wrote, of one seed or several")
    parser.add_argument("--delta", type=float, help="relative radius, for runs whose model promises none")
    options = parser.parse_args(arguments)
    wrong = checked = 0
    for run in options.runs:
        folders = sorted(path.parent for path in run.glob("**/predictions.npz") if path.parent.name != "certified")
        folders = [folder for folder in folders if (folder / "results.json").is_file()]
        if not folders:
            parser.error(f"{run} has no predictions.npz beside a results.json; il2o run writes them.")
        for folder in folders:
            checked += 1
            shares: dict[str, tuple[float, float]] = {}
            for text in complaints(folder, shares, options.delta):
                print(f"{folder}: {text}")
                wrong += 1
            for name, (box, ball) in shares.items():
                print(f"{folder}: {name}: {100 * box:.1f} % leave the box, {100 * ball:.1f} % the ball")
    print(f"{checked} test sets checked, {wrong} complaints")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
