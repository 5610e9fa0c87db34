"""Whatever two schemas look like: the steps lead from one to the other, and rows keep what both have room for."""

import functools
import itertools
import sqlite3

import attrs
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dataflow.errors import IntegrityError

NAMES = ("a", "B b", "order", 'qu"ote', "[x", "it's", "key", "größe", "--c", "`tick`", "a,b", "(p", "check")
QUOTES = (('"', '"'), ("`", "`"), ("[", "]"))
TYPES = {
    "strict": ("INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"),
    "": ("INT", "TEXT", "", "VARCHAR ( 10 )", "DECIMAL(10, 2)", "double precision", "BLOB", "datetime", "int unsigned"),
}
DEFAULTS = (None, None, "1", "-2", "'x,)'", "X'00'", "(1 + 2)", "(lower('A'))", "CURRENT_TIMESTAMP", "NULL", "1e3")
SPACES = (" ", "\n  ", " /* a, ( b */ ", " -- ), '\n ", "\t")
VALUES = (None, 0, 1, -7, 2**60, 1.5, 700.0, "12", "x", "", "it's", b"\x00\xff", "1.25")


@attrs.frozen
class Column:
    """A column of a random table."""

    name: str
    kind: str
    null: bool = True
    default: str | None = None
    collation: str = ""
    check: str = ""
    generated: str = ""
    unique: bool = False


@attrs.frozen
class Shape:
    """A random table with what hangs on it."""

    columns: tuple[Column, ...]
    strict: bool
    key: str  # "", "alias", "counted", "columns", "without"
    together: bool
    index: str
    trigger: bool
    view: bool
    table_check: bool
    style: int


def quoted(name, style=0):
    opening, closing = QUOTES[style % 3]
    if opening == "[" and "]" in name:
        opening = closing = '"'
    return opening + (name if opening == "[" else name.replace(closing, closing * 2)) + closing


@st.composite
def columns(draw, name, *, strict, first):
    kind = draw(st.sampled_from(TYPES["strict" if strict else ""]))
    if not first and draw(st.integers(0, 6)) == 0:
        how = draw(st.sampled_from(("VIRTUAL", "STORED", "")))
        return Column(name, "TEXT" if strict else kind, generated=how or "plain")
    default = draw(st.sampled_from(DEFAULTS)) if not strict or kind == "ANY" else draw(st.sampled_from((None, "NULL")))
    return Column(
        name, kind, draw(st.booleans()), default, draw(st.sampled_from(("", "", "NOCASE", "rtrim"))),
        draw(st.sampled_from(("", "", "{} IS NOT 'no'", "length ( {} )<99", "{} <> 5 or 1"))),
        unique=draw(st.integers(0, 7)) == 0,
    )  # fmt: skip


@st.composite
def shapes(draw, before=None):
    """Draw a table; one that `before` may have become, if given."""
    strict = draw(st.booleans()) if before is None or draw(st.integers(0, 3)) == 0 else before.strict
    if before is None:
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique_by=str.lower))
        own = [draw(columns(name, strict=strict, first=place == 0)) for place, name in enumerate(names)]
        key = draw(st.sampled_from(("", "alias", "counted", "columns", "without")))
    else:
        own = [one for place, one in enumerate(before.columns) if place == 0 or draw(st.integers(0, 4))]
        own = [
            one
            if strict == before.strict and draw(st.integers(0, 2))
            else draw(columns(one.name, strict=strict, first=place == 0))
            for place, one in enumerate(own)
        ]
        free = [name for name in NAMES if name not in {one.name for one in before.columns}]
        new = draw(st.lists(st.sampled_from(free), max_size=2, unique=True))
        own += [draw(columns(name, strict=strict, first=False)) for name in new]
        key = before.key if draw(st.integers(0, 4)) else draw(st.sampled_from(("", "alias", "counted", "without")))
    booleans = [draw(st.booleans()) for _ in range(4)]
    index = draw(st.sampled_from(("", "", "plain", "partial", "expression", "desc")))
    style = draw(st.integers(0, 1000))
    return Shape(tuple(own), strict, key, booleans[0], index, *booleans[1:], style)


