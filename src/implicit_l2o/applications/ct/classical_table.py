"""The methods without training, on ellipses of both sizes: `python -m implicit_l2o.applications.ct.classical_table`.

Writes results/ct_classical.json: PSNR and SSIM over the test phantoms, what was chosen on validation phantoms and what each
choice gave there, residuals, steps and times. Ten minutes on one core, nearly all of them total variation at 128x128.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.applications.ct.classical import CGLS, FBP, AbstractClassical
from implicit_l2o.applications.ct.classical_tv import ConstrainedTV, PenalisedTV
from implicit_l2o.applications.ct.data import EllipseData
from implicit_l2o.applications.ct.metrics import psnr, ssim
from implicit_l2o.data.ellipses import VERSION
from implicit_l2o.report import machine, write_json

_BATCH = 50


def noisy_methods(validation: int) -> dict[str, AbstractClassical]:
    """What is compared on noisy data; `validation` images choose the weights of total variation."""
    return {
        "fbp": FBP(),
        "cgls": CGLS(),
        "tv_penalised": PenalisedTV(validation=validation),
        "tv_ball": ConstrainedTV(validation=validation),
    }


def noiseless_methods() -> dict[str, AbstractClassical]:
    """What is compared on data without noise: the equality holds and nothing is to be chosen for it."""
    return {"fbp": FBP(), "cgls": CGLS(most_steps=300), "tv_equality": ConstrainedTV(deltas=(0.0,), rtol=2e-6)}


@torch.no_grad()
def evaluate(method: AbstractClassical, data: EllipseData, *, name: str, progress: bool) -> dict[str, Any]:
    """Choose on the validation phantoms, then touch the test phantoms once."""
    projector = scanner(data.measurement.size, data.measurement.angles)
    method.tune(projector, *data.splits.validation.tensors[:2], name=f"{name}: tuning", progress=progress)
    d, x = data.splits.test.tensors[:2]
    began = time.perf_counter()
    bar = tqdm(d.split(_BATCH), name, unit="batch", file=sys.stderr, disable=not progress)
    parts = [method.infer((part,)) for part in bar]
    seconds = time.perf_counter() - began
    answer = torch.cat([part.x for part in parts])
    scores = {"psnr": psnr(answer, x), "ssim": ssim(answer, x)}
    fidelity = (projector.apply(answer) - d).flatten(1).norm(dim=1) / d.flatten(1).norm(dim=1)
    found: dict[str, Any] = {
        **{key: float(value.mean()) for key, value in scores.items()},
        "psnr_sd": float(scores["psnr"].std()),
        "fidelity_mean": float(fidelity.mean()),
        "fidelity_max": float(fidelity.max()),
        "milliseconds_per_image": 1e3 * seconds / len(x),
        **method.numbers(),
        "psnr_per_image": [round(value, 3) for value in scores["psnr"].tolist()],
    }
    if parts[0].status is not None:
        status, steps = (torch.cat([getattr(part, key) for part in parts]) for key in ("status", "steps"))
        found["converged"] = float((status == il2o.Status.CONVERGED).double().mean())
        found["steps_median"], found["steps_max"] = float(steps.double().median()), int(steps.max())
    return found


def _kept(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What the file has of the same phantoms, so that sizes and kinds of data can be run one by one."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    return kept["results"] if kept.get("about") == about else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, evaluate, and write the table; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m implicit_l2o.applications.ct.classical_table",
        description="Methods without training on ellipses.",
    )
    parser.add_argument("--sizes", nargs="*", type=int, default=[64, 128], metavar="PIXELS")
    parser.add_argument(
        "--data", nargs="*", default=["noisy", "noiseless"], choices=["noisy", "noiseless"], metavar="KIND"
    )
    parser.add_argument("--methods", nargs="*", default=None, metavar="NAME", help="of these alone; default: all")
    parser.add_argument("--angles", type=int, default=30, metavar="COUNT")
    parser.add_argument("--validation", type=int, default=100, metavar="COUNT", help="for FBP and CGLS")
    parser.add_argument("--validation-tv", type=int, default=30, metavar="COUNT", help="for total variation")
    parser.add_argument("--test", type=int, default=200, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms and noise")
    parser.add_argument("--out", type=Path, default=Path("results/ct_classical.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts = {"train": 1, "validation": options.validation, "test": options.test}
    about = {"phantoms": VERSION, "noise": "1.5 % per beam", "seed": options.seed, **counts, "angles": options.angles}
    results: dict[str, Any] = _kept(options.out, about)
    for noiseless in (kind == "noiseless" for kind in options.data):
        for size in options.sizes:
            data = EllipseData(size=size, angles=options.angles, **counts, noiseless=noiseless, seed=options.seed)
            methods = noiseless_methods() if noiseless else noisy_methods(options.validation_tv)
            key = f"{size}_noiseless" if noiseless else str(size)
            results.setdefault(key, {})
            for name, method in methods.items():
                if options.methods is not None and name not in options.methods:
                    continue
                results[key][name] = evaluate(method, data, name=f"{key} {name}", progress=sys.stderr.isatty())
                found = results[key][name]
                print(f"{key:>14} {name:13} {found['psnr']:.2f} dB / {found['ssim']:.3f}", flush=True)
                results[key] = {known: results[key][known] for known in methods if known in results[key]}
                write_json(options.out, {"about": about, "machine": machine(), "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
