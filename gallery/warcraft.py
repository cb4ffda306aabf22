"""The cheapest way across a map that is only a picture: learned from paths, and wary of pictures unlike its own.

python gallery/warcraft.py [--quick] [--out gallery_out]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import implicit_l2o as il2o
from implicit_l2o.applications.warcraft import PatchNetwork
from implicit_l2o.applications.warcraft.certificates import FlowOffPath
from implicit_l2o.data.warcraft import CellGrid, generate, path_costs
from implicit_l2o.losses import fenchel_young

RED = "#d55e00"


def main(*, quick: bool = False, out: Path = Path("gallery_out")) -> dict[str, float]:
    """Train, compare, certify, draw; the numbers that are printed."""
    torch.manual_seed(0)

    # 1. Generated terrain maps: 64 cells of grass, earth, forest, water or rock, and the cheapest path from corner to corner
    #    over the eight neighbours of a cell. We see pictures and paths; which terrain costs what is never told.
    side = 8
    train = generate(400 if quick else 1000, seed=0, side=side)
    validation, test = generate(200, seed=1, side=side), generate(200, seed=2, side=side)
    grid = CellGrid(side)
    paths = grid.path_arcs(train.paths)

    # 2. The model: a small convolutional network prices every cell, the layer sends a flow over the 420 arcs between cells.
    #    Exact solves (`polish`) are cheap at this size, and gamma can be small: the flow is nearly a path.
    network = PatchNetwork(width=16).build(side, level=1.0)
    layer = il2o.LPLayer(grid.program(), gamma=0.05, polish=True, on_failure="ignore")

    @torch.no_grad()
    def infer(images: torch.Tensor) -> il2o.Inference:
        return layer.inference(grid.arc_costs(network(images)))

    @torch.no_grad()
    def excess(costs: torch.Tensor) -> float:
        """What the exact paths under these costs cost above the cheapest, in %."""
        found = path_costs(grid.shortest_paths(costs), test.costs).sum()
        return 100 * float(found / path_costs(test.paths, test.costs).sum() - 1)

    untrained = excess(network(test.images))

    # 3. Train: the path that was taken has to be optimal under the predicted costs.
    optimizer = torch.optim.AdamW(network.parameters())
    for epoch in range(epochs := 5 if quick else 8):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - epoch / epochs)
        for batch in torch.randperm(len(train)).split(50):
            costs = grid.arc_costs(network(train.images[batch]))
            with torch.no_grad():
                x = layer(costs).x
            loss = fenchel_young(il2o.QuadraticCost(linear=costs, diagonal=layer.gamma), x, paths[batch])
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()

    # 4. Who does not look at the picture: the path that shares most cells with the paths of the training.
    blind = (1 - train.paths.mean(0, keepdim=True)).expand(len(test), -1, -1)

    # 5. Certificates: the answer is a flow, most of it takes the decided path (else: doubt), and the prices of the cells
    #    differ as they do on maps. The limits of the last two are conformal, from validation maps. What must not be
    #    trusted: television snow. There the straight way is the shortest, so doubt alone would not notice.
    measures = [FlowOffPath(grid), Sameness()]
    certificates = (
        il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3)),
        *il2o.conformal(measures, infer(validation.images), level=0.025),
    )
    report = il2o.certify(certificates, infer(test.images))
    snow = torch.randint(0, 256, test.images.shape, dtype=torch.uint8)
    verdict = il2o.certify(certificates, infer(snow))
    print(report.table(), "\nsnow:", verdict.table(), sep="\n")
    results = {"untrained": untrained, "blind": excess(blind), "learned from paths": excess(network(test.images))}
    print("\n% above the cheapest path:", *(f"  {name:20s}{value:6.1f}" for name, value in results.items()), sep="\n")

    figure = Figure(figsize=(11, 3.1), layout="constrained")
    axes = figure.subplots(1, 4)
    order = report.values[:, 1].argsort()
    chosen = {"the surest map": order[0], "the median map": order[len(order) // 2], "the most doubtful": order[-1]}
    for ax, (name, index) in zip(axes, chosen.items(), strict=False):
        label = il2o.Label(int(report.worst[index])).name
        draw_flow(ax, test.images[index], grid.cells(infer(test.images[index : index + 1]).x)[0], f"{name}: {label}")
    label = il2o.Label(int(verdict.worst[0])).name
    draw_flow(axes[3], snow[0], grid.cells(infer(snow[:1]).x)[0], f"snow: {label}")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "warcraft.png", dpi=80)
    fails = {"snow fails": float((verdict.worst == il2o.Label.FAIL).float().mean())}
    return {**results, **fails, "trusted": float(report.trusted.float().mean())}


@dataclass(frozen=True, eq=False)
class Sameness(il2o.AbstractMeasure):
    """How alike the cells are priced. A certificate of one's own is a number for each sample, small where all is well."""

    name: str = "sameness of prices"

    def __call__(self, inference: il2o.Inference) -> torch.Tensor:
        """One over the standard deviation of the predicted costs, whose mean is 1 on every map."""
        return 1 / inference.data.std(dim=1)


def draw_flow(ax: Axes, image: torch.Tensor, cells: torch.Tensor, title: str) -> None:
    """The picture, and on it a dot in every cell that is as large as the flow through it."""
    ax.imshow(image.numpy(), extent=(0, cells.shape[1], cells.shape[0], 0))
    row, column = torch.nonzero(cells > 0.02).T
    ax.scatter(column + 0.5, row + 0.5, s=150 * cells[row, column], color=RED, edgecolors="white", linewidths=1)
    ax.set_title(title, fontsize=10)
    ax.axis("off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for the tests")
    parser.add_argument("--out", type=Path, default=Path("gallery_out"), help="folder of the figure")
    main(**vars(parser.parse_args()))
