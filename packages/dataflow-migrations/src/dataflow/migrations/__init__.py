"""Schema differences, plans and their safe execution; found by its entry point."""

__version__ = "0.1.0"
