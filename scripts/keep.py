"""Keep a run as a result: its summary over the seeds goes to results/, figures of its first seed to docs/assets/.

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

from implicit_l2o.experiment.summary import summarise

ROOT = Path(__file__).parents[1]

# A figure of a run takes the colours of the page around it, which an image in a page does not see.
_FRAME = '<svg style="color: #1f1f1f; background: #ffffff" '


def keep(run: Path, figures: Sequence[str] = (), *, root: Path = ROOT) -> list[Path]:
    """Copy what the pages show of a run.

    Args:
        run: folder of the run, of one seed or several.
        figures: names of figures in the run's `figures/`, of the first seed where there are several.
        root: of the repository.

    Raises:
        FileNotFoundError: the summary or a figure is not there.
    """
    several = (run / "summary.json").is_file()
    results = json.loads((run / ("summary.json" if several else "results.json")).read_text())
    summary = results if several else summarise([results], [results["seed"]])
    name = summary["name"]
    written = {root / "results" / f"{name}.json": json.dumps(summary, indent=2, allow_nan=False) + "\n"}
    for figure in figures:
        first = run / f"seed_{summary['seeds'][0]}" if several else run
        text = (first / "figures" / f"{figure}.svg").read_text()
        written[root / "docs" / "assets" / f"{name}_{figure}.svg"] = text.replace("<svg ", _FRAME, 1)
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(written)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and copy; the exit status."""
    parser = argparse.ArgumentParser(description="Keep a run: results/NAME.json, docs/assets/NAME_*.svg.")
    parser.add_argument("run", type=Path, help="folder that il2o run wrote")
    parser.add_argument("--figures", nargs="*", default=[], metavar="NAME", help="of the first seed, for the pages")
    options = parser.parse_args(arguments)
    try:
        written = keep(options.run, options.figures)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is not there; `il2o run` writes it.")
    for path in written:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
