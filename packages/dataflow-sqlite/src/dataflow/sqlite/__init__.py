"""The SQLite dialect of DataFlow, on aiosqlite. Found by its entry point; nothing here needs to be imported by users."""

__version__ = "0.1.0"
