"""SQL of the user's own: AsyncSQLDatabaseNode, `run_custom_query`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow import _loop, sqltext
from dataflow.dialect import ROWS, Command, Program
from dataflow.errors import InputError, QueryError, suggest
from dataflow.session import Call, atomic
from dataflow.types import ValueRefused

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow

FETCH_MODES = ("all", "one", "value", "none")


def sql_program(
    core: "Core", call: Call, sql: Any, params: Any, *, fetch_mode: str, validate: bool
) -> tuple[Program[dict[str, Any]], bool]:
    """Return (program, whether it writes) for a text of SQL.

    Raises:
        InputError: the text, its placeholders or the fetch mode are wrong, or validation refuses it.
    """
    if not isinstance(sql, str):
        msg = f"the query is a str, got {type(sql).__name__}"
        raise InputError(msg, hint="write SQL text", code="bad-query")
    if fetch_mode not in FETCH_MODES:
        msg = f"fetch_mode cannot be {fetch_mode!r}"
        raise InputError(msg, hint=f"choose one of {', '.join(FETCH_MODES)}", code="bad-parameter")
    statements = sqltext.parse(sql)
    if validate:
        _validate(statements)
    for guard in core.guards:
        guard.sql(core, call.ambient, statements)
    if len(statements) > 1 and params:
        msg = "params go with one statement, and the query has several"
        raise InputError(msg, hint="send the statements one by one", code="bad-params")
    commands = []
    for statement in statements:
        try:
            text, arguments = sqltext.bind(statement, params, core.dialect.encode_any, core.dialect.placeholder)
        except ValueRefused as refused:
            raise InputError(f"params: {refused.message}", hint=refused.hint, code="bad-params") from None
        commands.append((Command(text, ROWS, statement.writes, named=True), arguments))
    writes = any(statement.writes for statement in statements)
    body = _run(commands, fetch_mode)
    words = {word for statement in statements for word in statement.words}
    waiting = [m.name for m in core.models.values() if not m.ready and m.spec.table.upper() in words]
    if waiting:
        body = _explained(body, waiting[0])
    return (atomic(call, body) if len(commands) > 1 else body), writes


def _validate(statements: tuple[sqltext.Statement, ...]) -> None:
    if len(statements) > 1:
        msg = f"the query has {len(statements)} statements"
        raise InputError(msg, hint="send one at a time, or pass validate_queries=False", code="refused-query")
    if statements[0].defines:
        verb = statements[0].verb
        msg = f"validate_queries refuses {verb or 'this'} statements"
        close = None if verb in sqltext.DEFINITIONS else suggest(verb, ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))
        hint = f"did you mean {close}?" if close else "pass validate_queries=False to run DDL on purpose"
        raise InputError(msg, hint=hint, code="refused-query")


def _run(commands: list[tuple[Command, list[Any]]], fetch_mode: str) -> Program[dict[str, Any]]:
    names: list[str] = []
    rows: list[Any] = []
    count = 0
    for command, arguments in commands:
        names, rows, count = yield command, arguments
    total = len(rows) if names else max(count, 0)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    data: Any = records
    if fetch_mode == "none":
        data = []
    elif fetch_mode == "one":
        data = records[0] if records else None
    elif fetch_mode == "value":
        data = rows[0][0] if rows else None
    return {"data": data, "row_count": total}


def _explained(body: Program[dict[str, Any]], model: str) -> Program[dict[str, Any]]:
    """Say why the table of a model is not there."""
    try:
        return (yield from body)
    except QueryError as error:
        if error.code == "no-such-name":
            error.hint = f"the table comes with the first node of {model} that runs, or with await db.initialize()"
        raise


def run_sql(db: "DataFlow", sql: str, params: Any) -> dict[str, Any]:
    """Run one statement synchronously, in the run's open transaction if there is one."""
    core = db.core
    call = Call(core)
    program, writes = sql_program(core, call, sql, params, fetch_mode="all", validate=True)
    if core.database.blocking:
        return core.run_blocking(program, call, write=writes, holder="run_custom_query")
    return _loop.run(core.run(program, call, write=writes, holder="run_custom_query"))


class SQLNode:
    """AsyncSQLDatabaseNode: SQL of the user's own on one database."""

    name = "sql"
    writes = True

    def __init__(self, core: "Core") -> None:
        self.core = core

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        """Return the program; its result is ``{"result": {"data": …, "row_count": n}}``."""
        fetch_mode = params.get("fetch_mode", "all")
        validate = params.get("validate_queries", True)
        if not isinstance(validate, bool):
            msg = f"validate_queries takes True or False, got {type(validate).__name__}"
            raise InputError(msg, hint="leave it out for True", code="bad-parameter")
        if "query" not in params:
            msg = "the query is missing"
            raise InputError(msg, hint="give query='SELECT …'", code="bad-query")
        body, _ = sql_program(
            self.core, call, params["query"], params.get("params"), fetch_mode=fetch_mode, validate=validate
        )
        return {"result": (yield from body)}


__all__ = ["SQLNode", "run_sql", "sql_program"]
