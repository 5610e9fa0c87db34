"""Tenancy, soft delete, versioning, audit and write protection; found by its entry point."""

__version__ = "0.1.0"
