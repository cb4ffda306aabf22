"""Fuzz a reader, or all of them, for some time, and record what came out in results/fuzz.json.

python -m fuzz tntp --seconds 600            # one reader; its entry in results/fuzz.json is replaced
python -m fuzz all --seconds 600             # one after the other
python -m fuzz tntp --input FILE             # one input again: what the reader does with it

Needs atheris (`pip install atheris`), libFuzzer for Python.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz.harness import ROOT, TARGETS, Target, emptied, judge, load
from implicit_l2o.report import machine, write_json

_STATUS = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+)")
_KILLED = ("timeout-*", "oom-*", "crash-*", "leak-*")
_RESTARTS = 40  # after so many kills the rest of the time is given up


def _fuzz(name: str, target: Target, seconds: float, keep: Path) -> dict[str, Any]:
    """Run the fuzzer until the time is over; what it did, and what it found."""
    corpus, findings = keep / "corpus", keep / "findings"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds = [bytes(seed) for seed in target.seeds()]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = keep / "words"
    words.write_text("\n".join(f'"{_quoted(word)}"' for word in target.words) + "\n")
    took, worked, executions, coverage, features = 0.0, 0.0, 0, 0, 0
    for run in range(_RESTARTS):
        left = int(seconds - took)
        if left < 1:
            break
        log = keep / f"log-{run}.txt"
        options = [
            f"-max_total_time={left}",
            f"-timeout={target.seconds}",
            f"-rss_limit_mb={target.megabytes}",
            f"-max_len={target.most_bytes}",
            f"-artifact_prefix={findings}/",
            f"-dict={words}",
            str(corpus),
        ]
        before = _processor_seconds()
        with log.open("wb") as errors:
            command = [sys.executable, "-m", "fuzz.child", name, str(findings), *options]
            subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, check=False)
        seen = [tuple(map(int, found)) for found in _STATUS.findall(log.read_text(errors="replace"))]
        if not seen:
            raise SystemExit(f"the fuzzer did not start; its log: {log}\n{log.read_text(errors='replace')[-2000:]}")
        started = findings / "started"  # imports do not count
        took += time.time() - started.stat().st_mtime
        worked += _processor_seconds() - before - float(started.read_text())
        executions += seen[-1][0]
        coverage, features = max(coverage, seen[-1][1]), max(features, seen[-1][2])
    found = [json.loads(path.read_text())["text"] for path in sorted(findings.glob("*.json"))]
    killed = sorted(path.name for pattern in _KILLED for path in findings.glob(pattern))
    return {
        "seconds": round(took),
        "processor_seconds": round(worked),
        "executions": executions,
        "seeds": len(seeds),
        "coverage": coverage,
        "features": features,
        "open": [*found, *killed],
    }


def _processor_seconds() -> float:
    """Of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _quoted(word: bytes) -> str:
    return "".join(chr(byte) if 32 < byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}" for byte in word)


def _again(target: Target, data: bytes) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        finding = judge(target, data, emptied(folder))
        print("within the contract" if finding is None else finding.text)
    finally:
        shutil.rmtree(folder)


def main() -> int:
    """The exit status: 1 where there are open findings."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Coverage-guided fuzzing of the readers.")
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("--seconds", type=float, default=600.0, help="of each target (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "fuzz.json")
    parser.add_argument("--keep", type=Path, help="folder of corpus, findings and logs; default: a temporary one")
    parser.add_argument("--input", type=Path, help="read this input alone, and say what came of it")
    options = parser.parse_args()
    if options.input is not None:
        _again(load(options.target), options.input.read_bytes())
        return 0
    names = TARGETS if options.target == "all" else (options.target,)
    found = 0
    for name in names:
        try:
            target = load(name)
        except ModuleNotFoundError as error:
            if options.target != "all" or not (error.name or "").startswith("implicit_l2o."):
                raise
            print(f"{name}: left out, there is no {error.name} here")
            continue
        keep = (options.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))) / name
        row = _fuzz(name, target, options.seconds, keep)
        # Read again: another process may have fuzzed another reader meanwhile.
        kept = json.loads(options.out.read_text()) if options.out.exists() else {"readers": {}}
        rows = {**kept["readers"], name: row}
        write_json(options.out, {"readers": {key: rows[key] for key in TARGETS if key in rows}, "machine": machine()})
        found += len(row["open"])
        print(
            f"{name}: {row['executions']} inputs in {row['seconds']} s, {row['features']} features, "
            f"{len(row['open'])} open findings ({keep})",
            *row["open"],
            sep="\n  ",
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
