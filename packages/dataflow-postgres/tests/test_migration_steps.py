"""Steps do what changes say, hold no stronger lock than they announce, and rewrite and read no more than that."""

import importlib.util
import sys
from pathlib import Path

import attrs
import pytest

from dataflow.catalog import Catalog, Column, Table
from dataflow.changes import Change, Step
from dataflow.dialect import COUNT, Command
from dataflow.errors import NotNullError, SchemaError
from dataflow.postgres.migration.draft import LARGE, Server
from dataflow.postgres.migration.editor import PostgresEditor
from dataflow.postgres.migration.facts import FACTS, LOCKS
from dataflow.postgres.migration.steps import _WRITERS


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cases = _load("migration_cases")
RELATIONS = """
SELECT oid::int8, relname::text, relfilenode::int8, relkind::text FROM pg_class
WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p', 'm', 'v')"""
HELD = """
SELECT relation::int8, mode FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND database <> 0"""
READ = "SELECT relid::int8, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
MODES = {mode.title().replace(" ", "") + "Lock": mode for mode in LOCKS}


class Editing:
    """A schema of its own, the editor of it, and a connection that measures."""

    def __init__(self, pg):
        self.pg = pg
        pg.server.execute(f"CREATE SCHEMA {pg.schema}; SET search_path = {pg.schema}, public")
        self.db = pg.open()
        self.editor = PostgresEditor(self.db.core.dialect)

    def run(self, program):
        return self.db.core.ask(program, write=True)

    def execute(self, sql):
        self.pg.server.execute(sql)

    def inspect(self):
        return self.run(self.editor.inspect())

    def desired(self, sql):
        def build():
            yield Command(sql, COUNT, writes=True), ()

        return self.run(self.editor.desired(build()))


@pytest.fixture
def editing(pg):
    found = Editing(pg)
    yield found
    pg.server.execute("ROLLBACK; RESET search_path")


def of(catalog, kind, table, name):
    """Return the object that a change is about."""
    what = kind.partition("_")[2]
    if what == "table":
        return catalog.tables.get(name)
    if what in ("view", "function", "sequence", "enum"):
        return getattr(catalog, f"{what}s").get(name)
    owner = catalog.tables.get(table)
    if owner is None:
        return None
    if what == "column":
        return owner.columns.get(name)
    if what == "constraint":
        return next((each for each in owner.constraints if each.name == name), None)
    return getattr(owner, {"index": "indexes", "trigger": "triggers", "policy": "policies"}[what]).get(name)


def changes_of(listed, found, wanted):
    made = []
    for kind, table, name, more in listed:
        value = more
        if kind.startswith("rename"):
            made.append(Change(kind, table, name, value, name))
            continue
        before, after = of(found, kind, table, name), of(wanted, kind, table, name)
        if more in ("unowned", "owned"):  # a sequence is made before the column that it belongs to
            nobodys, value = attrs.evolve(after, owner=""), None
            before, after = (before, nobodys) if more == "unowned" else (nobodys, after)
        before, after = (None if kind.startswith("create") else before), (None if kind.startswith("drop") else after)
        made.append(Change(kind, table, name, before, after, value))
    return made


def measured(editing, step):
    """Run a step in a transaction; return (table -> lock, rewritten tables, read tables), of those there before."""
    server = editing.pg.server
    before = {row[0]: row[1:] for row in server.rows(RELATIONS)}
    server.execute("BEGIN")
    counted = dict(server.rows(READ))  # of this connection's transactions that it has not told yet
    for sql in step.sql:
        server.execute(sql)
    locks = {}
    for oid, mode in server.rows(HELD):
        if oid in before:
            name = before[oid][0]
            locks[name] = max(locks.get(name, ""), MODES[mode], key=lambda held: LOCKS.index(held) if held else -1)
    read = {before[oid][0] for oid, count in server.rows(READ) if oid in before and count > counted.get(oid, 0)}
    after = {row[0]: row[1:] for row in server.rows(RELATIONS)}
    rewritten = {
        name for oid, (name, node, kind) in before.items() if oid in after and after[oid][1] != node and kind == "r"
    }
    server.execute("COMMIT")
    return locks, rewritten, read


def problems(step, locks, rewritten, read):
    """Return in what a step did more than it announced."""
    found = [
        f"{lock} on {table}, announced {step.locks.get(table)}"
        for table, lock in locks.items()
        if table not in step.locks or LOCKS.index(step.locks[table]) < LOCKS.index(lock)
    ]
    found += [f"rewrote {table}" for table in rewritten if not step.rewrites]
    return found + [f"read {table}" for table in read if not step.scans]


