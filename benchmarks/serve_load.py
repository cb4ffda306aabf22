"""A server under load: fifty clients ask at once for a minute, every answer is compared with the layer's own.

    python -m benchmarks.serve_load      # writes results/serve_load.json

The server is a process of its own on the loopback, as `il2o serve` starts it; it is ended when the time is over. The layer
is the path model on the 5x5 grid with fresh weights, or any that `il2o export` wrote (`--layer DIR`). A request has one to
four samples, and each client sends the next one when the last one is answered, for at most `--seconds` and `--requests`.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.shortest_path.served import ServedPaths
from implicit_l2o.report import machine, write_json
from implicit_l2o.serving import Answers, Layer, load_layer, save_layer

ROOT = Path(__file__).parents[1]
INPUTS = 64  # different samples
MOST_SAMPLES = 4  # of a request
WARM_UP = 5.0  # seconds that count for nothing but errors: threads, caches and pools are made
CLOSE = 1e-4  # between an answer and the layer's own, which was solved in another batch, in units of the answer


@dataclass
class Tally:
    """What the clients have seen."""

    answers: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    requests: int = 0


def make_layer(folder: Path) -> None:
    """The path model with fresh weights, as a folder."""
    torch.manual_seed(0)
    model = ServedPaths(side=5)
    example = torch.randn(32, 5)
    calibrated = il2o.calibrate(model.measures(), model.eval().infer(example), p_pass=0.8, p_fail=0.2)
    save_layer(Layer(model, example=example[:2], calibrated=calibrated), folder, {"side": 5})


def is_right(answer: dict[str, Any], said: Answers, i: int) -> bool:
    """Whether a reply says of a sample what the layer says: solution, x, status and labels."""
    labels = [il2o.Label[c["label"]].value for c in answer["certificates"]]
    x, solution = torch.tensor(answer["x"]), torch.tensor(answer["solution"])
    return (
        bool((x - said.x[i]).abs().max() <= CLOSE)
        and bool((solution - said.answer[i]).abs().max() <= CLOSE)
        and said.status is not None
        and answer["status"] == il2o.Status(int(said.status[i])).name
        and labels == said.report.labels[i].tolist()
    )


async def client(
    server: httpx2.AsyncClient, d: torch.Tensor, said: Answers, tally: Tally, plan: dict[str, Any]
) -> None:
    """Ask until the time is over."""
    chance = random.Random(plan["seed"])
    while time.monotonic() < plan["end"] and tally.requests < plan["requests"]:
        tally.requests += 1
        chosen = [chance.randrange(len(d)) for _ in range(chance.randint(1, MOST_SAMPLES))]
        start = time.monotonic()
        try:
            reply = await server.post("/solve", json={"inputs": d[chosen].tolist(), "x": True})
        except httpx2.HTTPError as error:
            tally.errors.append(type(error).__name__)
            continue
        if start > plan["counted"]:
            tally.seconds.append(time.monotonic() - start)
        if reply.status_code != 200:
            tally.errors.append(f"{reply.status_code}: {reply.text[:100]}")
            continue
        answers = reply.json()["answers"]
        tally.answers += len(answers)
        right = [is_right(answer, said, i) for answer, i in zip(answers, chosen, strict=True)]
        tally.wrong += right.count(False)


async def watch(process: psutil.Process, end: float) -> list[float]:
    """The server's resident memory, in 1e6 bytes, twice a second."""
    memory = []
    while time.monotonic() < end:
        memory.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(0.5)
    return memory


async def load(
    address: str, process: psutil.Process, d: torch.Tensor, said: Answers, options: argparse.Namespace
) -> Any:
    """All clients at once, and the memory beside them."""
    start, tally = time.monotonic(), Tally()
    end = start + WARM_UP + options.seconds
    limits = httpx2.Limits(max_connections=options.clients)
    async with httpx2.AsyncClient(base_url=address, timeout=60.0, limits=limits, trust_env=False) as server:
        plan = {"end": end, "counted": start + WARM_UP, "requests": options.requests}
        clients = [client(server, d, said, tally, plan | {"seed": i}) for i in range(options.clients)]
        memory, *_ = await asyncio.gather(watch(process, end), *clients)
    return tally, memory[int(2 * WARM_UP) :]


def started(folder: Path, clients: int) -> tuple[subprocess.Popen[str], str]:
    """The server's process and its address."""
    command = [
        sys.executable,
        "-m",
        "implicit_l2o.cli",
        "serve",
        str(folder),
        "--port",
        "0",
        "--queue",
        str(2 * clients),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if "http://" not in line:
        process.terminate()
        raise RuntimeError(f"the server did not start: {line!r}")
    return process, line.split()[2]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start, load, end, compare."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.layer or Path(temporary) / "layer"
        if options.layer is None:
            make_layer(folder)
        layer = load_layer(folder)
        d = torch.randn(INPUTS, *layer.shape, generator=torch.Generator().manual_seed(1)).to(layer.dtype)
        said = layer(d)
        process, address = started(folder, options.clients)
        try:
            tally, memory = asyncio.run(load(address, psutil.Process(process.pid), d, said, options))
        finally:
            process.terminate()
            ended = process.wait(timeout=30)
    part = max(len(memory) // 5, 1)
    first, last = statistics.fmean(memory[:part]), statistics.fmean(memory[-part:])
    seconds = sorted(tally.seconds)
    return {
        "command": "python -m benchmarks.serve_load",
        "layer": type(layer.model).__name__,
        "clients": options.clients,
        "seconds": options.seconds,
        "requests": len(seconds),
        "answers": tally.answers,
        "errors": len(tally.errors),
        "kinds_of_errors": sorted(set(tally.errors))[:5],
        "wrong": tally.wrong,
        "requests_a_second": len(seconds) / options.seconds,
        "milliseconds": {
            name: 1e3 * seconds[min(int(share * len(seconds)), len(seconds) - 1)]
            for name, share in (("median", 0.5), ("p99", 0.99), ("worst", 1.0))
        },
        "memory": {"first_fifth": first, "last_fifth": last, "growth": last - first, "most": max(memory)},
        "ended_with": ended,
        "machine": machine(),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--layer", type=Path, help="what `il2o export` wrote; a model with fresh weights when not given"
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=200_000, help="the most in all")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serve_load.json")
    options = parser.parse_args()
    result = measure(options)
    write_json(options.out, result)
    print({name: result[name] for name in ("requests", "answers", "errors", "wrong", "milliseconds", "memory")})
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
