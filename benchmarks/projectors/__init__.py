"""Speed of parallel-beam projectors and of their adjoints: `python -m benchmarks.projectors`."""
