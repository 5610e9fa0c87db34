"""The SQLite dialect of DataFlow, on aiosqlite; found by its entry point, never imported by users."""

__version__ = "0.1.0"
