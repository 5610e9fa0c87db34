"""The PostgreSQL dialect of DataFlow, on asyncpg; found by its entry point, never imported by users."""

__version__ = "0.1.0"
