"""How SQLite schemas are read: what pragmas tell, and what only the stored texts do."""

import sqlite3
import time

import pytest

from dataflow.catalog import Column, Constraint
from dataflow.sqlite.migration.text import read_table
from dataflow.sqlite.migration.tokens import constant, names_in, normal_type, renamed, tokens


def table(migration, *statements):
    return next(iter(migration.desired(*statements).tables.values()))


SAME = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x' CHECK (a IN ('x',\"b\")), b,"
    " CHECK (length(a)>1 AND b=1),"
    " UNIQUE (a, b), FOREIGN KEY (b) REFERENCES t (id) ON DELETE SET NULL)"
)
ALSO = """create table "t" (
  [id] integer primary key asc, -- the key, it's (here)
  `a` text default 'x' check ( "A" in ('x' , b) ), b references T on delete set null, /* , */
  check(LENGTH( a ) > 1 and b = 1)
  unique (`a`,b asc) )"""


def test_what_means_the_same_is_equal_however_it_is_written(migration):
    assert table(migration, SAME) == table(migration, ALSO)
    assert migration.desired(SAME).fingerprint == migration.desired(ALSO).fingerprint


def test_what_means_something_else_differs(migration):
    for other in (
        SAME.replace("'x' CHECK", "'X' CHECK"),
        SAME.replace("('x',", "('X',"),
        SAME.replace("SET NULL", "CASCADE"),
        SAME.replace("TEXT", "TEXT COLLATE NOCASE"),
        SAME.replace("UNIQUE (a, b)", "UNIQUE (b, a)"),
        SAME.replace("UNIQUE (a, b)", "UNIQUE (a, b) ON CONFLICT IGNORE"),
        SAME.replace("KEY,", "KEY AUTOINCREMENT,"),
        SAME.replace("INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY DESC"),
    ):
        assert table(migration, SAME) != table(migration, other), other


def test_every_part_of_a_column_is_read(migration):
    text = """CREATE TABLE t (
        a INTEGER CONSTRAINT pk PRIMARY KEY ON CONFLICT REPLACE AUTOINCREMENT,
        "b ""c" VARCHAR ( 10 ) CONSTRAINT nn NOT NULL ON CONFLICT IGNORE DEFAULT -1 COLLATE nocase,
        c AS (a || 'x') STORED, d GENERATED ALWAYS AS (b > 1) VIRTUAL, b,
        e REFERENCES p MATCH FULL ON UPDATE CASCADE NOT DEFERRABLE INITIALLY IMMEDIATE,
        f CONSTRAINT fk REFERENCES p (x) DEFERRABLE INITIALLY DEFERRED UNIQUE,
        CONSTRAINT "un iq" UNIQUE (b, e COLLATE nocase DESC))"""
    found = table(migration, text)
    assert found.columns["a"] == Column("a", "INTEGER", nullable=False, identity="autoincrement")
    assert found.columns['b "c'] == Column('b "c', "VARCHAR(10)", nullable=False, default="-1", collation="NOCASE")
    assert found.columns["c"] == Column("c", "", generated="\"a\" || 'x'", stored=True)
    assert found.columns["d"] == Column("d", "", generated='"b" > 1')
    assert [one.definition for one in found.constraints] == [
        'PRIMARY KEY ("a") ON CONFLICT REPLACE',
        'UNIQUE ("f")',
        'UNIQUE ("b", "e" COLLATE NOCASE DESC)',
        'FOREIGN KEY ("e") REFERENCES "p" ON UPDATE CASCADE',
        'FOREIGN KEY ("f") REFERENCES "p" ("x") DEFERRABLE INITIALLY DEFERRED',
        "NOT NULL ON CONFLICT IGNORE",
    ]
    assert [one.name for one in found.constraints] == ["pk", "", "un iq", "", "fk", "nn"]


def test_keys_are_those_that_pragmas_tell(migration):
    for text in (
        SAME,
        ALSO,
        "CREATE TABLE t (a, b, c, PRIMARY KEY (c, a)) WITHOUT ROWID",
    ):
        raw = sqlite3.connect(":memory:")
        raw.execute(text)
        found = table(migration, text)
        key = raw.execute("SELECT name FROM pragma_table_info('t') WHERE pk ORDER BY pk").fetchall()
        assert found.primary_key == tuple(name for (name,) in key)
        told = raw.execute('SELECT "from", "table" COLLATE NOCASE FROM pragma_foreign_key_list(\'t\')').fetchall()
        foreign = [one for one in found.constraints if one.kind == "foreign key"]
        assert [(*one.columns, one.target) for one in foreign] == [(name, target.lower()) for name, target in told]
        raw.close()