def column_sql(column, shape, space):
    name = quoted(column.name, shape.style)
    parts = [name, column.kind]
    if column.generated:
        how = column.generated.replace("plain", "")
        other = quoted(shape.columns[0].name, shape.style + 1)
        space = " " if shape.strict else space  # SQLite takes a comment behind the type of such a column for part of it
        return space.join(filter(None, (*parts, f"GENERATED ALWAYS AS (typeof( {other} ) || 'x')", how)))
    if not column.null:
        parts.append("NOT NULL")
    if column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    if column.collation:
        parts.append(f"COLLATE {column.collation}")
    if column.check:
        parts.append(f"CHECK ({column.check.format(name)})")
    if column.unique:
        parts.append("UNIQUE")
    return space.join(filter(None, parts))


def statements(shape):
    """Write a shape as SQL."""
    space = SPACES[shape.style % len(SPACES)]
    first = quoted(shape.columns[0].name, shape.style)
    parts = [column_sql(column, shape, space) for column in shape.columns]
    if shape.key in ("alias", "counted"):
        counted = " AUTOINCREMENT" if shape.key == "counted" else ""
        parts.insert(0, f"id INTEGER PRIMARY KEY{counted}")
    if shape.key in ("columns", "without"):
        parts.insert(0, "id INTEGER NOT NULL")
        parts.append(f"PRIMARY KEY (id,{space}{first})")
    if shape.together and len(shape.columns) > 1:
        parts.append(f"CONSTRAINT [u 1] UNIQUE ({quoted(shape.columns[1].name)}, {first})")
    if shape.table_check:
        parts.append(f"CHECK{space}(typeof({first}) <> 'never')")
    options = ", ".join(filter(None, ("STRICT" * shape.strict, "WITHOUT ROWID" * (shape.key == "without"))))
    table = quoted("my t", shape.style)
    yield f"CREATE TABLE {table} ({(',' + space).join(parts)}{space}) {options}"
    yield 'CREATE TABLE log (id INTEGER PRIMARY KEY, x, y INTEGER REFERENCES log ON DELETE CASCADE, "my t" TEXT)'
    last = quoted(shape.columns[-1].name)
    if shape.index:
        keys = {"expression": f"lower({last} || 'x') DESC, {first}", "desc": f"{last} COLLATE NOCASE DESC"}
        where = f" WHERE {last} IS NOT NULL and 1" if shape.index == "partial" else ""
        yield f"CREATE INDEX [ix 1] ON {table} ({keys.get(shape.index, last)}){where}"
    if shape.trigger:
        yield f"CREATE TRIGGER tr AFTER UPDATE ON {table} WHEN new.{last} IS 1 BEGIN DELETE FROM log; END"
        yield f"CREATE TRIGGER far AFTER UPDATE ON log BEGIN DELETE FROM {table} WHERE {first} = 'x'; END"
    if shape.view:
        yield f"CREATE VIEW v AS SELECT {first}, count(*) AS n FROM {table} GROUP BY 1"
        yield "CREATE TRIGGER iv INSTEAD OF DELETE ON v BEGIN SELECT 1; END"


def fill(migration, shape, rows):
    """Insert what the table takes of some rows."""
    written = [column for column in shape.columns if not column.generated]
    names = ", ".join(quoted(column.name) for column in written)
    places = ", ".join("?" for _ in written)
    raw = sqlite3.connect(migration.path, isolation_level=None)
    raw.execute("PRAGMA synchronous = OFF")
    for number, row in enumerate(rows):
        values = list(itertools.islice(itertools.cycle(row), len(written)))
        key, sign = ("id, ", "?, ") if shape.key else ("", "")
        try:
            raw.execute(
                f'INSERT INTO "my t" ({key}{names}) VALUES ({sign}{places})',
                [number * 2 + 5, *values] if shape.key else values,
            )
        except sqlite3.IntegrityError:
            continue
    raw.execute('DELETE FROM "my t" WHERE rowid = 7' if shape.key != "without" else "SELECT 1")
    raw.execute("INSERT INTO log (x) VALUES (1)")
    raw.close()


