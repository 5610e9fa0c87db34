"""SQLAlchemy's compiler, for connections on which temporary views have the names of tables.

Where a statement names a table it says `main."orders"`; columns stay `"orders"."id"`, and so does what SQLite forbids
to qualify (CREATE INDEX … ON, REFERENCES).
"""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteIdentifierPreparer
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite


class _Preparer(SQLiteIdentifierPreparer):
    def format_table(self, table: Any, use_schema: bool = True, name: str | None = None) -> str:  # noqa: FBT001, FBT002
        text = super().format_table(table, use_schema, name)
        return f"main.{text}" if use_schema else text


class _Compiler(SQLiteCompiler):
    def visit_table(self, table: Any, *more: Any, **options: Any) -> Any:
        text = super().visit_table(table, *more, **options)  # type: ignore[no-untyped-call]
        stored = isinstance(table, Table)  # not a name that stands for a CTE
        return f"main.{text}" if stored and options.get("asfrom") else text


class ExactDialect(SQLiteDialect_pysqlite):
    """Compiles statements that mean the file's tables, whatever temporary views there are."""

    supports_statement_cache = True
    preparer = _Preparer
    statement_compiler = _Compiler


__all__ = ["ExactDialect"]