def test_a_reference_to_a_primary_key_names_its_columns(migration):
    catalog = migration.desired("CREATE TABLE c (x REFERENCES P)", "CREATE TABLE p (a, b INTEGER PRIMARY KEY)")
    assert catalog.tables["c"].constraints == (
        Constraint(
            "", "foreign key", ("x",), 'FOREIGN KEY ("x") REFERENCES "p" ("b")', "p", ("b",), "NO ACTION", "NO ACTION"
        ),
    )


def test_indexes_have_keys_order_collation_and_predicate(migration):
    found = table(
        migration,
        "CREATE TABLE t (a TEXT COLLATE NOCASE, b)",
        "CREATE UNIQUE INDEX [i 1] ON t (a, b COLLATE rtrim DESC, lower( b ) || 'x' asc) WHERE b  is NOT null",
    )
    index = found.indexes["i 1"]
    assert index.unique
    assert index.columns == ("a", "b")
    assert [key.expression for key in index.keys] == ['"a"', '"b"', "lower(\"b\") || 'x'"]
    assert [(key.descending, key.collation) for key in index.keys] == [(False, None), (True, "RTRIM"), (False, None)]
    assert index.where == '"b" IS NOT NULL'


def test_views_tell_what_they_read_and_have_their_triggers(migration):
    catalog = migration.desired(
        "CREATE TABLE t (a)",
        "CREATE VIEW v AS SELECT 'u' AS a FROM T -- not w",
        "CREATE VIEW broken AS SELECT * FROM nowhere",
        "CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN SELECT 1; END",
    )
    assert catalog.views["v"].reads == ("t",)
    assert list(catalog.views["v"].triggers) == ["g"]
    assert catalog.views["broken"].reads == ()


def test_virtual_tables_and_their_shadows_are_left_alone(migration):
    migration.sql("CREATE TABLE t (a)", "CREATE VIRTUAL TABLE search USING fts5(a)", "CREATE TABLE search_of_mine (b)")
    assert list(migration.inspect().tables) == ["t", "search_of_mine"]
    raw = sqlite3.connect(migration.path, isolation_level=None)
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute(
        "INSERT INTO sqlite_master VALUES ('table', 'far', 'far', 0, 'CREATE VIRTUAL TABLE far USING nowhere(x)')"
    )
    raw.execute("CREATE TABLE far_rows (b)")
    raw.close()
    migration.db.close()
    again = type(migration)(migration.path)
    assert list(again.inspect().tables) == ["t", "search_of_mine"]
    again.db.close()


def test_empty_tables_are_known(migration):
    migration.sql("CREATE TABLE t (a)", "CREATE TABLE u (a)", "INSERT INTO u VALUES (1)")
    assert {name: one.empty for name, one in migration.inspect().tables.items()} == {"t": True, "u": False}


def test_a_text_is_written_as_it_was_read():
    for text in (SAME, ALSO):
        assert str(read_table(text)) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a--b\n+c/* d */", ["a", "+", "c"]),
        ("'it''s' \"q\"\"q\" [x y] `z`", ["'it''s'", '"q""q"', "[x y]", "`z`"]),
        ("x'00' 1.5e-3 0xFF a||b <>", ["x'00'", "1.5e-3", "0xFF", "a", "||", "b", "<>"]),
        ("a -- the end", ["a"]),
        ("/* open", []),
        ("größe$1", ["größe$1"]),
    ],
)
def test_tokens_are_those_of_sqlite(text, found):
    assert [token for token, _, _ in tokens(text)] == found


def test_names_are_found_and_replaced_outside_of_texts():
    assert names_in("SELECT 'a', \"b c\" FROM [D]") == {"select", "b c", "from", "d"}
    assert renamed("SELECT a, 'a', [A] FROM b", {"a": 'x"y'}) == 'SELECT "x""y", \'a\', "x""y" FROM b'


def test_literals_are_told_from_expressions():
    assert all(map(constant, ("1", "-1.5", "'x'", "x'00'", "NULL", "true", "+ 1")))
    assert not any(map(constant, ("CURRENT_TIMESTAMP", "1 + 1", "random()", "", "abc")))


def test_types_are_told_without_comments_and_in_upper_case():
    assert normal_type("double  precision") == "DOUBLE PRECISION"
    assert normal_type("decimal ( 10 ,2) /* money */") == "DECIMAL(10, 2)"


def test_a_thousand_tables_are_read_at_once(migration):
    text = "CREATE TABLE t{0} (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT CHECK (b IN (0, 1)), c REFERENCES t0)"
    statements = [text.format(n) for n in range(1000)] + [f"CREATE INDEX i{n} ON t{n} (a)" for n in range(1000)]
    migration.sql("BEGIN", *statements, "COMMIT")
    start = time.perf_counter()
    assert len(migration.inspect().tables) == 1000
    assert time.perf_counter() - start < 3  # a tenth of it on an idle machine
