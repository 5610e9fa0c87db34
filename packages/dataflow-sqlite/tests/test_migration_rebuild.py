"""A table that is made anew loses nothing that other tools are known to lose."""

import pytest

from dataflow.errors import CheckError, DatabaseError, NotNullError

PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT)"
STRICT_PARENT = "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT"
CHILD = "CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id) ON DELETE CASCADE)"


def test_rows_of_children_outlive_the_rebuild_of_their_parent_although_they_cascade(migration):
    migration.sql(
        PARENT, CHILD, "INSERT INTO parent VALUES (1, 'a'), (2, 'b')", "INSERT INTO child VALUES (7, 1), (8, 2)"
    )
    steps = migration.to(STRICT_PARENT, CHILD)
    assert [step.operation for step in steps] == ["rebuild_table"]
    assert migration.sql("SELECT * FROM child") == [(7, 1), (8, 2)]
    assert "REFERENCES parent (id)" in migration.inspect().tables["child"].sql


def test_triggers_of_the_table_and_of_others_that_mention_it_stay(migration):
    triggers = (
        "CREATE TRIGGER own AFTER UPDATE ON parent WHEN OLD.name <> NEW.name BEGIN DELETE FROM child; END",
        "CREATE TRIGGER other AFTER INSERT ON child BEGIN INSERT INTO parent (name) VALUES ('from ; child'); END",
        "CREATE VIEW names AS SELECT name FROM parent -- all of them",
        "CREATE TRIGGER hung INSTEAD OF INSERT ON names BEGIN INSERT INTO parent (name) VALUES (NEW.name); END",
    )
    migration.sql(PARENT, CHILD, *triggers)
    migration.to(STRICT_PARENT, CHILD, *triggers)
    migration.sql("INSERT INTO child (id) VALUES (1)", "INSERT INTO names VALUES ('x')")
    assert migration.sql("SELECT name FROM parent") == [("from ; child",), ("x",)]


def test_collations_checks_and_computed_columns_stay_as_they_are_written(migration):
    old = (
        "CREATE TABLE item (id INTEGER PRIMARY KEY, -- the key\n"
        " name TEXT COLLATE NOCASE CHECK (length( name ) < 9), /* what , ( it */ size INT DEFAULT (1 + 1),\n"
        ' twice INT GENERATED ALWAYS AS (size * 2) STORED, [odd "one] TEXT AS (upper(name)), gone INT)'
    )
    migration.sql(old, "INSERT INTO item (name, gone) VALUES ('Ab', 1)")
    found = migration.inspect()
    new = old.replace(", gone INT", "").replace("size INT", "size INT NOT NULL")
    migration.to(new)
    assert migration.inspect().tables["item"].sql == new
    assert migration.sql("SELECT * FROM item WHERE name = 'aB'") == [(1, "Ab", 2, 4, "AB")]
    assert found.tables["item"].columns["name"].collation == "NOCASE"


def test_rowids_stay_where_no_column_holds_them(migration):
    migration.sql("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('x'), ('y'), ('z')", "DELETE FROM t WHERE a = 'y'")
    migration.to("CREATE TABLE t (a TEXT NOT NULL)")
    assert migration.sql("SELECT rowid, a FROM t") == [(1, "x"), (3, "z")]


def test_the_counter_of_autoincrement_goes_on(migration):
    old = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT)"
    migration.sql(old, "INSERT INTO t (a) VALUES ('x'), ('y')", "DELETE FROM t WHERE id = 2")
    migration.to("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT NOT NULL)")
    assert migration.sql("INSERT INTO t (a) VALUES ('z') RETURNING id") == [(3,)]
    migration.sql("DELETE FROM t")
    migration.to("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT)")
    assert migration.sql("INSERT INTO t (a) VALUES ('z') RETURNING id") == [(4,)]


def test_statistics_of_the_planner_stay(migration):
    migration.sql("CREATE TABLE t (a TEXT)", "CREATE INDEX i ON t (a)", "INSERT INTO t VALUES ('x')", "ANALYZE")
    before = migration.sql("SELECT * FROM sqlite_stat1")
    migration.to("CREATE TABLE t (a TEXT NOT NULL)", "CREATE INDEX i ON t (a)")
    assert migration.sql("SELECT * FROM sqlite_stat1") == before


def test_a_check_that_names_its_table_is_no_hindrance(migration):
    old = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a INT CHECK (t.a > 0), b INT)"
    migration.sql(old, "INSERT INTO t (a) VALUES (4), (5)", "DELETE FROM t WHERE a = 5")
    migration.to("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a INT NOT NULL CHECK (t.a > 0), b INT)")
    assert migration.sql("INSERT INTO t (a) VALUES (6) RETURNING id, a") == [(3, 6)]


