"""The entrance: what migration engines call on PostgreSQL."""

import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

from dataflow.catalog import Catalog
from dataflow.changes import Change, Step
from dataflow.dialect import COUNT, Command, Dialect, Program
from dataflow.postgres.migration import aside, catalog, queries, rights, running
from dataflow.postgres.migration.draft import Server
from dataflow.postgres.migration.names import Given, Place
from dataflow.postgres.migration.scripts import script
from dataflow.postgres.migration.steps import steps
from dataflow.postgres.standing import STANDS, WAIT
from dataflow.session import ROLLBACK

T = TypeVar("T")
_BEGIN = Command("BEGIN", COUNT)
_SAVEPOINT = Command("SAVEPOINT dataflow_shadow", COUNT)
_BACK = Command("ROLLBACK TO SAVEPOINT dataflow_shadow", COUNT), Command("RELEASE SAVEPOINT dataflow_shadow", COUNT)
_PATH = """\
SELECT set_config('search_path', concat_ws(', ', quote_ident($1), string_agg(quote_ident(name), ', ' ORDER BY place)),
                  true)
FROM unnest(current_schemas(false)) WITH ORDINALITY AS listed (name, place)"""


class PostgresEditor:
    """Reads and changes schemas of PostgreSQL 15 and later.

    Args:
        dialect: quotes identifiers.

    Attributes:
        whole: False: large tables are changed in several transactions, so that nobody waits for long.
        server: what `inspect` has found the server to be; steps suit the oldest one until then.
    """

    whole = False

    def __init__(self, dialect: Dialect) -> None:
        self.quote = dialect.quote
        self.server = Server()

    def inspect(self) -> Program[Catalog]:
        return (yield from running.snapshot(self._inspected()))

    def _inspected(self) -> Program[Catalog]:
        ((version, domains),) = yield Command(queries.SERVER), ()
        given: dict[Place, tuple[Given, ...]] = {}
        for table, column, label, name in (yield Command(queries.GIVEN), ()):
            given[table, column] = (*given.get((table, column), ()), Given(label, name))
        self.server = Server(version, frozenset(domains), given, (yield from rights.read()))
        return (yield from catalog.inspect(self.quote))

    def desired(self, build: Program[None]) -> Program[Catalog]:
        """Build in a schema of its own, within a transaction that is undone."""
        name = f"dataflow_shadow_{secrets.token_hex(8)}"
        open_already = yield STANDS, ()
        yield _SAVEPOINT if open_already else _BEGIN, ()
        try:
            yield from self._enter(name)
            yield from build
            found = yield from catalog.inspect(self.quote)
        except GeneratorExit:
            raise
        except BaseException:
            for command in _BACK if open_already else (ROLLBACK,):
                yield command, ()
            raise
        for command in _BACK if open_already else (ROLLBACK,):
            yield command, ()
        return found

    def _enter(self, name: str) -> Program[None]:
        yield from aside.refuse_without_right("the models' schema is built aside, in a schema of its own")
        yield Command(f"CREATE SCHEMA {self.quote(name)}", COUNT, writes=True), ()
        yield Command(_PATH), (name,)

    def steps(self, found: Catalog, wanted: Catalog, changes: Sequence[Change]) -> list[Step]:
        return steps(found, wanted, changes, quote=self.quote, server=self.server)

    def locked(self, body: Program[T], *, timeout: float) -> Program[T]:
        return running.locked(body, timeout=timeout)

    def clear(self, steps: Sequence[Step]) -> Program[None]:
        return aside.clear(steps, self.quote)

    def backup(self, tables: Sequence[str]) -> Program[str]:
        return aside.backup(tables, self.quote)

    def attempt(
        self, body: Program[T], *, lock_timeout: float, statement_timeout: float, transaction: bool
    ) -> Program[T]:
        return running.attempt(
            body, lock_timeout=lock_timeout, statement_timeout=statement_timeout, transaction=transaction
        )

    def pause(self, seconds: float) -> Program[None]:
        yield WAIT, (seconds,)

    def perform(self, step: Step) -> Program[None]:
        return running.perform(step, self.quote)

    def batch(self, step: Step, cursor: Any) -> Program[tuple[int, Any]]:
        return running.batch(step, cursor, self.quote)

    def rehearse(self, body: Program[T]) -> Program[T | None]:
        """Do nothing: a copy of the schema cannot be made aside."""
        body.close()
        yield from ()
        return None

    def script(self, steps: Sequence[Step], *, before: Sequence[str] = (), after: Sequence[str] = ()) -> str:
        return script(steps, self.quote, before=before, after=after)
