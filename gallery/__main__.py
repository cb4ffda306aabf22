"""Run the scripts of the gallery one after the other, each in a process of its own, with its wall time.

python -m gallery [NAME ...] [--quick] [--out gallery_out] [--record]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from implicit_l2o.report import machine, write_json

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "gallery.json"
ASSETS = HERE.parent / "docs" / "assets" / "gallery"
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py"))


def run(name: str, *, quick: bool, out: Path) -> tuple[float, str]:
    """Seconds of wall time of a script, on one thread, and what it printed; its errors end this one."""
    command = [sys.executable, HERE / f"{name}.py", "--out", out, *(["--quick"] if quick else [])]
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{name}: exit status {done.returncode}\n{done.stdout}")
    return seconds, done.stdout


def main() -> None:
    """Run, print, and with `--record` keep the figures for the pages and the times in results/gallery.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all of them by default: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a few seconds each")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figures")
    parser.add_argument("--record", action="store_true", help="fill results/gallery.json and docs/assets/gallery")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if arguments.quick and arguments.record:
        parser.error("--record is of whole runs, not of --quick ones")
    for name in arguments.names or NAMES:
        seconds, printed = run(name, quick=arguments.quick, out=arguments.out)
        print(f"\n== {name}: {seconds:.1f} s\n{printed}", flush=True)
        if arguments.record:
            # A script at a time, so that one can be recorded again without the others.
            known = json.loads(RESULTS.read_text())["scripts"] if RESULTS.exists() else {}
            record = {"seconds": round(seconds, 1), "printed": printed.splitlines(), "machine": machine()}
            write_json(RESULTS, {"scripts": dict(sorted((known | {name: record}).items()))})
            ASSETS.mkdir(parents=True, exist_ok=True)
            shutil.copy(arguments.out / f"{name}.png", ASSETS)


if __name__ == "__main__":
    main()
