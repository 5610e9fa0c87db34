"""What connections know of the calls they serve: tenant, actor, run and node, never those of another call."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.dialect import Command, Program
from dataflow.errors import ConfigurationError, UniqueError
from dataflow.session import Call, atomic
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.guarding import GuardPlugin, Telling
from dataflow.testing.conformance.suite import Suite, requires

ODD = ("o'hara\"; DROP TABLE x; --", "ä🦁\n\\ $1 :name %s ?", "x" * 3000, " ", "NULL")
"""Names that are no SQL."""


@requires("context")
class TestContext(Suite):
    """Connections know the call they serve, whatever way it is made, and never another."""

    conformance_area: ClassVar[str] = "context"

    @classmethod
    def settings(cls) -> Mapping[str, Any]:
        return {"plugins": [GuardPlugin(Telling())]}

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Act:
            name: str
            __tablename__ = "context_acts"
            __indexes__: ClassVar = [{"name": "uq_context_acts", "fields": ["name"], "unique": True}]

    @pytest.fixture
    def guard(self, bench: Bench, clean: None) -> Telling:
        """The guard that tells, with nothing seen yet."""
        del clean
        (found,) = (guard for guard in bench.db.core.all_guards if isinstance(guard, Telling))
        found.seen.clear()
        return found

    @staticmethod
    def right(guard: Telling) -> set[str]:
        """Check that connections knew what they should when statements were sent; return the actors."""
        assert guard.seen
        for known, wanted in guard.seen:
            assert {name: known.get(name, "") for name in wanted} == wanted
        return {wanted["actor"] for _, wanted in guard.seen}

    def test_a_connection_knows_the_call_when_a_statement_is_sent(self, calls: Bench, guard: Telling) -> None:
        with calls.around(actor="ada", tenant="acme"):
            calls.create("Act", {"name": "a"})
            calls.list("Act")
        assert self.right(guard) == {"ada"}
        assert all(known["tenant"] == "acme" for known, _ in guard.seen)

    def test_the_next_call_is_not_taken_for_the_one_before(self, calls: Bench, guard: Telling) -> None:
        for actor in ("ada", "", "bob", ""):
            with calls.around(**({"actor": actor} if actor else {})):
                calls.create("Act", {"name": actor or str(len(guard.seen))})
        assert self.right(guard) == {"ada", "", "bob"}

    def test_run_and_node_are_told(self, calls: Bench, guard: Telling) -> None:
        new = calls.workflow().add_node("ActCreateNode", "first", {"name": "a"})
        calls.run(new.add_node("ActListNode", "second"))
        self.right(guard)
        assert {known["node"] for known, _ in guard.seen if known["node"]} == {"first", "second"}
        assert len({known["run"] for known, _ in guard.seen if known["node"]}) == 1
        assert all(known["run"] for known, _ in guard.seen if known["node"])

    @requires("raw_sql")
    def test_sql_of_ones_own_is_told_of_as_well(self, calls: Bench, guard: Telling) -> None:
        calls.count("Act")
        with calls.around(actor="ada"):
            calls.sql("INSERT INTO context_acts (name) VALUES ('a')")
        calls.sql("SELECT name FROM context_acts")
        assert {"ada", ""} <= self.right(guard)

    def test_after_a_call_that_failed_the_next_is_told_anew(self, calls: Bench, guard: Telling) -> None:
        calls.create("Act", {"name": "taken"})
        with calls.around(actor="ada"), pytest.raises(UniqueError):
            calls.create("Act", {"name": "taken"})
        calls.create("Act", {"name": "a"})
        with calls.around(actor="ada"):
            calls.create("Act", {"name": "b"})
        assert self.right(guard) == {"ada", ""}

    @requires("savepoints")
    def test_after_a_transaction_that_was_undone_the_next_is_told_anew(self, calls: Bench, guard: Telling) -> None:
        calls.create("Act", {"name": "taken"})
        for name in ("taken", "a"):
            new = calls.workflow().add_node("TransactionScopeNode", "scope").add_node("ActCountNode", "count")
            new.add_node("ActCreateNode", "create", {"name": name})
            with calls.around(actor="ada"):
                if name == "taken":
                    with pytest.raises(UniqueError):
                        calls.execute(new)
                else:
                    calls.execute(new)
            calls.count("Act")
        assert self.right(guard) == {"ada", ""}

    def test_calls_at_the_same_time_are_told_apart(self, bench: Bench, guard: Telling) -> None:
        async def act(name: str) -> None:
            with bench.around(actor=name, tenant=name):
                for _ in range(3):
                    await bench.db.express.list("Act")
                await bench.db.express.create("Act", {"name": name})

        async def everybody() -> None:
            await asyncio.gather(*(act(f"actor {number}") for number in range(12)))

        bench.await_(everybody())
        assert self.right(guard) == {f"actor {number}" for number in range(12)}


@requires("context")
class TestEnter(Suite):
    """A connection is told of a call (`Dialect.enter`, `Session.context`)."""

    conformance_area: ClassVar[str] = "context"

    @staticmethod
    def entered(call: Call, *contexts: Mapping[str, str]) -> Program[dict[str, str]]:
        """Enter contexts one after the other; return what the connection knows then."""
        for context in contexts:
            yield from call.core.dialect.enter(call.session, context)
        assert [tuple(row) for row in (yield Command("SELECT 1"), ())] == [(1,)]
        return {name: value for name, value in call.session.context.items() if value}

    def test_what_is_not_named_stays_as_it_was(self, calls: Bench) -> None:
        whole = {"tenant": "t", "actor": "a", "run": "r", "node": "n"}
        known = calls.program(lambda call: self.entered(call, whole, {"actor": "b", "node": ""}))
        assert known == {"tenant": "t", "actor": "b", "run": "r"}

    @pytest.mark.parametrize("name", ODD, ids=("sql", "letters", "long", "space", "null"))
    def test_names_may_be_any_text(self, calls: Bench, name: str) -> None:
        context = {"tenant": name, "actor": name, "run": name, "node": name}
        assert calls.program(lambda call: self.entered(call, context)) == context

    def test_a_connection_knows_it_inside_a_transaction(self, calls: Bench) -> None:
        def work(call: Call) -> Program[Any]:
            before = yield from self.entered(call, {"tenant": "t", "actor": "a", "run": "", "node": ""})
            after = yield from atomic(call, self.entered(call, {"actor": "b"}, {"actor": "c"}))
            return before, after

        assert calls.program(work) == ({"tenant": "t", "actor": "a"}, {"tenant": "t", "actor": "c"})

    def test_connections_know_nothing_else(self, calls: Bench) -> None:
        calls.program(lambda call: self.entered(call, {"tenant": "t"}))
        with pytest.raises(ConfigurationError) as caught:
            calls.program(lambda call: self.entered(call, {"tenant": "t", "colour": "red"}))
        assert caught.value.code == "bad-parameter"
        assert "colour" in caught.value.message
