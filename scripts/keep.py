"""Keep a run over several seeds as a result: its summary goes to results/, figures of its first seed to docs/assets/.

    il2o run experiments/shortest_path_5x5.yaml --seeds 0,1,2,3,4,5,6,7,8,9
    python scripts/keep.py runs/shortest_path_5x5 --figures paths residuals
    python scripts/render.py

The pages show `results/NAME.json`, NAME being the experiment's, and `docs/assets/NAME_FIGURE.svg`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A figure of a run takes the colours of the page around it, which an image in a page does not see.
_FRAME = '<svg style="color: #1f1f1f; background: #ffffff" '


def keep(run: Path, figures: Sequence[str] = (), *, root: Path = ROOT) -> list[Path]:
    """Copy what the pages show of a run.

    Args:
        run: folder of the run, with a `summary.json`.
        figures: names of figures in `run/seed_N/figures/`, N the first seed.
        root: of the repository.

    Raises:
        FileNotFoundError: the summary or a figure is not there.
    """
    summary = json.loads((run / "summary.json").read_text())
    name = summary["name"]
    written = {root / "results" / f"{name}.json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    for figure in figures:
        text = (run / f"seed_{summary['seeds'][0]}" / "figures" / f"{figure}.svg").read_text()
        written[root / "docs" / "assets" / f"{name}_{figure}.svg"] = text.replace("<svg ", _FRAME, 1)
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(written)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and copy; the exit status."""
    parser = argparse.ArgumentParser(
        description="Keep a run over several seeds: results/NAME.json, docs/assets/NAME_*.svg."
    )
    parser.add_argument("run", type=Path, help="folder with a summary.json")
    parser.add_argument("--figures", nargs="*", default=[], metavar="NAME", help="of the first seed, for the pages")
    options = parser.parse_args(arguments)
    try:
        written = keep(options.run, options.figures)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is not there; `il2o run` writes it when it is given several seeds.")
    for path in written:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
