"""Confinement: SQL of the user's own stays within its tenant, because the database keeps it there."""

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import pytest

from dataflow import DataFlow
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import DataFlowError
from dataflow.session import Call
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.guarding import Asking, Confining, GuardPlugin, extra
from dataflow.testing.conformance.suite import Suite, requires

TENANTS = ("acme", "o'hara\"; --", "Ä🦁")
"""Each has two notes; the numbers of the first begin with 1, those of the second with 2 …"""


def enclosed(scope: str) -> Asking:
    """Return the feature that lets the database keep a model within a scope; "": open to everybody."""
    wanted = extra(lambda dialect, spec: dialect.enclosed(spec), lambda dialect, spec: dialect.enclose(spec))
    return Asking(wanted, scope)


@requires("confinement", "context")
class TestConfinement(Suite):
    """Connections are kept within a tenant (`Database.confine`, `Dialect.enclose`)."""

    conformance_area: ClassVar[str] = "confinement"

    @pytest.fixture(scope="class")
    @classmethod
    def confined(cls, bench: Bench, database_url: str) -> Iterator[Bench]:
        """A DataFlow whose connections are confined, with notes of three tenants."""

        def declare(db: DataFlow) -> None:
            @db.model
            class Note:
                owner: str
                n: int
                text: str = ""
                __tablename__ = "confined_notes"
                __dataflow__: ClassVar = {"timestamps": False, "conformance": ["owner"]}

            @db.model
            class Shared:
                n: int
                __tablename__ = "confined_shared"
                __dataflow__: ClassVar = {"timestamps": False, "conformance": [""]}

        plugin = GuardPlugin(Confining(), lambda wanted: enclosed(wanted[0]))
        found = Bench(database_url, bench.await_, declare, plugins=[plugin])
        try:
            found.declare()
            yield found
        finally:
            bench.await_(found.db.aclose())

    @pytest.fixture
    def notes(self, confined: Bench) -> Bench:
        """The same, with the notes as they were."""
        with confined.around(everybody="yes"):
            confined.clear("Note", "Shared")
            rows = [
                {"owner": tenant, "n": 10 * place + k, "text": f"{k}"}
                for place, tenant in enumerate(TENANTS, 1)
                for k in (1, 2)
            ]
            confined.bulk_create("Note", rows)
            confined.create("Shared", {"n": 1})
        return confined

    @pytest.fixture(params=TENANTS, ids=("plain", "quotes", "letters"))
    def tenant(self, request: pytest.FixtureRequest) -> str:
        """Each tenant."""
        return str(request.param)

    @staticmethod
    def own(tenant: str) -> list[int]:
        """Return the numbers of a tenant's notes."""
        place = TENANTS.index(tenant) + 1
        return [10 * place + 1, 10 * place + 2]

    @staticmethod
    def everything(notes: Bench) -> list[tuple[str, int]]:
        """Return what the table holds."""
        with notes.around(everybody="yes"):
            rows = notes.sql("SELECT owner, n FROM confined_notes ORDER BY n")
        return [(row["owner"], row["n"]) for row in rows]

    @staticmethod
    def numbers(notes: Bench, sql: str = "SELECT n FROM confined_notes ORDER BY n") -> list[int]:
        """Return what SQL of the user's own sees."""
        return [row["n"] for row in notes.sql(sql)]

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT n FROM confined_notes ORDER BY n",
            "SELECT n FROM confined_notes WHERE owner <> 'x' OR 1 = 1 ORDER BY n",
            "SELECT a.n FROM confined_notes a JOIN confined_notes b ON a.id = b.id ORDER BY a.n",
            "SELECT n FROM confined_shared WHERE n > 1 UNION ALL SELECT n FROM confined_notes ORDER BY n",
            "WITH w AS (SELECT n FROM confined_notes) SELECT w.n FROM w WHERE w.n IN (SELECT n FROM w) ORDER BY w.n",
        ],
        ids=("plain", "any condition", "join", "union", "with"),
    )
    def test_a_tenants_sql_sees_its_own_rows_only(self, notes: Bench, tenant: str, sql: str) -> None:
        with notes.around(tenant=tenant):
            assert self.numbers(notes, sql) == self.own(tenant)
            assert self.numbers(notes, "SELECT count(*) AS n FROM confined_notes") == [2]

    def test_sql_without_a_tenant_sees_no_rows_and_writes_none(self, notes: Bench) -> None:
        before = self.everything(notes)
        assert self.numbers(notes) == []
        for sql in (
            "UPDATE confined_notes SET n = 0",
            "DELETE FROM confined_notes",
            "INSERT INTO confined_notes (owner, n) VALUES ('acme', 7)",
        ):
            try:
                notes.sql(sql)
            except DataFlowError:
                continue
            assert not sql.startswith("INSERT"), "a row of a tenant was written without one"
        assert self.everything(notes) == before

    def test_changes_reach_a_tenants_own_rows_only(self, notes: Bench, tenant: str) -> None:
        others = [pair for pair in self.everything(notes) if pair[0] != tenant]
        with notes.around(tenant=tenant):
            notes.sql("UPDATE confined_notes SET n = n + 500")
            assert self.numbers(notes) == [n + 500 for n in self.own(tenant)]
            notes.sql("DELETE FROM confined_notes")
            assert self.numbers(notes) == []
        assert self.everything(notes) == others

    def test_a_row_that_is_written_is_its_tenants(self, notes: Bench, tenant: str) -> None:
        insert = "INSERT INTO confined_notes (owner, n) VALUES (:owner, :n)"
        with notes.around(tenant=tenant):
            notes.sql(insert, {"owner": tenant, "n": 77})
            for other in {*TENANTS, "nobody"} - {tenant}:
                with pytest.raises(DataFlowError):
                    notes.sql(insert, {"owner": other, "n": 78})
        written = [pair for pair in self.everything(notes) if pair[1] in (77, 78)]
        assert written == [(tenant, 77)]

    def test_a_row_cannot_be_given_away_or_taken(self, notes: Bench) -> None:
        before = self.everything(notes)
        with notes.around(tenant=TENANTS[0]):
            with pytest.raises(DataFlowError):
                notes.sql("UPDATE confined_notes SET owner = :owner", {"owner": TENANTS[1]})
            notes.sql("UPDATE confined_notes SET owner = 'acme' WHERE owner <> 'acme'")
        assert self.everything(notes) == before

    def test_definitions_are_refused(self, notes: Bench) -> None:
        before = self.everything(notes)
        with notes.around(tenant=TENANTS[0]):
            for sql in (
                "DROP TABLE confined_notes",
                "ALTER TABLE confined_notes ADD COLUMN more INTEGER",
                "CREATE VIEW confined_view AS SELECT * FROM confined_notes",
            ):
                with pytest.raises(DataFlowError):
                    notes.node("AsyncSQLDatabaseNode", {"query": sql, "validate_queries": False})
        assert self.everything(notes) == before

    def test_a_model_without_scope_is_everybodys(self, notes: Bench) -> None:
        for tenant in TENANTS[:2]:
            with notes.around(tenant=tenant):
                notes.sql("INSERT INTO confined_shared (n) VALUES (2)")
        with notes.around(tenant=TENANTS[2]):
            assert self.numbers(notes, "SELECT n FROM confined_shared ORDER BY n") == [1, 2, 2]

    def test_a_privileged_call_sees_all(self, notes: Bench) -> None:
        assert [n for _, n in self.everything(notes)] == [n for tenant in TENANTS for n in self.own(tenant)]
        with notes.around(everybody="yes"):
            notes.sql("UPDATE confined_notes SET n = n + 500")
        assert [n for _, n in self.everything(notes)] == [n + 500 for tenant in TENANTS for n in self.own(tenant)]

    def test_one_connection_after_the_other_serves_its_own_tenant(self, notes: Bench) -> None:
        for tenant in (*TENANTS, *reversed(TENANTS)):
            with notes.around(tenant=tenant):
                assert self.numbers(notes) == self.own(tenant)
                with pytest.raises(DataFlowError):
                    notes.sql("SELECT nothing FROM confined_notes")
            assert self.numbers(notes) == []
            assert len(self.everything(notes)) == 6

    def test_tenants_at_the_same_time_are_kept_apart(self, notes: Bench) -> None:
        async def look(tenant: str) -> list[int]:
            def body() -> Program[list[int]]:
                _, rows, _ = yield Command("SELECT n FROM confined_notes ORDER BY n", named=True), ()
                return [row[0] for row in rows]

            with notes.around(tenant=tenant):
                call = Call(notes.db.core)
                return await notes.db.core.run(body(), call, write=False, holder="conformance")

        async def everybody() -> list[list[int]]:
            return await asyncio.gather(*(look(tenant) for tenant in TENANTS * 8))

        assert notes.await_(everybody()) == [self.own(tenant) for tenant in TENANTS * 8]

    def test_a_transaction_stays_within_its_tenant(self, notes: Bench, tenant: str) -> None:
        new = notes.workflow().add_node("TransactionScopeNode", "scope")
        new.add_node("AsyncSQLDatabaseNode", "change", {"query": "UPDATE confined_notes SET n = n + 500"})
        new.add_node("AsyncSQLDatabaseNode", "look", {"query": "SELECT n FROM confined_notes ORDER BY n"})
        with notes.around(tenant=tenant):
            seen = notes.execute(new)["look"]["result"]["data"]
        assert [row["n"] for row in seen] == [n + 500 for n in self.own(tenant)]
        changed = [n - 500 for _, n in self.everything(notes) if n > 500]
        assert changed == self.own(tenant)

    def test_what_keeps_a_table_is_told_made_and_missed(self, notes: Bench) -> None:
        core = notes.db.core
        spec, shared = (core.models[name].spec for name in ("Note", "Shared"))
        bare = attrs.evolve(spec, name="Bare", table="confined_bare")
        columns = "owner VARCHAR(40) NOT NULL, id INTEGER NOT NULL, n INTEGER, PRIMARY KEY (owner, id)"
        create = f"CREATE TABLE confined_bare ({columns})"
        dialect = core.dialect

        def work(call: Call) -> Program[Any]:
            assert call.session.privileged
            yield Command(create, COUNT, writes=True), ()
            told = []
            for model in (spec, shared, bare):
                told.append((yield from dialect.enclosed(model)))
            found = yield from dialect.enforcement_problems([spec, shared])
            missed = yield from dialect.enforcement_problems([spec, bare])
            for _ in range(2):  # again does no harm
                yield from dialect.enclose(bare)
            told.append((yield from dialect.enclosed(bare)))
            left = yield from dialect.enforcement_problems([spec, bare])
            yield from dialect.enclose(attrs.evolve(bare, scope=()))
            yield Command("DROP TABLE confined_bare", COUNT, writes=True), ()
            return told, found, missed, left

        with notes.around(everybody="yes"):
            told, found, missed, left = notes.program(work)
        assert told == [True, True, False, True]
        assert (found, left) == ([], [])
        assert missed
        assert all("confined_bare" in problem for problem in missed)