def carry_out(editing, steps):
    """Make steps as an engine does; return in what they did more than they announced."""
    wrong = []
    for step in steps:
        if step.mode == "outside":
            editing.run(editing.editor.perform(step))
        elif step.mode == "batches":
            cursor = None
            while True:
                _, cursor = editing.run(editing.editor.batch(step, cursor))
                if cursor is None:
                    break
        else:
            wrong += [f"{step.operation}: {each}" for each in problems(step, *measured(editing, step))]
    return wrong


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", cases.CASES)
def test_steps_make_the_schema_and_do_no_more_than_they_announce(editing, name, size):
    sql, listed = cases.CASES[name]
    editing.execute(cases.BASE)
    editing.execute(cases.ROWS)
    if name == "add domain":
        editing.execute(sql.partition(";")[0])
    found = editing.inspect()
    wanted = editing.desired(cases.BASE + sql)
    if size == "large":
        tables = {each: attrs.evolve(table, bytes=LARGE + 1) for each, table in found.tables.items()}
        found = attrs.evolve(found, tables=tables)
    steps = editing.editor.steps(found, wanted, changes_of(listed, found, wanted))
    assert steps
    assert carry_out(editing, steps) == []
    made = editing.inspect()
    for kind in attrs.fields_dict(type(made)):
        assert getattr(made, kind) == getattr(wanted, kind)
    if all(step.inverse is not None for step in steps):
        for step in reversed(steps):
            if step.mode == "outside":
                undo = {"operation": f"undo_{step.operation}", "sql": step.inverse}
                editing.run(editing.editor.perform(attrs.evolve(step, **undo)))
                continue
            editing.execute("; ".join(step.inverse) or "SELECT")
        back = editing.inspect()
        for kind in attrs.fields_dict(type(back)):
            assert getattr(back, kind) == getattr(found, kind)
    else:
        assert any(step.data_loss != "none" or step.operation in IRREVERSIBLE for step in steps)


IRREVERSIBLE = {"enum_add_value", "drop_expression", "drop_sequence"}


def test_every_kind_of_change_has_a_case():
    tried = {change[0] for _, listed in cases.CASES.values() for change in listed}
    assert tried == _WRITERS.keys()


def test_steps_on_empty_tables_never_fail_on_rows(editing):
    editing.execute(cases.BASE)
    found = editing.inspect()
    for sql, listed in cases.CASES.values():
        wanted = editing.desired(cases.BASE + sql)
        for step in editing.editor.steps(found, wanted, changes_of(listed, found, wanted)):
            assert step.operation in FACTS
            assert step.summary
            assert step.fails_on_data == "no" or not step.table


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE INDEX x ON t (n)", {"SHARE on t, announced None", "read t"}),
        ("ALTER TABLE t ALTER n TYPE bigint", {"ACCESS EXCLUSIVE on t, announced None", "rewrote t", "read t"}),
        (
            "ALTER TABLE child DROP CONSTRAINT child_t",
            {"ACCESS EXCLUSIVE on t, announced None", "ACCESS EXCLUSIVE on child, announced None"},
        ),
    ],
)
def test_what_is_not_announced_is_measured(editing, sql, expected):
    editing.execute(cases.BASE)
    editing.execute(cases.ROWS)
    step = Step("none", "", "t", (sql,))
    assert set(problems(step, *measured(editing, step))) == expected


def test_a_constraint_that_is_only_validated_keeps_nobody_waiting(editing):
    editing.execute(cases.BASE + "ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0) NOT VALID;")
    editing.execute(cases.ROWS)
    found = editing.inspect()
    before = next(each for each in found.tables["t"].constraints if each.name == "c")
    assert not before.valid
    change = Change("alter_constraint", "t", "c", before, attrs.evolve(before, valid=True))
    (step,) = editing.editor.steps(found, found, [change])
    assert (step.operation, step.mode) == ("validate_check", "apart")
    assert carry_out(editing, [step]) == []
    assert all(each.valid for each in editing.inspect().tables["t"].constraints)


def test_a_new_column_that_rows_have_no_value_for_is_announced_as_failing(editing):
    editing.execute(cases.BASE)
    editing.execute(cases.ROWS)
    found = editing.inspect()
    wanted = editing.desired(cases.BASE + "ALTER TABLE t ADD COLUMN x text NOT NULL")
    change = Change("add_column", "t", "x", None, wanted.tables["t"].columns["x"])
    (step,) = editing.editor.steps(found, wanted, [change])
    assert step.fails_on_data == "always when rows exist"
    empty = attrs.evolve(found, tables={"t": attrs.evolve(found.tables["t"], empty=True, bytes=0)})
    (step,) = editing.editor.steps(empty, wanted, [change])
    assert step.fails_on_data == "no"


