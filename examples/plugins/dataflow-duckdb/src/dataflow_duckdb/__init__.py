"""A DuckDB dialect for DataFlow: ``DataFlow("duckdb:///shop.duckdb")``."""
