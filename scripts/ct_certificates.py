"""Put a trained tomography model under its certificates: test images, strangers, wrong sinograms, other methods' answers.

    il2o run experiments/ct_64.yaml
    il2o run experiments/ct_baselines_64.yaml
    python scripts/ct_certificates.py runs/ct_64 --beside runs/ct_baselines_64
    python scripts/render.py

It writes results/ct_certificates.json, which docs/applications/ct.md shows, and docs/assets/ct_*.svg.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.ct import charts, figures, findings
from implicit_l2o.applications.ct.certificates import certificate_maps
from implicit_l2o.applications.ct.data import Measurement
from implicit_l2o.applications.ct.measures import Map, RegulariserResidual
from implicit_l2o.applications.ct.metrics import psnr, ssim
from implicit_l2o.experiment.certify import load_task
from implicit_l2o.experiment.figures import drawing
from implicit_l2o.physics import PerBeamNoise, Projector
from implicit_l2o.report import write_json
from implicit_l2o.report.svg import save_svg
from implicit_l2o.training import AbstractTask

ROOT = Path(__file__).parents[1]
SEED = 0  # of strangers, corruption and their noise
_FRAME = '<svg style="color: #1f1f1f; background: #ffffff" '  # an image in a page does not see the page's colours
_QUANTILE = 0.999  # of a map's values over the test images: where its colours end


def examine(
    task: AbstractTask,
    run: Path,
    *,
    count: int,
    noise: float,
    beside: Path | None = None,
    shown: Sequence[str] | None = None,
) -> tuple[findings.Examined, ...]:
    """The demonstration on the first test images of a run.

    Args:
        task: the trained model.
        run: its folder.
        count: test images.
        noise: relative, on each beam of the strangers' sinograms.
        beside: another run on the same test images, whose baselines are examined; None for the run's baselines.
        shown: names of the baselines whose answers are examined; None for all but the constant one.
    """
    with np.load(run / "predictions.npz") as file:
        d, images = (torch.from_numpy(file[name][:count]) for name in ("inputs", "target"))
    folder = run if beside is None else beside
    with np.load(folder / "baselines.npz") as file:
        names = [name for name in file.files if name != "constant"] if shown is None else shown
        others = {name.replace("_", " "): torch.from_numpy(file[name][:count]) for name in names}
    with np.load(folder / "predictions.npz") as file:
        if not np.array_equal(file["inputs"][:count], d.numpy()):
            raise SystemExit(f"{folder} is of other test images than {run}: train both with the same seed and data.")
    measurement = Measurement(images.shape[-1], d.shape[1], PerBeamNoise(noise))

    def measure(phantoms: Tensor) -> Tensor:
        return measurement(phantoms, torch.Generator().manual_seed(SEED))

    return findings.demonstrate(
        task.infer,
        task.all_certificates(),
        images=images,
        data=d,
        measure=measure,
        others=others,
        seed=SEED,
    )


def record(task: AbstractTask, examined: Sequence[findings.Examined], *, noise: float) -> dict[str, Any]:
    """What the page shows: the certificates with their limits, and by kind the shares that fail."""
    rules = {
        certificate.name: {
            "calibrated": isinstance(certificate.rule, il2o.Calibration),
            "limit": certificate.rule.warn_limit,
        }
        for certificate in task.all_certificates()
    }
    first = examined[0]
    size, angles = first.x.shape[-1], first.d.shape[1]
    setting = {"size": size, "angles": angles, "noise": noise, "seed": SEED, "count": len(first.x)}
    return {"setting": setting, "certificates": rules, "kinds": findings.table(examined)}


def draw(
    task: AbstractTask, examined: Sequence[findings.Examined], projector: Projector, sample: int
) -> dict[str, Any]:
    """The figures by name, each with what a reader who cannot see it is told."""
    test = next(part for part in examined if part.group == "test")
    strange = next(part for part in examined if part.group == "phantom" and part.kind == "text")
    methods = [part for part in examined if part.group in ("test", "method")]
    answers = {}
    for part in methods:
        x, misfit = part.x[sample], projector.apply(part.x[sample][None])[0] - part.d[sample]
        truth = part.truth
        assert truth is not None
        scores = f"{float(psnr(x[None], truth[sample][None])):.1f} dB / {float(ssim(x[None], truth[sample][None])):.3f}"
        name = "implicit network" if part is test else part.kind
        answers[name] = figures.Answer(x, misfit, scores, figures.Verdict.of(part.report, sample))
    assert test.truth is not None
    found: dict[str, Any] = {"methods": (figures.side_by_side(test.truth[sample], answers), "Methods side by side")}
    found["fails"] = charts.fail_shares(examined)
    maps, scales = _maps(test, projector, task), {}
    for name, values in maps.items():
        scales[name] = float(values.flatten().quantile(_QUANTILE)) or 1.0
    for part, name in ((test, "map_test"), (strange, "map_text")):
        own = {key: values[sample] for key, values in _maps(part, projector, task).items()}
        verdict = figures.Verdict.of(part.report, sample)
        figure = figures.where_it_fails(part.x[sample], own, scales=scales, verdict=verdict)
        found[name] = (figure, f"Certificates pixel by pixel, {part.kind}")
    return found


def _maps(part: findings.Examined, projector: Projector, task: AbstractTask) -> dict[str, Tensor]:
    return certificate_maps(part.x, part.d, projector, force(task))


def force(task: AbstractTask) -> Map | None:
    """The learned regulariser's, where a certificate of the task measures it."""
    measures = [certificate.measure for certificate in task.all_certificates()]
    return next((measure.force for measure in measures if isinstance(measure, RegulariserResidual)), None)


def save(figure: Figure, path: Path, label: str) -> None:
    """A figure for a page, on white."""
    save_svg(figure, path, label=label)
    path.write_text(path.read_text(encoding="utf-8").replace("<svg ", _FRAME, 1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine a run and write what was found; the exit status."""
    parser = argparse.ArgumentParser(description="Put a trained tomography model under its certificates.")
    parser.add_argument("run", type=Path, help="folder that il2o run wrote, of one seed")
    parser.add_argument("--count", type=int, default=100, help="test images and strangers of each kind")
    parser.add_argument("--noise", type=float, default=0.015, help="relative, on each beam of the strangers' sinograms")
    parser.add_argument("--beside", type=Path, help="another run on the same images, whose baselines are examined")
    parser.add_argument("--methods", nargs="*", help="baselines whose answers are examined; by default all")
    parser.add_argument("--sample", type=int, default=0, help="the test image that is drawn")
    parser.add_argument("--name", default="ct_certificates", help="of the file in results/")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    options = parser.parse_args(arguments)
    task = load_task(options.run)
    projector = task.projector
    assert isinstance(projector, Projector)
    examined = examine(
        task, options.run, count=options.count, noise=options.noise, beside=options.beside, shown=options.methods
    )
    out = options.root / "results" / f"{options.name}.json"
    write_json(out, record(task, examined, noise=options.noise))
    print(json.dumps(findings.table(examined), indent=2))
    with drawing(), torch.no_grad():
        for name, (figure, label) in draw(task, examined, projector, options.sample).items():
            path = options.root / "docs" / "assets" / f"{options.name}_{name}.svg"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(figure, path, label)
    return 0


if __name__ == "__main__":
    sys.exit(main())
