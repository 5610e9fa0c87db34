"""Conformance suites for dialects, an embedded PostgreSQL, and pytest fixtures."""

__version__ = "0.1.0"
