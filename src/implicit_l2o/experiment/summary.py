"""The summary of several seeds: a mean and an interval wherever `results.json` has a number."""

from collections.abc import Mapping, Sequence
from typing import Any

from implicit_l2o.report import interval


def summarise(finished: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Mean and 95 % interval over the seeds of everything that `results.json` has one number for."""

    def spread(values: Sequence[Any]) -> dict[str, Any]:
        if any(value is None for value in values):
            return {"mean": None, "half_width_95": None, "values": list(values)}
        mean, half = interval([float(value) for value in values])
        return {"mean": mean, "half_width_95": half, "values": list(values)}

    def over(trees: Sequence[Any]) -> Any:
        """The same tree with a spread in the place of each number that all seeds have."""
        first = trees[0]
        if isinstance(first, Mapping):
            shared = [key for key in first if all(isinstance(tree, Mapping) and key in tree for tree in trees)]
            found = {key: over([tree[key] for tree in trees]) for key in shared}
            return {key: value for key, value in found.items() if value is not None}
        if isinstance(first, bool) or not isinstance(first, (int, float)):
            return None
        return spread(trees)

    first = finished[0]
    numbers = ("seconds_per_epoch", "peak_memory", "seconds", "parameters", "best_epoch", "trusted")
    return {
        **{key: first[key] for key in ("name", "title", "summary", "problem", "guarantees", "metrics", "labels")},
        "seeds": list(seeds),
        "test": over([result["test"] for result in finished]),
        "training": over([result["training"] for result in finished]),
        "solver": over([result["solver"] for result in finished]),
        "certificates": over([result["certificates"] for result in finished]),
        "extra": over([result["extra"] for result in finished]),
        "numbers": over([{name: result[name] for name in numbers} for result in finished]),
        **{key: first[key] for key in ("machine", "versions", "git_commit")},
    }