def test_a_new_column_that_must_have_a_value_and_whose_default_is_null_is_announced_as_failing(editing):
    editing.execute(cases.BASE)
    editing.execute(cases.ROWS)
    found = editing.inspect()
    wanted = editing.desired(cases.BASE + "ALTER TABLE t ADD COLUMN x numeric(4, 1) NOT NULL DEFAULT NULL")
    column = wanted.tables["t"].columns["x"]
    assert column.default == "NULL::numeric"
    (step,) = editing.editor.steps(found, wanted, [Change("add_column", "t", "x", None, column)])
    assert (step.operation, step.fails_on_data) == ("add_column_not_null_no_default", "always when rows exist")

    def alone():
        yield Command(step.sql[0], COUNT, writes=True), ()

    with pytest.raises(NotNullError):
        editing.run(alone())
    steps = editing.editor.steps(found, wanted, [Change("add_column", "t", "x", None, column, value="7")])
    assert {step.fails_on_data for step in steps} == {"no"}
    carry_out(editing, steps)
    assert editing.inspect() == wanted


def test_shapes_of_tables_cannot_be_altered(editing):
    table = Table("t", {})
    other = attrs.evolve(table, options=("partition by LIST (a)",))
    with pytest.raises(SchemaError, match="cannot be altered"):
        editing.editor.steps(Catalog(), Catalog(), [Change("alter_table", "t", "t", table, other)])
    with pytest.raises(SchemaError, match="knows no change"):
        editing.editor.steps(Catalog(), Catalog(), [Change("alter_planet", "t", "t")])


@pytest.mark.parametrize(("version", "operations"), [(160_000, 2), (170_000, 1)])
def test_computed_columns_are_altered_in_place_where_the_server_can(editing, version, operations):
    editing.editor.server = Server(version)
    before = Column("g", "integer", generated="(a + 1)", stored=True)
    table = Table("t", {"g": before})
    change = Change("alter_column", "t", "g", before, attrs.evolve(before, generated="(a + 2)"))
    catalog = Catalog({"t": table})
    made = editing.editor.steps(catalog, catalog, [change])
    assert len(made) == operations
    assert all(step.data_loss == "none" for step in made)


TYPES = """\
varchar(20)->varchar(40)|varchar(20)->varchar|varchar(20)->text|varchar(20)->varchar(10)|text->varchar|text->varchar(30)
char(5)->char(8)|char(5)->text|char(5)->varchar(9)|varchar(5)->char(9)|varchar(5)[]->varchar(9)[]
integer[]->bigint[]
text[]->text
smallint->integer|integer->smallint|integer->bigint|bigint->integer|bigint->numeric|bigint->double precision
real->double precision|double precision->real|integer->text|integer->oid|integer->boolean|boolean->integer
boolean->text|bigint->boolean|uuid->text
boolean->smallint|boolean->bigint|boolean->numeric|boolean->double precision|boolean[]->bigint[]
numeric(6,2)->numeric(8,2)|numeric(6,2)->numeric|numeric(6,2)->numeric(8,4)|numeric(6,2)->numeric(5,2)|numeric->numeric(8,2)
numeric->integer|date->timestamp|date->timestamptz|timestamp->date|timestamp->timestamptz
timestamptz->timestamp|timestamp(3)->timestamp(6)|timestamp->timestamp(3)|timestamptz(3)->timestamptz
time(3)->time|time->timetz|interval(3)->interval
timestamp->time|json->jsonb|jsonb->json|json->text|text->json|text->jsonb|text->uuid|text->boolean|text->integer
text->timestamptz|cidr->inet|inet->cidr|bit(3)->bit(5)|varbit(3)->varbit(5)|varbit(5)->varbit|kind->text|text->kind|kind->other
kind[]->text[]|text->checked|checked->text|integer->integer[]"""
VALUES = {
    "text": "1", "bit(3)": "101", "varbit(3)": "101", "varbit(5)": "101", "json": "{}", "jsonb": "{}", "kind": "a",
    "uuid": "00000000-0000-0000-0000-000000000000", "date": "2024-01-01", "boolean": "t", "cidr": "10.0.0.0/8",
    "inet": "10.0.0.0/8", "kind[]": "{a}", "interval(3)": "1 day", "checked": "x",
}  # fmt: skip
TEXTS = {
    "json": "{}", "jsonb": "{}", "uuid": "00000000-0000-0000-0000-000000000000", "timestamptz": "2024-01-01",
    "kind": "a", "boolean": "t",
}  # fmt: skip