def content(migration, before, after, renames, *, there):
    """Return the rows, as far as a table before and after (`there`) has room for the same."""
    kept = {column.name: column for column in before.columns if not column.generated}
    pairs = [(renames.get(one.name, one.name), one) for one in after.columns if not one.generated]
    same = [new.name if there else old for old, new in pairs if old in kept and kept[old].kind == new.kind]
    if before.key and after.key:
        same.insert(0, "id")
    becomes = before.key == "columns" and after.key in ("alias", "counted")  # then the rowid is what the column holds
    if "without" not in (before.key, after.key) and not becomes:
        same.insert(0, "rowid")
    columns = ", ".join(name if name == "rowid" else quoted(name) for name in same) or "1"
    return sorted(migration.sql(f'SELECT {columns} FROM "my t"'), key=repr)


def pragmas(migration, *schema):
    """Return what SQLite itself says of the tables: in the file, or in memory."""
    raw = sqlite3.connect(":memory:" if schema else migration.path, isolation_level=None)
    for sql in schema:
        raw.execute(sql)
    texts = (
        "SELECT name, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo('my t')",
        """SELECT i."unique", i.origin, i.partial, x.seqno, x.cid < 0, x.name, x.desc, x.coll
        FROM pragma_index_list('my t') i, pragma_index_xinfo(i.name) x WHERE x.key""",
        "SELECT type, wr, strict FROM pragma_table_list('my t')",
        "SELECT type, name FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'",
    )
    found = [sorted(raw.execute(sql).fetchall(), key=repr) for sql in texts]
    raw.close()
    return found


@st.composite
def cases(draw):
    """Draw a table, what becomes of it, rows, and which column gets a new name: {new: old}."""
    before = draw(shapes())
    rows = st.lists(st.lists(st.sampled_from(VALUES), min_size=3, max_size=3), min_size=1, max_size=6)
    after, renames = draw(shapes(before)), {}
    if draw(st.booleans()):  # little changes: ALTER TABLE may do
        there = {column.name for column in before.columns}
        new = [column for column in after.columns if column.name not in there and after.strict == before.strict]
        kept = before.columns if draw(st.booleans()) else before.columns[:-1]
        after = attrs.evolve(before, columns=(*(kept or before.columns), *new))
    old = draw(st.sampled_from(after.columns)).name
    if draw(st.booleans()) and old in {column.name for column in before.columns}:
        renames = {"new Name": old}
        columns = [attrs.evolve(one, name="new Name") if one.name == old else one for one in after.columns]
        after = attrs.evolve(after, columns=tuple(columns))
    return before, after, draw(rows), renames


@pytest.fixture
def migrations(tmp_path_factory, migration):
    kind = type(migration)
    opened = []

    def open_one():
        opened.append(kind(tmp_path_factory.mktemp("one") / "app.db"))
        return opened[-1]

    yield open_one
    for each in opened:
        each.db.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_the_steps_lead_from_any_schema_to_any_other_and_rows_stay(migrations, case):
    before, after, rows, renames = case
    migration = migrations()
    migration.sql(*statements(before))
    fill(migration, before, rows)
    rows_of = functools.partial(content, migration, before, after, renames)
    kept, stored = rows_of(there=False), migration.sql("SELECT * FROM sqlite_master")
    try:
        steps = migration.to(*statements(after), columns={"my t": renames})
    except IntegrityError:
        event("refused")
        assert migration.sql("SELECT * FROM sqlite_master") == stored
        assert rows_of(there=False) == kept
        migration.db.close()
        return
    event(f"made, {'rebuilt' if any(step.rewrites for step in steps) else 'altered'}, rows: {bool(kept)}")
    assert rows_of(there=True) == kept
    assert pragmas(migration) == pragmas(migration, *statements(after))
    if before.key == after.key == "counted":
        highest = migration.sql("SELECT max(seq) FROM sqlite_sequence")
        assert highest == [(None,)] or highest[0][0] >= max((row[0] for row in kept), default=0)
    if steps and all(step.inverse is not None for step in steps):
        event("led back")
        found = migration.desired(*statements(before))
        try:
            migration.back(steps)
        except IntegrityError:
            event("the way back was refused")
        else:
            assert migration.inspect() == found
            assert rows_of(there=False) == kept
    migration.db.close()
