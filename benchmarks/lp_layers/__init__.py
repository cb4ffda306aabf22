"""Speed of differentiable linear programs at equal, checked accuracy: `python -m benchmarks.lp_layers`."""
