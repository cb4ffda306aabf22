"""Measurements behind the tables, each `python -m benchmarks.NAME`."""
