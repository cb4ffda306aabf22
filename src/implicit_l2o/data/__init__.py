"""Data sets: generators and loaders, one module a data set."""
