"""What keeping freed memory saves: three operations on large tensors, each setting in a process of its own, in turns.

OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.allocator    # writes results/allocator.json
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from implicit_l2o.report import machine, write_json
from implicit_l2o.training import keep_freed_memory

MEBIBYTES = (1, 6, 24, 96)
TURNS = 5


def milliseconds(mebibytes: int, repeats: int = 15) -> float:
    """The least processor time of `(x + x) x - x`."""
    torch.set_num_threads(1)
    x = torch.ones(mebibytes * 2**18)
    times = []
    for _ in range(repeats):
        started = time.process_time()
        _ = (x + x) * x - x
        times.append(1e3 * (time.process_time() - started))
    return min(times)


def measured(setting: str, mebibytes: int) -> float:
    """`milliseconds` in a new process, for the setting is the whole process's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-m", "benchmarks.allocator", "--one", setting, str(mebibytes)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout)


def main() -> int:
    """Measure one setting, or all of them; the exit status."""
    parser = argparse.ArgumentParser(description="What keeping freed memory saves.")
    parser.add_argument("--one", nargs=2, metavar=("SETTING", "MIB"), help="keep or leave, and the size of the tensors")
    parser.add_argument("--out", type=Path, default=Path("results/allocator.json"))
    options = parser.parse_args()
    if options.one is not None:
        setting, mebibytes = options.one
        if setting == "keep":
            keep_freed_memory()
        print(milliseconds(int(mebibytes)))
        return 0
    rows = []
    for mebibytes in MEBIBYTES:
        turns = [(measured("leave", mebibytes), measured("keep", mebibytes)) for _ in range(TURNS)]
        left, kept = (float(np.median(times)) for times in zip(*turns, strict=True))
        rows.append({"mebibytes": mebibytes, "left_ms": left, "kept_ms": kept})
        print(f"{mebibytes} MiB: {left:.2f} ms, {kept:.2f} ms where freed memory is kept")
    write_json(options.out, {"turns": TURNS, "rows": rows, "machine": machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
