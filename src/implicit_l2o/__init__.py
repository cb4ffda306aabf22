"""Learning to optimize with implicit networks."""
