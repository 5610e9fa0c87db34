"""Statements that must not write: the database refuses them, whatever they say, and nothing is left of the seal."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.dialect import COUNT, ROWS, Command, Program
from dataflow.errors import DatabaseError, QueryError, UsageError
from dataflow.session import Call, atomic
from dataflow.testing.conformance.bench import Bench, keys_of
from dataflow.testing.conformance.guarding import GuardPlugin, Telling
from dataflow.testing.conformance.suite import Suite, requires

WRITES = {
    "insert": "INSERT INTO sealed_rows (n) VALUES (3)",
    "update": "UPDATE sealed_rows SET n = 7",
    "update of nothing": "UPDATE sealed_rows SET n = 7 WHERE n = 4711",
    "delete": "DELETE FROM sealed_rows",
    "insert behind a with": "WITH more AS (SELECT 3 AS n) INSERT INTO sealed_rows (n) SELECT n FROM more",
    "create": "CREATE TABLE sealed_more (n INTEGER)",
    "drop": "DROP TABLE sealed_rows",
}
"""Statements that write."""
READS = "SELECT n FROM sealed_rows ORDER BY n"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def command(sql: str, *, named: bool) -> Command:
    """Return a statement as the framework sends it, or as one of the user's own."""
    if named:
        return Command(sql, named=True)
    reads = sql.startswith("SELECT")
    return Command(sql, ROWS if reads else COUNT, writes=not reads)


@requires("read_only")
class TestReadOnly(Suite):
    """A sealed statement cannot write (`Dialect.sealed`)."""

    conformance_area: ClassVar[str] = "read-only"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Row:
            n: int
            __tablename__ = "sealed_rows"
            __dataflow__: ClassVar = {"timestamps": False}

    @classmethod
    def settings(cls) -> Mapping[str, Any]:
        return {"plugins": [GuardPlugin(Telling(needed=False))]}

    @pytest.fixture(params=["framework's", "user's"])
    def named(self, request: pytest.FixtureRequest) -> bool:
        """Whether a statement is one of the user's own."""
        return bool(request.param == "user's")

    @pytest.fixture
    def rows(self, bench: Bench, clean: None) -> None:
        """Two rows."""
        del clean
        bench.bulk_create("Row", [{"n": 1}, {"n": 2}])

    @staticmethod
    def sealed(call: Call, sql: str, *, named: bool = False) -> Program[Any]:
        """Send a statement under seal."""
        return (yield from call.core.dialect.sealed(call.session, (command(sql, named=named), ())))

    def refused(self, call: Call, sql: str, *, named: bool = False) -> Program[None]:
        """Send a statement under seal, which has to be refused."""
        depth = call.session.depth
        with pytest.raises(DatabaseError) as caught:
            yield from self.sealed(call, sql, named=named)
        assert caught.value.code == "read-only", caught.value
        assert call.session.depth == depth

    @staticmethod
    def numbers(bench: Bench) -> list[int]:
        """Return what the table holds."""
        return sorted(keys_of(bench.list("Row"), "n"))

    @pytest.mark.parametrize("sql", WRITES.values(), ids=WRITES)
    def test_a_statement_that_writes_is_refused(self, calls: Bench, rows: None, sql: str, *, named: bool) -> None:
        calls.program(lambda call: self.refused(call, sql, named=named))
        assert self.numbers(calls) == [1, 2]
        assert "sealed_more" not in calls.db.show_tables()

    def test_a_statement_that_reads_gets_its_reply(self, calls: Bench, rows: None, *, named: bool) -> None:
        def work(call: Call) -> Program[Any]:
            depth = call.session.depth
            reply = yield from self.sealed(call, READS, named=named)
            assert call.session.depth == depth
            return reply

        reply = calls.program(work, write=False)
        found = reply[1] if named else reply
        assert [tuple(row) for row in found] == [(1,), (2,)]
        if named:
            assert list(reply[0]) == ["n"]

    def test_the_connection_writes_again_afterwards(self, calls: Bench, rows: None, *, named: bool) -> None:
        def work(call: Call) -> Program[None]:
            for sql in (READS, WRITES["delete"], READS):
                if sql == READS:
                    yield from self.sealed(call, sql, named=named)
                else:
                    yield from self.refused(call, sql, named=named)
                yield command(WRITES["insert"], named=named), ()

        calls.program(work)
        assert self.numbers(calls) == [1, 2, 3, 3, 3]

    def test_another_error_is_told_as_it_is_and_lifts_the_seal(self, calls: Bench, rows: None, *, named: bool) -> None:
        def work(call: Call) -> Program[None]:
            with pytest.raises(QueryError) as caught:
                yield from self.sealed(call, "SELECT n FROM sealed_nowhere", named=named)
            assert caught.value.code == "no-such-name"
            yield command(WRITES["insert"], named=named), ()

        calls.program(work)
        assert self.numbers(calls) == [1, 2, 3]

    @requires("savepoints")
    def test_a_transaction_goes_on_after_a_refusal_and_keeps_its_work(
        self, calls: Bench, rows: None, *, named: bool
    ) -> None:
        def body(call: Call) -> Program[Any]:
            yield command(WRITES["insert"], named=named), ()
            yield from self.refused(call, WRITES["delete"], named=named)
            found = yield from self.sealed(call, READS)
            yield command("INSERT INTO sealed_rows (n) VALUES (4)", named=named), ()
            return [row[0] for row in found]

        assert calls.program(lambda call: atomic(call, body(call))) == [1, 2, 3]
        assert self.numbers(calls) == [1, 2, 3, 4]

    def test_a_transaction_that_was_sealed_can_be_undone(self, calls: Bench, rows: None) -> None:
        def body(call: Call) -> Program[None]:
            yield command(WRITES["insert"], named=False), ()
            yield from self.sealed(call, READS)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            calls.program(lambda call: atomic(call, body(call)))
        assert self.numbers(calls) == [1, 2]
        calls.step(WRITES["insert"], returns=COUNT)
        assert self.numbers(calls) == [1, 2, 3]

    @requires("interrupts")
    def test_a_sealed_statement_that_is_cancelled_leaves_the_connection_fit(self, bench: Bench, rows: None) -> None:
        async def work() -> None:
            call = Call(bench.db.core)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await bench.db.core.run(self.sealed(call, ENDLESS), call, write=True, holder="conformance")

        bench.await_(work())
        bench.create("Row", {"n": 3})
        assert self.numbers(bench) == [1, 2, 3]

    def test_a_guard_seals_what_models_and_sql_send(self, calls: Bench, rows: None) -> None:
        (guard,) = (found for found in calls.db.core.all_guards if isinstance(found, Telling))
        guard.refusing = lambda: UsageError("nothing is written today", hint="wait", code="sealed")
        writes: list[Callable[[], Any]] = [
            lambda: calls.create("Row", {"n": 3}),
            lambda: calls.bulk_create("Row", [{"n": 3}, {"n": 4}]),
            lambda: calls.bulk_delete("Row", filter={}, confirmed=True),
            lambda: calls.sql(WRITES["update"]),
        ]
        try:
            for write in writes:
                with pytest.raises(UsageError) as caught:
                    write()
                assert caught.value.code == "sealed"
            assert self.numbers(calls) == [1, 2]
        finally:
            guard.refusing = None
        calls.create("Row", {"n": 3})
        assert self.numbers(calls) == [1, 2, 3]


