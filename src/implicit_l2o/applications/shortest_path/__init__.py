"""Shortest paths on a grid from contexts alone, learned from solutions: the first main job."""
