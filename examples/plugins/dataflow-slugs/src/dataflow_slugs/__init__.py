"""Slugs for DataFlow models: a plugin as a stranger writes it, with public names only."""

__version__ = "0.1.0"
