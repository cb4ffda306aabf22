"""What the training wrote down, read back."""

from pathlib import Path

import pandas as pd

from implicit_l2o.training import CheckpointError, read_checkpoint


def last_metrics(path: Path, prefix: str) -> dict[str, float]:
    """The last value of every column of a `metrics.csv` whose name starts so; empty where there is no file."""
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.EmptyDataError):
        return {}
    columns = {name: table[name].dropna() for name in table.columns if name.startswith(prefix)}
    return {name.removeprefix(prefix): float(values.iloc[-1]) for name, values in columns.items() if len(values)}


def best_epoch(path: Path) -> int | None:
    """The epoch of a checkpoint; None where there is none."""
    try:
        return int(read_checkpoint(path)["epoch"])
    except CheckpointError:
        return None