def test_statements_about_conflicts_do_not_swallow_rows(migration):
    migration.sql("CREATE TABLE t (a INT, b INT)", "INSERT INTO t VALUES (1, 1), (1, 2)")
    with pytest.raises(DatabaseError):
        migration.to("CREATE TABLE t (a INT UNIQUE ON CONFLICT IGNORE, b INT)")
    assert migration.sql("SELECT * FROM t") == [(1, 1), (1, 2)]


# -- types ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strict", ["", " STRICT"])
@pytest.mark.parametrize("value", ["abc", "1.5", "12abc", "", "99999999999999999999"])
def test_a_text_that_is_no_integer_fails_and_is_not_changed(migration, strict, value):
    migration.sql("CREATE TABLE t (a TEXT)", f"INSERT INTO t VALUES ('12'), ('{value}')")
    with pytest.raises(CheckError, match=r"t\.a holds a value that is no INTEGER"):
        migration.to(f"CREATE TABLE t (a INTEGER){strict}")
    assert migration.sql("SELECT a, typeof(a) FROM t") == [("12", "text"), (value, "text")]
    assert migration.sql("SELECT name FROM sqlite_master") == [("t",)]


@pytest.mark.parametrize("strict", ["", " STRICT"])
def test_texts_that_are_integers_become_integers(migration, strict):
    migration.sql("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('12'), (' -7 '), (NULL), ('9223372036854775807')")
    migration.to(f"CREATE TABLE t (a INTEGER){strict}")
    assert migration.sql("SELECT a FROM t") == [(12,), (-7,), (None,), (9223372036854775807,)]


@pytest.mark.parametrize("strict", ["", " STRICT"])
def test_floats_become_texts_that_are_the_same_floats(migration, strict):
    migration.sql(
        "CREATE TABLE t (a REAL)", "INSERT INTO t VALUES (0.5), (700.0), (1e300)", "INSERT INTO t SELECT 0.1 + 0.2"
    )
    migration.to(f"CREATE TABLE t (a TEXT){strict}")
    assert [float(text) for (text,) in migration.sql("SELECT a FROM t")] == [0.5, 700.0, 1e300, 0.1 + 0.2]
    assert migration.sql("SELECT DISTINCT typeof(a) FROM t") == [("text",)]


@pytest.mark.parametrize(
    ("value", "fits"), [("9007199254740993", False), ("'x'", False), ("'1.25'", True), ("3", True)]
)
def test_what_becomes_a_float_is_the_same_number_or_fails(migration, value, fits):
    migration.sql("CREATE TABLE t (a)", f"INSERT INTO t VALUES ({value})")
    if fits:
        migration.to("CREATE TABLE t (a REAL) STRICT")
        assert migration.sql("SELECT typeof(a) FROM t") == [("real",)]
    else:
        with pytest.raises(CheckError, match="no REAL"):
            migration.to("CREATE TABLE t (a REAL) STRICT")


def test_rows_get_the_value_of_a_change(migration):
    migration.sql("CREATE TABLE t (a TEXT, b TEXT)", "INSERT INTO t VALUES ('x', NULL), ('y', 'z')")
    new = "CREATE TABLE t (a TEXT, b TEXT NOT NULL, c INTEGER NOT NULL) STRICT"
    with pytest.raises(NotNullError):
        migration.to(new)
    migration.to(new, values={("t", "b"): "a || '!'", ("t", "c"): "length(a) + 1"})
    assert migration.sql("SELECT * FROM t") == [("x", "x!", 2), ("y", "z", 2)]


def test_a_rebuild_leads_back(migration):
    old = ("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b TEXT -- b\n)", "CREATE INDEX i ON t (a)")
    migration.sql(*old, "INSERT INTO t VALUES (1, 2, 'x')")
    before = migration.sql("SELECT * FROM sqlite_master")
    steps = migration.to("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT UNIQUE)", old[1])
    migration.back(steps)
    assert sorted(row[-1] for row in migration.sql("SELECT * FROM sqlite_master")) == sorted(row[-1] for row in before)
    assert migration.sql("SELECT *, typeof(a) FROM t") == [(1, 2, "x", "integer")]


@pytest.mark.parametrize(
    "new", ["CREATE TABLE t (b INT)", "CREATE TABLE t (b INT DEFAULT 7, PRIMARY KEY (b)) WITHOUT ROWID"]
)
def test_rows_outlive_all_their_columns(migration, new):
    migration.sql("CREATE TABLE t (a INT PRIMARY KEY) WITHOUT ROWID", "INSERT INTO t VALUES (1)")
    migration.to(new)
    assert migration.sql("SELECT b FROM t") == [(7 if "DEFAULT" in new else None,)]
