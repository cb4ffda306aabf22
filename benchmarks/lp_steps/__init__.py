"""Which step of Davis-Yin needs the fewest iterations: `python -m benchmarks.lp_steps`."""
