"""The command line: which rows and peers, in which order, kept after every row."""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.lp_layers import measure
from benchmarks.lp_layers.floor import floors
from benchmarks.lp_layers.iterations import studies
from benchmarks.lp_layers.peers import PEERS, Peer, Skip
from benchmarks.lp_layers.problems import BATCH, LARGE, ROWS, Row
from benchmarks.lp_layers.reference import solve
from implicit_l2o.report import machine, write_json

ROOT = Path(__file__).parents[2]
GAMMA = 0.1
PARTS = ("rows", "iterations", "floor")


def measure_row(row: Row, peers: Sequence[Peer], *, repeats: int) -> dict[str, Any]:
    """Everything about one row."""
    begun = time.perf_counter()
    reference = solve(row, GAMMA)
    kept: dict[str, Any] = {
        "family": row.family,
        "n": row.n,
        "m": row.m,
        "reference": {
            "residual": reference.residual,
            "moved": reference.moved,
            "vertices": reference.vertices,
            "seconds": time.perf_counter() - begun,
        },
    }
    chosen, skipped = [], {}
    for peer in peers:
        try:
            chosen.append(measure.climb(row, reference, peer, GAMMA))
        except Skip as reason:
            skipped[peer.name] = str(reason)
    kept["peers"] = measure.alternate(row, reference, chosen, repeats)
    kept["skipped"] = skipped
    kept["load"] = round(os.getloadavg()[0], 2)
    return kept


def progress(name: str, row: dict[str, Any], seconds: float) -> str:
    """One line a row."""
    parts = [
        f"{peer} {1e3 * found['seconds']:.3g}"
        + ("" if found["accurate"] else f" (x error {found['errors']['x'] or 9:.0e})")
        for peer, found in row["peers"].items()
    ]
    return f"{name:22s} {seconds:5.1f} s | ms: " + ", ".join(parts + [f"{peer} -" for peer in row["skipped"]])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lp_layers", description=__doc__)
    parser.add_argument("--problems", nargs="+", metavar="NAME", help=f"of: {', '.join(ROWS)}; default: all")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help=f"of: {', '.join(PEERS)}; default: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--quick", action="store_true", help="2 repeats and the small sizes, to see that it runs")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "lp_layers.json")
    options = parser.parse_args()
    for kind, given, known in (("problem", options.problems, ROWS), ("peer", options.peers, PEERS)):
        for name in given or ():
            if name not in known:
                parser.error(f"no {kind} {name!r}; there are: {', '.join(known)}")
    return options


def main(core: int | None) -> None:
    """Run what is asked for, keeping every finished row."""
    options = arguments()
    torch.set_num_threads(1)
    about = {
        "command": "python -m benchmarks.lp_layers",
        "batch": BATCH,
        "gamma": GAMMA,
        "x_error": measure.TARGET,
        "threads": torch.get_num_threads(),
        "pinned": core is not None,
        "machine": machine() | {"peers": versions()},
    }
    asked = [peer for peer in PEERS.values() if options.peers is None or peer.name in options.peers]
    repeats = 2 if options.quick else measure.REPEATS
    if "rows" in options.parts:
        for name in options.problems or [name for name in ROWS if not (options.quick and name in LARGE)]:
            begun = time.perf_counter()
            large = name in LARGE
            peers = [peer for peer in asked if peer.large or not large]
            row = measure_row(ROWS[name](), peers, repeats=1 if large else repeats)
            keep(options.out, about, "rows", name, row)
            print(progress(name, row, time.perf_counter() - begun), flush=True)
    for part, study in (("iterations", studies), ("floor", floors)):
        if part in options.parts:
            for name, entry in study(quick=options.quick):
                keep(options.out, about, part, name, entry)
                print(f"{part}: {name} {json.dumps(entry)[:160]}", flush=True)
    print(f"written: {options.out}")


def keep(out: Path, about: Mapping[str, Any], part: str, name: str, entry: Any) -> None:
    """Add an entry to what is in the file by now, the rows in the order of the table."""
    result: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    result |= about
    entries = result.get(part, {}) | {name: entry}
    result[part] = {each: entries[each] for each in ROWS if each in entries} if part == "rows" else entries
    write_json(out, result)


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("clarabel", "cvxpylayers", "diffcp", "moreau", "qpth"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
