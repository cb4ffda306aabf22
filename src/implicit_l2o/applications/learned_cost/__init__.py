"""Learn an unknown convex cost on a polytope from observed decisions: equation (1) in full."""
