"""One module a target: its seeds, its contract, and how an input is read."""
