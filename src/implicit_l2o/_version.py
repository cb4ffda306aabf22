"""The version, stated here alone: the build reads it from this file. What its parts promise: docs/versions.md."""

__version__ = "0.1.0"
