"""The change log: every change of a watched record is an entry that says what, and by whom, and that stays as it is."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar

import attrs
import pytest

from dataflow import DataFlow
from dataflow.changelog import change_log
from dataflow.dialect import COUNT, Command, Dialect, Program, refuse_unsupported
from dataflow.errors import DatabaseError, UniqueError
from dataflow.model import ModelSpec, SchemaExtra
from dataflow.session import Call, atomic
from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.guarding import Asking, GuardPlugin, Telling, extra
from dataflow.testing.conformance.suite import Suite, requires

SECRET = "Lovelace-4711"  # noqa: S105  # a value that no entry may hold
TEXTS = ("", "o'hara\"\\", "ä🦁\n\t", "{}", "***", "null")


def watching(masked: list[str]) -> SchemaExtra:
    """Return what makes the database write a table's changes to the log."""

    def present(dialect: Dialect, spec: ModelSpec) -> Program[bool]:
        return dialect.watched(spec, masked)

    def create(dialect: Dialect, spec: ModelSpec) -> Program[None]:
        return dialect.watch(spec, masked)

    return extra(present, create)


@attrs.frozen
class Entry:
    """One entry of the log, as it lies there."""

    seq: int
    at: str
    tbl: str
    record: str
    tenant: str | None
    actor: str
    run: str | None
    node: str | None
    action: str
    old: str | None
    new: str | None
    n: int
    hash: str
    chain: str


_TEXTS = [name for name in attrs.fields_dict(Entry) if name not in ("seq", "at", "n", "hash", "chain")]


