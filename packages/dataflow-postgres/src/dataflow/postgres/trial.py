"""Tdd mode on PostgreSQL: what savepoints lack of transactions, and a schema of its own where nothing is there yet.

Two transactions cannot make tables of the same name in one schema without waiting for each other. So where a schema
has no tables, the transaction makes another one, which nobody else ever sees.
"""

import re
import secrets
from typing import TYPE_CHECKING

import attrs

from dataflow.config import Config
from dataflow.dialect import COUNT, Command, Database, Program
from dataflow.session import savepoint
from dataflow.trial import TrialDatabase

if TYPE_CHECKING:
    from dataflow.postgres.dialect import PostgreSQL

_CONCURRENTLY = re.compile(r"^((?:CREATE|DROP)(?: UNIQUE)? INDEX) CONCURRENTLY\b")
_CHECK = "SAVEPOINT df_check; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT df_check; RELEASE SAVEPOINT df_check"
"""Checks deferred constraints, as COMMIT does, and leaves them deferred."""
_EMPTY = """\
SELECT has_database_privilege(current_database(), 'CREATE') AND NOT EXISTS (
    SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
    AND relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
    )
)"""
"""Whether nothing is there, and a schema may be made. What belongs to an extension does not count."""
_LEAD = "SELECT set_config('search_path', quote_ident($1) || ', ' || current_setting('search_path'), true)"


class PostgresTrial(TrialDatabase):
    """The one connection of a DataFlow in tdd mode."""

    def __init__(self, dialect: "PostgreSQL", inner: Database, begin: Command, config: Config) -> None:
        super().__init__(inner, begin, config, aborts_on_error=True)
        self._dialect = dialect
        self._creates = config["auto_migrate"] and not config["existing_schema_mode"]

    def prepare(self) -> Program[None]:
        if not self._creates or not (yield Command(_EMPTY), ())[0][0]:
            return
        name = f"dataflow_tdd_{secrets.token_hex(8)}"
        yield Command(f"CREATE SCHEMA {self._dialect.quote(name)}", COUNT, writes=True), ()
        yield Command(_LEAD), (name,)
        self._dialect.schema, self._dialect.alone = name, True

    def begun(self, begin: Command, name: str) -> Command:
        plain = savepoint(name)[0]
        if "READ ONLY" not in begin.sql:
            return plain
        return Command(f"{plain.sql}; SET TRANSACTION READ ONLY", COUNT)  # lasts as long as the savepoint

    def kept(self, name: str) -> Command:
        return Command(f"{_CHECK}; RELEASE SAVEPOINT {name}", COUNT)

    def instead(self, command: Command) -> Command:
        plain = _CONCURRENTLY.sub(r"\1", command.sql) if command.writes and not command.named else command.sql
        return command if plain == command.sql else attrs.evolve(command, sql=plain)
