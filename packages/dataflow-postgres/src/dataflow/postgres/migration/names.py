"""Names of what migrations keep in the schema for a while."""

from zlib import crc32


def not_null_check(table: str, column: str) -> str:
    """Return the name of the check that proves a column to be filled before it is declared so."""
    return f"dataflow_notnull_{crc32(f'{table}.{column}'.encode()):08x}"
