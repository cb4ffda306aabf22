"""A layer behind HTTP: JSON in, answers with their certificates out."""
