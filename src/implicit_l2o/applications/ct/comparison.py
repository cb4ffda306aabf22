r"""The table of the methods, from the images that runs have left: paired by image, with the constraints that each keeps.

    python -m implicit_l2o.applications.ct.comparison convex=runs/ct_convex free=runs/ct_free --reference tv_ball \
        --out results/ct_64.json

The model of each run gets the name before `=`; the runs' baselines keep theirs. All must be of the same test images.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.applications.ct.certificates import UNIT_BOX
from implicit_l2o.applications.ct.metrics import psnr, ssim
from implicit_l2o.report import interval, write_json

TOLERANCE = 1e-4  # of the constraints: the box as a root mean square over the pixels, the ball in units of |d|


@dataclass(frozen=True, eq=False)
class Answers:
    """What several methods answer to the same measurements.

    Attributes:
        x: by method.
        truth: the true images.
        d: the sinograms.
        numbers: by method, what else is known: `parameters`, `training_seconds`, `converged`, `steps_median`, ...; and its
            own radius `delta`, where it promises one.
    """

    x: Mapping[str, Float[Tensor, "N 1 H W"]]
    truth: Float[Tensor, "N 1 H W"]
    d: Float[Tensor, "N angles bins"]
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of_run(cls, folder: Path, model: str) -> Self:
        """The model's and the baselines' answers of a finished run of one seed.

        Args:
            folder: that `il2o run` wrote.
            model: the name of the run's model in the table.

        Raises:
            FileNotFoundError: a file of the run is not there.
            ValueError: the sinograms were too many to be kept beside the answers.
        """
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        with np.load(folder / "predictions.npz") as file:
            if "inputs" not in file.files:
                raise ValueError(f"{folder}/predictions.npz holds no sinograms; take fewer test images.")
            kept = {name: torch.from_numpy(file[name]) for name in file.files}
        with np.load(folder / "baselines.npz") as file:
            others = {name: torch.from_numpy(file[name]) for name in file.files}
        solver = {} if "steps" not in kept else {"steps_median": float(kept["steps"].double().median())}
        if "status" in kept:
            solver["converged"] = float((kept["status"] == il2o.Status.CONVERGED).double().mean())
        own = results.get("extra", {}).get("delta")  # a model that promises a ball is held to its own
        numbers = {model: _cost(results) | solver | ({} if own is None else {"delta": own})}
        numbers |= {name: _cost(results["training"].get(name, {})) for name in others}
        return cls({model: kept["answer"], **others}, kept["target"], kept["inputs"], numbers)

    def joined(self, other: "Answers") -> "Answers":
        """Both together; where both have a method, this one's answers stay.

        Raises:
            ValueError: the test images or the sinograms differ.
        """
        if not (torch.equal(self.truth, other.truth) and torch.equal(self.d, other.d)):
            raise ValueError("the runs have other test images or sinograms, so their methods cannot be compared.")
        return Answers({**other.x, **self.x}, self.truth, self.d, {**other.numbers, **self.numbers})


@torch.no_grad()
def method_table(
    answers: Answers,
    A: il2o.AbstractLinearOperator,
    *,
    delta: float,
    reference: str,
    noise_limit: float | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, dict[str, Any]]:
    """One row a method: quality with its interval over the images, the gain over a reference, which constraints are left.

    Per method `psnr` and `ssim` (mean and half the width of the 95 % interval over images), `gain` (mean and standard error
    of the difference in dB, image by image; absent for the reference), `wins` (the share of images on which it is better),
    and the shares beyond the box (`box`), beyond the method's own radius or else `delta` (`fidelity`) and, where a limit is
    given, further from the measurement than noise takes a true image (`noise`); with the method's other numbers.

    Args:
        answers: of all methods.
        A: the projector.
        delta: relative radius of the ball for methods without one of their own.
        reference: the method that the gain is over.
        noise_limit: the relative fidelity that 95 % of true images keep; see `noise_quantile`.
        tolerance: of the constraints.

    Raises:
        ValueError: there is no such reference.
    """
    if reference not in answers.x:
        raise ValueError(f"the gain is over one of the methods {', '.join(answers.x)}; got reference={reference!r}.")
    truth, d = answers.truth, answers.d
    base = psnr(answers.x[reference], truth).double()
    most = tolerance * truth[0].numel() ** 0.5
    rows = {}
    for name, x in answers.x.items():
        numbers = answers.numbers.get(name, {})
        quality = psnr(x, truth).double()
        fidelity = il2o.RelativeDataFidelity(A)(il2o.Inference(x=x, data=d))
        row: dict[str, Any] = {
            "psnr": _over_images(quality),
            "ssim": _over_images(ssim(x, truth).double()),
            "box": _share(UNIT_BOX.violation(x) > most),
            "fidelity": _share(fidelity > numbers.get("delta", delta) + tolerance),
            "fidelity_median": float(fidelity.median()),
            "fidelity_max": float(fidelity.max()),
        }
        if noise_limit is not None:
            row["noise"] = _share(fidelity > noise_limit)
        if name != reference:
            gain = quality - base
            error = float(gain.std() / len(gain) ** 0.5)
            row |= {"gain": {"mean": float(gain.mean()), "standard_error": error}, "wins": _share(gain > 0)}
        rows[name] = row | dict(numbers)
    return rows


def noise_quantile(
    images: Float[Tensor, "N 1 H W"], d: Float[Tensor, "N angles bins"], A: il2o.AbstractLinearOperator
) -> float:
    """The relative fidelity `|A x - d| / |d|` that 95 % of true images keep: what measurement noise explains.

    Args:
        images: true ones, of training or validation data.
        d: their sinograms.
        A: the projector.
    """
    [certificate] = il2o.calibrate([il2o.RelativeDataFidelity(A)], il2o.Inference(x=images, data=d))
    return certificate.rule.warn_limit


def _cost(results: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and seconds of training, as far as they are known."""
    found = {"parameters": results.get("parameters")}
    seconds, epochs = results.get("seconds_per_epoch"), results.get("epochs")
    if "training_seconds" in results:
        found["training_seconds"] = results["training_seconds"]
    elif seconds is not None and epochs is not None:
        found["training_seconds"] = seconds * epochs
    return {name: value for name, value in found.items() if value is not None}


