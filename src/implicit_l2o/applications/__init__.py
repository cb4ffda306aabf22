"""Applications: one package a task, on the public names of `implicit_l2o` alone."""