def test_changes_of_types_do_no_more_than_they_announce(editing):
    kinds = "CREATE TYPE kind AS ENUM ('a'); CREATE TYPE other AS ENUM ('a', 'b');"
    kinds += "CREATE DOMAIN checked AS text CHECK (VALUE <> '');"
    editing.execute(kinds)
    before, after = [], []
    pairs = [pair.split("->") for line in TYPES.split("\n") for pair in line.split("|")]
    for number, (old, new) in enumerate(pairs):
        value = VALUES.get(old, "2024-01-01" if old.startswith("time") else "{1}" if old.endswith("[]") else "1")
        value = "12:00" if old in ("time", "time(3)") else TEXTS.get(new, value) if old == "text" else value
        for table in (f"plain_{number}", f"indexed_{number}"):
            before.append(f"CREATE TABLE {table} (c {old}); INSERT INTO {table} VALUES ('{value}')")
            after.append(f"CREATE TABLE {table} (c {new})")
        if "json" not in (old, new):
            before.append(f"CREATE INDEX ON indexed_{number} (c)")
    editing.execute(";".join(before))
    found, wanted = editing.inspect(), editing.desired(kinds.partition("CREATE DOMAIN")[0] + ";".join(after))
    columns = {name: (table.columns["c"], wanted.tables[name].columns["c"]) for name, table in found.tables.items()}
    changes = [Change("alter_column", name, "c", *pair) for name, pair in columns.items()]
    assert carry_out(editing, editing.editor.steps(found, wanted, changes)) == []
    made = editing.inspect()
    assert {name: table.columns for name, table in made.tables.items()} == {
        name: table.columns for name, table in wanted.tables.items()
    }


# -- what round trips of random schemas have shown -------------------------------------------------------------------
LONG = "long_" + "e" * 55
NAMES = """\
SELECT conname::text FROM pg_constraint WHERE connamespace = to_regnamespace(current_schema()) AND contype = 'n'
UNION ALL
SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind = 'S'
ORDER BY 1"""


@pytest.mark.parametrize(("table", "column"), [("u", "id"), ("t", "key"), ("U u", "Ünïcode"), (LONG, "key_" * 10)])
def test_what_postgres_names_after_columns_is_renamed_with_them(editing, table, column):
    sql = "CREATE TABLE {} ({} integer GENERATED ALWAYS AS IDENTITY NOT NULL, CONSTRAINT own PRIMARY KEY ({}))"
    quote = editing.editor.quote
    editing.execute(sql.format(quote(table), quote(column), quote(column)))
    fresh = editing.pg.server.rows(NAMES)
    editing.execute(f"DROP TABLE {quote(table)}; {sql.format('t', 'id', 'id')}")
    found, before = editing.inspect(), editing.pg.server.rows(NAMES)
    changes = [Change("rename_table", table, table, "t", table)] if table != "t" else []
    changes += [Change("rename_column", table, column, "id", column)] if column != "id" else []
    wanted = editing.desired(sql.format(quote(table), quote(column), quote(column)))
    steps = editing.editor.steps(found, wanted, changes)
    assert carry_out(editing, steps) == []
    assert editing.pg.server.rows(NAMES) == fresh
    for step in reversed(steps):
        editing.execute("; ".join(step.inverse))
    assert editing.pg.server.rows(NAMES) == before


def test_names_that_somebody_has_chosen_stay(editing):
    editing.execute("CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME mine) NOT NULL)")
    found = editing.inspect()
    change = Change("rename_column", "t", "key", "id", "key")
    (step,) = editing.editor.steps(found, found, [change])
    assert "mine" not in "; ".join(step.sql)


def test_a_computed_column_that_demands_values_reads_the_rows(editing):
    version = editing.pg.server.rows("SHOW server_version_num")[0][0]
    if int(version) < 180_000:
        pytest.skip("no virtual columns before PostgreSQL 18")
    editing.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (NULL)")
    found = editing.inspect()
    wanted = editing.desired("CREATE TABLE t (a integer, b integer GENERATED ALWAYS AS (a + 1) VIRTUAL NOT NULL)")
    change = Change("add_column", "t", "b", None, wanted.tables["t"].columns["b"])
    (step,) = editing.editor.steps(found, wanted, [change])
    assert (step.scans, step.fails_on_data) == (True, "possible")


def test_a_stored_computed_column_may_fail_on_rows(editing):
    editing.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (2147483647)")
    found = editing.inspect()
    wanted = editing.desired("CREATE TABLE t (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED)")
    change = Change("add_column", "t", "b", None, wanted.tables["t"].columns["b"])
    (step,) = editing.editor.steps(found, wanted, [change])
    assert step.fails_on_data == "possible"


