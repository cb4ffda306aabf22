"""Bridges to other packages, each in a module of its own; the other package is imported when a bridge is used."""