@requires("change_log")
class TestChangeLog(Suite):
    """The database keeps a log of changes (`Dialect.watch`, `dataflow.changelog.ChangeLog`)."""

    conformance_area: ClassVar[str] = "change log"

    @classmethod
    def settings(cls) -> Mapping[str, Any]:
        return {"plugins": [GuardPlugin(Telling(needed=False), lambda masked: Asking(watching(masked)))]}

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        @db.model
        class Item:
            name: str
            n: int | None = None
            secret: str | None = None
            __tablename__ = "logged_items"
            __dataflow__: ClassVar = {"timestamps": False, "conformance": ["secret"]}
            __indexes__: ClassVar = [{"name": "uq_logged_items", "fields": ["name"], "unique": True}]

        @db.model
        class Pair:
            a: str
            b: str
            n: int = 0
            __tablename__ = "logged_pairs"
            __dataflow__: ClassVar = {"primary_key": ["a", "b"], "timestamps": False, "conformance": []}

        fields: dict[str, Any] = {f"c{number}": int | None for number in range(120)}
        options = {"timestamps": False, "conformance": ["c7"]}
        db.model(type("Broad", (), {
            "__annotations__": fields, "__tablename__": "logged_broads", "__dataflow__": options,
        }))  # fmt: skip

    # -- reading --------------------------------------------------------------------------------------------------
    @pytest.fixture
    def since(self, bench: Bench, clean: None) -> "Callable[..., list[Entry]]":
        """Returns the entries that the log got in this test, of a table."""
        del clean
        change_log(bench.db.core.dialect)  # or it is refused
        bench.count("Item")
        last = max((entry.seq for entry in self.entries(bench)), default=0)

        def read(table: str = "logged_items") -> list[Entry]:
            return [entry for entry in self.entries(bench) if entry.seq > last and entry.tbl == table]

        return read

    @pytest.fixture
    def told(self, bench: Bench) -> None:
        """Connections know of calls, or the test is refused."""
        refuse_unsupported(bench.db.core.dialect, "context")

    @staticmethod
    def entries(bench: Bench) -> list[Entry]:
        """Return all entries, in their order."""
        log = change_log(bench.db.core.dialect)

        def read(call: Call) -> Program[list[Entry]]:
            del call
            yield from log.log_complete()
            columns = f"seq, {log.log_at}, {', '.join(_TEXTS)}, n, hash, {log.log_chain}"
            rows = yield Command(f"SELECT {columns} FROM {log.log_source} ORDER BY seq"), ()
            return [Entry(*row) for row in rows]

        return bench.program(read)

    @staticmethod
    def values(bench: Bench, model: str, image: str | None) -> dict[str, Any] | None:
        """Return the values of an image as records show them."""
        if image is None:
            return None
        log, bound = change_log(bench.db.core.dialect), bench.db.core.models[model]
        found = {}
        for name, value in log.log_read(image).items():
            if name.startswith("$") or value is None or value == "***":
                found[name] = value
                continue
            of = bound.spec.fields[name].type
            convert, decode = log.log_value(of), bench.db.core.dialect.decoder(of)
            stored = value if convert is None else convert(value)
            found[name] = stored if decode is None else decode(stored)
        return found

    # -- what is written ------------------------------------------------------------------------------------------
    def test_a_change_is_an_entry_with_the_record_before_and_after(self, calls: Bench, since: Any) -> None:
        made = calls.create("Item", {"name": "a", "n": 1})
        calls.update("Item", made["id"], {"n": 2})
        calls.delete("Item", made["id"])
        entries = since()
        assert [entry.action for entry in entries] == ["insert", "update", "delete"]
        assert {entry.record for entry in entries} == {str(made["id"])}
        first, second = {**made}, {**made, "n": 2}
        images = [(self.values(calls, "Item", e.old), self.values(calls, "Item", e.new)) for e in entries]
        for old, new in images:
            for image in (old, new):
                (image or {}).pop("$secret", None)
        assert images == [(None, first), (first, second), (second, None)]

    def test_bulks_upserts_and_sql_of_ones_own_are_logged_row_by_row(self, calls: Bench, since: Any) -> None:
        calls.bulk_create("Item", [{"name": name, "n": 1} for name in "abc"])
        calls.upsert("Item", {"name": "a"}, {"name": "a", "n": 5}, conflict_on=["name"])
        calls.bulk_update("Item", filter={"n": 1}, update={"n": 2})
        calls.sql("UPDATE logged_items SET n = 9 WHERE n = 5")
        calls.sql("INSERT INTO logged_items (name) VALUES ('d')")
        calls.bulk_delete("Item", filter={"n": 2})
        actions = [entry.action for entry in since()]
        assert actions == ["insert"] * 3 + ["update"] * 4 + ["insert"] + ["delete"] * 2

    def test_a_change_that_changes_nothing_is_no_entry(self, calls: Bench, since: Any) -> None:
        made = calls.create("Item", {"name": "a", "n": 1})
        calls.update("Item", made["id"], {"n": 1})
        calls.sql("UPDATE logged_items SET name = name")
        calls.sql("DELETE FROM logged_items WHERE n = 4711")
        assert [entry.action for entry in since()] == ["insert"]

    def test_what_is_undone_leaves_no_entry(self, calls: Bench, since: Any) -> None:
        calls.create("Item", {"name": "taken"})
        with pytest.raises(UniqueError):
            calls.bulk_create("Item", [{"name": "a"}, {"name": "taken"}])
        new = calls.workflow().add_node("TransactionScopeNode", "scope")
        new.add_node("ItemCreateNode", "b", {"name": "b"}).add_node("ItemCreateNode", "again", {"name": "taken"})
        with pytest.raises(UniqueError):
            calls.execute(new)
        calls.create("Item", {"name": "c"})
        assert [self.values(calls, "Item", entry.new)["name"] for entry in since()] == ["taken", "c"]  # type: ignore[index]

    def test_masked_values_are_nowhere_and_their_change_is_told(self, calls: Bench, since: Any) -> None:
        made = calls.create("Item", {"name": "a", "secret": SECRET})
        for change in ({"secret": f"{SECRET}!"}, {"n": 1}, {"secret": None}):
            calls.update("Item", made["id"], change)
        calls.delete("Item", made["id"])
        entries = since()
        assert not [entry for entry in entries if SECRET in f"{entry.old}{entry.new}"]
        log = change_log(calls.db.core.dialect)
        updates = [log.log_read(entry.old) for entry in entries if entry.action == "update"]
        assert [bool(image["$secret"]) for image in updates] == [True, False, True]
        assert [self.values(calls, "Item", entry.new or entry.old)["secret"] for entry in entries] == [  # type: ignore[index]
            "***", "***", "***", None, None,
        ]  # fmt: skip

    def test_a_key_that_changes_is_the_end_of_one_record_and_the_begin_of_another(
        self, calls: Bench, since: Any
    ) -> None:
        calls.create("Pair", {"a": "x", "b": "y"})
        calls.sql("UPDATE logged_pairs SET a = 'z'")
        entries = since("logged_pairs")
        assert [entry.action for entry in entries if entry.action != "insert"] == ["delete"]
        assert sorted(entry.action for entry in entries) == ["delete", "insert", "insert"]
        assert len({entry.record for entry in entries}) == 2

    def test_no_two_keys_are_told_by_the_same_text(self, calls: Bench, since: Any) -> None:
        keys = [("1,2", "3"), ("1", "2,3"), ("", "1,2,3"), ("1:1", "2"), ("1", "1:2"), ("ä", "b"), ("a", "\u0308b")]
        calls.bulk_create("Pair", [{"a": a, "b": b} for a, b in keys])
        assert len({entry.record for entry in since("logged_pairs")}) == len(keys)

    def test_a_record_is_found_by_its_key(self, calls: Bench, since: Any) -> None:
        calls.bulk_create("Pair", [{"a": "1,2", "b": "3"}, {"a": "1", "b": "2,3"}])
        log, spec = change_log(calls.db.core.dialect), calls.db.core.models["Pair"].spec
        types = [spec.fields[name].type for name in ("a", "b")]
        places = [log.log_parameter(place, of) for place, of in enumerate(types, 1)]
        inner = f"SELECT {places[0]} AS c0, {places[1]} AS c1"
        key = log.log_key([(of, f"c{place}") for place, of in enumerate(types)])
        sql = f"SELECT seq FROM {log.log_source} WHERE record = (SELECT {key} FROM ({inner}) AS k)"

        rows = calls.step(f"{sql} ORDER BY seq DESC", ("1", "2,3"))
        assert rows[0][0] == since("logged_pairs")[-1].seq

    def test_members_of_images_are_found_by_sql_however_wide_the_table(self, calls: Bench, since: Any) -> None:
        made = calls.create("Broad", {f"c{number}": number for number in range(120)})
        calls.update("Broad", made["id"], {"c119": -1, "c7": 8})
        entry = since("logged_broads")[-1]
        log, spec = change_log(calls.db.core.dialect), calls.db.core.models["Broad"].spec
        places = {name: place for place, name in enumerate((*spec.fields, "$c7"))}
        chosen = ("c0", "c60", "c118", "c119", "$c7")
        members = ", ".join(log.log_member("old", name, places[name]) for name in chosen)
        sql = f"SELECT {members} FROM {log.log_source} WHERE seq = {int(entry.seq)}"
        (row,) = calls.step(sql)
        assert tuple(row[:4]) == ("0", "60", "118", "119")
        assert row[4] in ("1", "true")
        after = self.values(calls, "Broad", entry.new)
        assert after == {**made, "c119": -1, "c7": "***"}

    @pytest.mark.parametrize(
        ("annotation", "values"),
        [
            pytest.param(str, list(TEXTS), id="text"),
            pytest.param(int, [0, 2**63 - 1, -(2**63)], id="int", marks=requires("int64")),
            pytest.param(float, [0.1, -1e300, 5e-324, 700.0], id="float"),
            pytest.param(bool, [True, False], id="bool", marks=requires("bool")),
            pytest.param(bytes, [b"", b"\0\xff'"], id="bytes", marks=requires("bytes")),
            pytest.param(Decimal, [Decimal("1.10"), Decimal(10) ** 40], id="decimal", marks=requires("decimal")),
            pytest.param(
                datetime,
                [datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)],
                id="instant",
                marks=requires("instants"),
            ),
            pytest.param(date, [date(1, 1, 1), date(9999, 12, 31)], id="date", marks=requires("dates")),
            pytest.param(dict[str, Any], [{"a": [1, None, "x"]}, {}], id="json", marks=requires("json")),
            pytest.param(list[int], [[], [1, 2]], id="list", marks=requires("arrays")),
        ],
    )
    def test_images_hold_every_value_as_it_is(self, bench: Bench, since: Any, annotation: Any, values: Any) -> None:
        name = getattr(annotation, "__name__", "value")
        model, table = f"Logged{name.title()}", f"logged_{name}_values"
        if model not in bench.db.models:
            options = {"timestamps": False, "conformance": []}
            bench.register(model, {"value": annotation | None}, __tablename__=table, __dataflow__=options)
        stored = [bench.create(model, {"value": value})["value"] for value in (*values, None)]
        images = [self.values(bench, model, entry.new) for entry in since(table)]
        assert [image and image["value"] for image in images] == stored
        assert [type(image and image["value"]) for image in images] == [type(value) for value in stored]

    # -- by whom --------------------------------------------------------------------------------------------------
    @requires("context")
    def test_an_entry_names_who_made_the_change(self, calls: Bench, since: Any, told: None) -> None:
        with calls.around(actor="o'hara 🦁", tenant="acme"):
            calls.create("Item", {"name": "a"})
            calls.sql("UPDATE logged_items SET n = 1")
        calls.create("Item", {"name": "b"})
        found = [(entry.actor, entry.tenant) for entry in since()]
        assert found == [("o'hara 🦁", "acme"), ("o'hara 🦁", "acme"), ("unknown", None)]

    @requires("context")
    def test_an_entry_names_run_and_node(self, calls: Bench, since: Any, told: None) -> None:
        new = calls.workflow().add_node("ItemCreateNode", "first", {"name": "a"})
        calls.run(new.add_node("ItemCreateNode", "second", {"name": "b"}))
        entries = since()
        assert [entry.node for entry in entries] == ["first", "second"]
        assert len({entry.run for entry in entries}) == 1
        assert entries[0].run

    @requires("context")
    def test_whom_an_undone_transaction_served_is_not_taken_for_the_next(
        self, calls: Bench, since: Any, told: None
    ) -> None:
        calls.create("Item", {"name": "taken"})
        new = calls.workflow().add_node("TransactionScopeNode", "scope")
        new.add_node("ItemCreateNode", "a", {"name": "a"}).add_node("ItemCreateNode", "again", {"name": "taken"})
        expected = ["unknown"]
        for next_two in (("ada", ""), ("", "ada")):
            with calls.around(actor="ada"), pytest.raises(UniqueError):
                calls.execute(new)
            for actor in next_two:
                with calls.around(**({"actor": actor} if actor else {})):
                    calls.create("Item", {"name": f"number {len(expected)}"})
                expected.append(actor or "unknown")
        assert [entry.actor for entry in since()] == expected

    @requires("shared_database")
    def test_a_change_of_somebody_who_tells_nothing_is_by_nobody(
        self, bench: Bench, since: Any, database_url: str
    ) -> None:
        insert = Command("INSERT INTO logged_items (name) VALUES ('a')", COUNT, writes=True)
        with DataFlow(database_url) as other:
            other.core.ask((step for step in [(insert, ())]), write=True)
        assert [entry.actor for entry in since()] == ["unknown"]

    # -- the log itself -------------------------------------------------------------------------------------------
    def test_entries_cannot_be_changed_removed_or_forged(self, calls: Bench, since: Any) -> None:
        calls.create("Item", {"name": "a"})
        before = since()
        for sql in (
            "UPDATE dataflow_audit SET new = NULL",
            "UPDATE dataflow_audit SET seq = seq + 1000",
            "DELETE FROM dataflow_audit",
            "INSERT INTO dataflow_audit SELECT * FROM dataflow_audit",
        ):
            with pytest.raises(DatabaseError):
                calls.step(sql, returns=COUNT)
        assert since() == before

    def test_numbers_ascend_and_each_entry_is_hashed_after_the_one_before(self, calls: Bench, since: Any) -> None:
        with calls.around(actor="ä🦁"):
            made = calls.create("Item", {"name": "a", "secret": "x"})
        calls.bulk_create("Item", [{"name": name} for name in "bcd"])
        calls.update("Item", made["id"], {"n": 1})
        entries = self.entries(calls)
        numbers = [entry.seq for entry in entries]
        assert numbers == sorted(set(numbers))
        stubs = calls.step("SELECT seq, chain, hash FROM dataflow_audit_purged")
        last: dict[str, str] = {}
        for _, chain, entry in sorted([*stubs, *((e.seq, e.chain, e) for e in entries)], key=lambda found: found[0]):
            last[chain] = entry if isinstance(entry, str) else self.hashed(entry, last.get(chain, ""))
        assert len(since()) == 5

    @staticmethod
    def hashed(entry: Entry, previous: str) -> str:
        """Check the hash of an entry, and return it."""
        parts = [previous, *(getattr(entry, name) for name in ("seq", "at", *_TEXTS))]
        texts = [None if part is None else str(part) for part in parts]
        lengths = ":".join("" if text is None else str(len(text)) for text in texts)
        whole = f"{lengths}|{''.join(text or '' for text in texts)}"
        assert entry.hash == hashlib.sha256(whole.encode()).hexdigest(), entry.seq
        return entry.hash

    def test_a_purge_removes_what_its_stubs_name_and_nothing_else(self, calls: Bench, since: Any) -> None:
        calls.bulk_create("Item", [{"name": name} for name in "abc"])
        first, second, third = since()
        log = change_log(calls.db.core.dialect)
        purge = first.seq  # a number that no other purge has

        def work() -> Program[None]:
            yield from log.log_settled()
            stub = f"SELECT seq, {log.log_chain}, n, hash, {int(purge)} FROM {log.log_source} WHERE seq = "
            for entry in (first, second):
                insert = "INSERT INTO dataflow_audit_purged (seq, chain, n, hash, purge)"
                yield Command(f"{insert} {stub}{int(entry.seq)}", COUNT, writes=True), ()
            yield from log.log_purge(purge)

        calls.program(lambda call: atomic(call, work()))
        assert since() == [third]
        with pytest.raises(DatabaseError):
            calls.step("DELETE FROM dataflow_audit", returns=COUNT)
        calls.create("Item", {"name": "d"})
        assert [entry.action for entry in since()] == ["insert", "insert"]
        stubs = calls.step(f"SELECT hash FROM dataflow_audit_purged WHERE purge = {int(purge)} ORDER BY seq")
        assert [hash_ for (hash_,) in stubs] == [first.hash, second.hash]

    def test_instants_are_those_of_the_changes_in_microseconds(self, calls: Bench, since: Any) -> None:
        calls.create("Item", {"name": "a"})
        (entry,) = since()
        at = datetime.fromisoformat(entry.at)
        assert len(entry.at) == len("2024-02-29T12:00:00.000001+00:00")
        assert at.utcoffset() is not None
        assert abs((datetime.now(UTC) - at).total_seconds()) < 600

    def test_a_note_is_about_no_record(self, calls: Bench, since: Any) -> None:
        calls.count("Item")
        log = change_log(calls.db.core.dialect)
        with calls.around(tenant="acme"):
            calls.program(lambda _: log.log_note("passed", "the guard", '{"reason": "x"}'))
        (entry,) = since("")
        assert (entry.action, entry.record) == ("passed", "the guard")
        assert (entry.old, entry.new) == (None, '{"reason": "x"}')

    def test_watching_is_told_and_what_was_there_before_is_found(self, bench: Bench, since: Any) -> None:
        dialect = bench.db.core.dialect
        log = change_log(dialect)
        spec = bench.db.core.models["Item"].spec
        late = attrs.evolve(spec, table="logged_late", fields={
            name: field for name, field in spec.fields.items() if name != "secret"
        })  # fmt: skip
        table = dialect.quote("logged_late")
        create = f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(40), n INTEGER)"
        statements = (create, f"INSERT INTO {table} (id, name, n) VALUES (1, 'a', 2)")

        def work(call: Call) -> Program[Any]:
            del call
            for sql in statements:
                yield Command(sql, COUNT, writes=True), ()
            told = [(yield from dialect.watched(late, []))]
            for _ in range(2):
                yield from dialect.watch(late, [])
                told.append((yield from dialect.watched(late, [])))
            told.append((yield from dialect.watched(late, ["name"])))
            told.append((yield from log.log_present()))
            differences = yield from log.log_differences(late, [])
            yield Command(f"DROP TABLE {table}", COUNT, writes=True), ()
            return told, differences

        try:
            told, differences = bench.program(work)
        except BaseException:
            bench.step(f"DROP TABLE IF EXISTS {table}", returns=COUNT)
            raise
        assert told == [False, True, True, False, True]
        assert differences == []
        assert [(entry.action, entry.record, entry.old) for entry in since("logged_late")] == [("found", "1", None)]

    def test_the_log_says_what_the_table_holds(self, calls: Bench, since: Any) -> None:
        log, spec = change_log(calls.db.core.dialect), calls.db.core.models["Item"].spec
        calls.bulk_create("Item", [{"name": name, "n": 1, "secret": "x"} for name in "abc"])
        calls.sql("UPDATE logged_items SET n = 5 WHERE name = 'b'")
        calls.sql("DELETE FROM logged_items WHERE name = 'c'")

        def work() -> Program[Any]:
            yield from log.log_settled()
            entries, seals = yield from log.log_counters()
            unsealed = yield from log.log_unsealed()
            differences = yield from log.log_differences(spec, ["secret"])
            return entries, seals, unsealed, differences

        entries, seals, unsealed, differences = calls.program(lambda call: atomic(call, work()))
        assert (unsealed, differences) == ([], [])
        assert entries is None or entries >= since()[-1].seq
        assert seals is None or seals <= (entries or 0)
