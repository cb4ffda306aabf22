"""Random problems with known solutions through every splitting and solver: what calls itself converged must be right."""
