"""Seconds an epoch of the shortest-path training through the layer: 1000 contexts, one thread, as the published times are.

    python -m benchmarks.path_epochs                   # writes results/path_epochs.json

The training step is complete: network, layer, loss, backward pass, Adam. Nothing is perturbed, so a context is one solve;
the tolerance is that of the experiments' trainings. A time is the median of the epochs after the first.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.data.shortest_path import Grid, generate
from implicit_l2o.losses import fenchel_young, solution_mse

ROOT = Path(__file__).parents[1]
CONTEXTS, EPOCHS, TOLERANCE = 1000, 6, 0.2
LOSSES = ("squared error, JFB", "Fenchel-Young")


def seconds(side: int, batch_size: int, loss: str) -> dict[str, float]:
    """Median wall and processor seconds of an epoch, and the mean number of iterations."""
    torch.manual_seed(0)
    data = generate(side=side, train=CONTEXTS, validation=1, test=1).train
    A, b = Grid(side).flow_constraints()
    layer = il2o.LPLayer(il2o.LinearProgram(A_eq=A, b_eq=b), gamma=1.0, tolerance=TOLERANCE, on_failure="raise")
    network = torch.nn.Sequential(
        torch.nn.Linear(data.contexts.shape[1], 50), torch.nn.LeakyReLU(0.1), torch.nn.Linear(50, A.shape[1])
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    wall, processor, steps = [], [], []
    for _ in range(EPOCHS):
        began, worked = time.perf_counter(), time.process_time()
        for index in torch.randperm(CONTEXTS).split(batch_size):
            cost, path = network(data.contexts[index]), data.paths[index]
            if loss == "Fenchel-Young":
                with torch.no_grad():
                    solution = layer(cost)
                value = fenchel_young(il2o.QuadraticCost(linear=cost, diagonal=1.0), solution.x, path).mean()
            else:
                solution = layer(cost)
                value = solution_mse(solution.x, path).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            steps.append(float(solution.steps.float().mean()))
        wall.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
    return {
        "wall": statistics.median(wall[1:]),
        "processor": statistics.median(processor[1:]),
        "iterations": statistics.mean(steps),
    }


def main() -> None:
    """Measure, and write after every row."""
    parser = argparse.ArgumentParser(description="Seconds an epoch of the shortest-path training through the layer.")
    parser.add_argument("--sides", nargs="+", type=int, default=[5, 10, 20, 30])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "path_epochs.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    cases = [(side, batch, loss) for side in options.sides for batch in (32, 64, 256) for loss in LOSSES]
    for side, batch, loss in tqdm(cases):
        rows[f"{side}x{side}, batch {batch}, {loss}"] = seconds(side, batch, loss)
        record = {
            "command": "python -m benchmarks.path_epochs",
            "contexts": CONTEXTS,
            "tolerance": TOLERANCE,
            "threads": 1,
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "torch": torch.__version__,
            },
            "rows": rows,
        }
        options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