class TestShield(Suite):
    """Changes of a statement that somebody may deny (`Dialect.shielded`): not every database can ask."""

    conformance_area: ClassVar[str] = "read-only"

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Door:
            n: int
            __tablename__ = "shielded_doors"
            __dataflow__: ClassVar = {"timestamps": False}

    @staticmethod
    def shielded(call: Call, sql: str, denies: Callable[[str, str, str], bool]) -> Program[Any]:
        """Send SQL of the user's own behind a shield."""
        step = (Command(sql, named=True), ())
        return (yield from call.core.dialect.shielded(call.session, step, denies))

    def test_what_is_not_denied_is_done(self, calls: Bench) -> None:
        calls.create("Door", {"n": 1})
        asked: list[tuple[str, str, str]] = []

        def allow(*change: str) -> bool:
            asked.append(change)  # type: ignore[arg-type]
            return False

        calls.program(lambda call: self.shielded(call, "UPDATE shielded_doors SET n = 2", allow))
        _, rows, _ = calls.program(lambda call: self.shielded(call, "SELECT n FROM shielded_doors", allow))
        assert [tuple(row) for row in rows] == [(2,)]
        assert set(asked) <= {("update", "shielded_doors", "n")}

    @pytest.mark.parametrize(
        ("sql", "change"),
        [
            ("INSERT INTO shielded_doors (n) VALUES (2)", ("create", "shielded_doors")),
            ("UPDATE shielded_doors SET n = 2", ("update", "shielded_doors")),
            ("DELETE FROM shielded_doors", ("delete", "shielded_doors")),
        ],
    )
    def test_what_is_denied_is_not_done_where_the_database_asks(
        self, calls: Bench, sql: str, change: tuple[str, str]
    ) -> None:
        calls.create("Door", {"n": 1})
        asked = []

        def deny(effect: str, table: str, column: str) -> bool:
            del column
            asked.append((effect, table))
            return True

        code = ""
        try:
            calls.program(lambda call: self.shielded(call, sql, deny))
        except DatabaseError as error:
            code = error.code
        if not asked:
            assert code == ""
            return
        assert (code, change in asked) == ("denied", True)
        assert keys_of(calls.list("Door"), "n") == [1]

    def test_nobody_is_asked_after_the_statement(self, calls: Bench) -> None:
        def deny(*change: str) -> bool:
            del change
            return True

        def work(call: Call) -> Program[None]:
            for sql in ("DELETE FROM shielded_doors", "DELETE FROM shielded_nowhere"):
                with suppress(DatabaseError):
                    yield from self.shielded(call, sql, deny)
                yield Command("INSERT INTO shielded_doors (n) VALUES (5)", named=True), ()

        calls.count("Door")
        calls.program(work)
        assert keys_of(calls.list("Door"), "n") == [5, 5]
