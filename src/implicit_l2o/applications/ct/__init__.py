"""Computed tomography: reconstructions that keep hard constraints, with certificates."""