def test_counting_on_from_the_last_number_of_a_type_may_fail(editing):
    sql = "CREATE TABLE t (n integer {} NOT NULL)"
    editing.execute(sql.format("") + "; INSERT INTO t VALUES (2147483647)")
    found, wanted = editing.inspect(), editing.desired(sql.format("GENERATED ALWAYS AS IDENTITY"))
    both = [each.tables["t"].columns["n"] for each in (found, wanted)]
    (step,) = editing.editor.steps(found, wanted, [Change("alter_column", "t", "n", *both)])
    assert step.fails_on_data == "possible"


def test_filling_a_column_that_refers_to_others_holds_rows_there(editing):
    sql = "CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE t (p integer {} REFERENCES p)"
    editing.execute(sql.format("") + "; INSERT INTO p VALUES (1); INSERT INTO t VALUES (NULL)")
    found, wanted = editing.inspect(), editing.desired(sql.format("NOT NULL"))
    both = [each.tables["t"].columns["p"] for each in (found, wanted)]
    steps = editing.editor.steps(found, wanted, [Change("alter_column", "t", "p", *both, "1")])
    assert steps[0].locks == {"t": "ROW EXCLUSIVE", "p": "ROW SHARE"}
    assert carry_out(editing, steps) == []


@pytest.mark.parametrize("check", ["", "CONSTRAINT c CHECK (n > 0),"])
def test_a_cheap_change_of_type_reads_the_rows_where_a_check_is_verified_again(editing, check):
    editing.execute(f"CREATE TABLE t ({check} n numeric(10, 2)); INSERT INTO t VALUES (1)")
    found = editing.inspect()
    wanted = editing.desired(f"CREATE TABLE t ({check.replace('n >', 'k >')} k numeric(12, 2))")
    column = attrs.evolve(found.tables["t"].columns["n"], name="k")
    changes = [
        Change("rename_column", "t", "k", "n", "k"),
        Change("alter_column", "t", "k", column, wanted.tables["t"].columns["k"]),
    ]
    steps = editing.editor.steps(found, wanted, changes)
    assert carry_out(editing, steps) == []
    assert steps[-1].scans == bool(check)


@pytest.mark.parametrize(
    ("index", "fails"), [("(a)", "no"), ("((a + 1))", "possible"), ("(a) WHERE a + 1 > 0", "possible")]
)
def test_an_index_of_expressions_may_fail_on_rows(editing, index, fails):
    sql = "CREATE TABLE t (a integer);"
    editing.execute(sql + "INSERT INTO t VALUES (2147483647)")
    found, wanted = editing.inspect(), editing.desired(f"{sql} CREATE INDEX i ON t {index}")
    change = Change("create_index", "t", "i", None, wanted.tables["t"].indexes["i"])
    (step,) = editing.editor.steps(found, wanted, [change])
    assert step.fails_on_data == fails


def test_a_computed_column_comes_back_with_its_comment(editing):
    sql = "CREATE TABLE t (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED);"
    editing.execute(sql + "COMMENT ON COLUMN t.b IS 'next'")
    found, wanted = editing.inspect(), editing.desired("CREATE TABLE t (a integer)")
    change = Change("drop_column", "t", "b", found.tables["t"].columns["b"])
    (step,) = editing.editor.steps(found, wanted, [change])
    assert carry_out(editing, [step]) == []
    editing.execute("; ".join(step.inverse))
    assert editing.inspect() == found


def test_an_enum_type_is_made_anew_for_the_columns_that_are_left(editing):
    old, new = (f"CREATE TYPE mood AS ENUM ({labels});" for labels in ("'sad', 'ok'", "'ok'"))
    editing.execute(old + "CREATE TABLE gone (m mood); CREATE TABLE t (a mood DEFAULT 'sad', b mood)")
    found = editing.inspect()
    wanted = editing.desired(new + "CREATE TABLE u (c mood DEFAULT 'ok')")
    before, after = found.tables["t"].columns, wanted.tables["u"].columns
    changes = [
        Change("rename_table", "u", "u", "t", "u"),
        Change("rename_column", "u", "c", "a", "c"),
        Change("drop_table", "gone", "gone", found.tables["gone"]),
        Change("drop_column", "u", "b", before["b"]),
        Change("alter_enum", "", "mood", found.enums["mood"], wanted.enums["mood"]),
        Change("alter_column", "u", "c", attrs.evolve(before["a"], name="c"), after["c"]),
    ]
    assert carry_out(editing, editing.editor.steps(found, wanted, changes)) == []
    assert editing.inspect() == wanted
