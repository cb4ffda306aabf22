"""CVXPY layers side by side: ours, cvxpylayers with its backends, on twelve standard problems."""
