"""What the tests share: one thread for DuckDB, as their tables have a few rows each."""

import os

os.environ.setdefault("DATAFLOW_DUCKDB_THREADS", "1")