def _over_images(values: Tensor) -> dict[str, float | None]:
    mean, half = interval(values.tolist())
    return {"mean": mean, "half_width_95": half}


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; the exit status."""
    parser = argparse.ArgumentParser(description="Compare the methods of tomography runs, image by image.")
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=FOLDER", help="runs of one seed, and what to call their models"
    )
    parser.add_argument("--reference", default="tv_ball", help="the method that the gain is over")
    parser.add_argument("--delta", type=float, help="radius for methods without one; None: the first run's")
    parser.add_argument(
        "--noise-limit", type=float, help="relative fidelity that 95 %% of true images keep; None: of the test"
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    if any("=" not in run for run in options.runs):
        parser.error(f"a run is NAME=FOLDER; got {next(run for run in options.runs if '=' not in run)}")
    folders = {name: Path(folder) for name, _, folder in (run.partition("=") for run in options.runs)}
    answers = None
    for name, folder in folders.items():
        found = Answers.of_run(folder, name)
        answers = found if answers is None else answers.joined(found)
    assert answers is not None
    first = json.loads((next(iter(folders.values())) / "results.json").read_text(encoding="utf-8"))
    delta = first["extra"]["delta"] if options.delta is None else options.delta
    angles, size = answers.d.shape[1], answers.truth.shape[-1]
    A = scanner(size, angles)
    limit = options.noise_limit
    if limit is None and first["extra"]["delta"] != 0:  # without noise there is nothing to compare with
        limit = noise_quantile(answers.truth, answers.d, A)
    table = method_table(answers, A, delta=delta, reference=options.reference, noise_limit=limit)
    setting = {
        "size": size,
        "angles": angles,
        "bins": answers.d.shape[2],
        "test": len(answers.d),
        "seed": first["seed"],
    }
    setting |= {
        "delta": delta,
        "noise_limit": limit,
        "tolerance": TOLERANCE,
        "reference": options.reference,
    }
    write_json(options.out, {"setting": setting, "methods": table})
    return 0


if __name__ == "__main__":
    sys.exit(main())
