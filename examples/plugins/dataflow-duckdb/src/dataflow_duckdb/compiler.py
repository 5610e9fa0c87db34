"""DuckDB for SQLAlchemy's compiler: PostgreSQL's SQL, with DuckDB's names of types and numbered parameters."""

from typing import Any

from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql.base import PGDialect


class DuckDBDialect(PGDialect):
    """Compiles statements; it is never connected."""

    name = "duckdb"
    default_paramstyle = "numeric_dollar"
    supports_statement_cache = True

    def __init__(self) -> None:
        super().__init__(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
        self._backslash_escapes = False  # what SQLAlchemy finds out when it connects


class Named(sqltypes.UserDefinedType[Any]):
    """A column type by its name in DuckDB."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **_: Any) -> str:
        """Return how DuckDB writes it."""
        return self.text
