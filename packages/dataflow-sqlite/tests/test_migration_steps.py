"""The steps of migrations on SQLite: ALTER TABLE where it is safe, one rebuild for all else, and the way back."""

import pytest

from dataflow.changes import Change
from dataflow.errors import CheckError, DatabaseError, IntegrityError, NotYetAvailable, UniqueError

T = "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT)"


def operations(steps):
    return [step.operation for step in steps]


def with_column(text):
    return T.replace("a INT", f"a INT, {text}")


@pytest.mark.parametrize(
    ("column", "operation"),
    [
        ("b TEXT", "add_column_nullable"),
        ("b TEXT COLLATE NOCASE DEFAULT 'x, y'", "add_column_constant_default"),
        ("b INT NOT NULL DEFAULT -1", "add_column_not_null_constant_default"),
        ("b INT AS (a + 1) VIRTUAL", "add_column_generated_virtual"),
        ("b INT NOT NULL DEFAULT 1 CONSTRAINT truth CHECK (b IN (0, 1))", "add_column_not_null_constant_default"),
        (
            "b INT CONSTRAINT own REFERENCES t (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED",
            "add_column_nullable",
        ),
        ('"b ""c" BLOB', "add_column_nullable"),
    ],
)
def test_columns_that_can_be_added_are_added(migration, column, operation):
    migration.sql(T, "INSERT INTO t VALUES (1, 2)")
    before = migration.inspect()
    steps = migration.to(with_column(column))
    assert operations(steps) == [operation]
    assert steps[0].sql[0].startswith('ALTER TABLE "t" ADD COLUMN')
    assert not steps[0].rewrites
    migration.back(steps)
    assert migration.inspect() == before


def test_constraints_of_the_table_about_a_new_column_are_added_with_it(migration):
    migration.sql(T, "INSERT INTO t VALUES (1, 2)")
    keys = "CONSTRAINT up FOREIGN KEY (b) REFERENCES t (id), CHECK (b <> a)"
    steps = migration.to(T.replace("a INT", f"a INT, b INT, {keys}"))
    assert operations(steps) == ["add_column_nullable"]
    assert steps[0].scans
    assert "REFERENCES" in steps[0].sql[0]


@pytest.mark.parametrize(
    "column",
    [
        "b TEXT DEFAULT CURRENT_TIMESTAMP",
        "b INT DEFAULT (1 + 1)",
        "b INT AS (a + 1) STORED",
        "b INT UNIQUE",
        "b INT NOT NULL",
    ],
)
def test_columns_that_cannot_be_added_are_part_of_a_new_table(migration, column):
    migration.sql(T)
    steps = migration.to(with_column(column))
    assert len(steps) == 1
    assert steps[0].rewrites
    assert steps[0].locks == {"t": "EXCLUSIVE"}


def test_a_not_null_column_of_a_table_with_rows_gets_the_given_value(migration):
    migration.sql(T, "INSERT INTO t VALUES (1, 2)")
    new = with_column("b INT NOT NULL DEFAULT 0")
    steps = migration.to(new, values={("t", "b"): "a * 10"})
    assert steps[0].rewrites
    assert migration.sql("SELECT b FROM t") == [(20,)]


@pytest.mark.parametrize(
    ("column", "more", "native"),
    [
        ("b INT", (), True),
        ("b INT CHECK (b > 0)", (), True),
        ("b INT REFERENCES t (id)", (), True),
        ("b INT UNIQUE", (), False),
        ("b INT, c INT AS (b + 1)", (), False),
        ("b INT, CHECK (b > a)", (), False),
        ("b INT, UNIQUE (a, b)", (), False),
        ("b INT", ("CREATE INDEX i ON t (b)",), True),
        ("b INT", ("CREATE VIEW v AS SELECT b FROM t",), True),
        ("b INT", ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT new.b; END",), True),
    ],
)
def test_a_column_is_dropped_where_it_stands_if_nothing_refers_to_it(migration, column, more, native):
    migration.sql(with_column(column), *more, "INSERT INTO t (id, a) VALUES (1, 2)")
    steps = migration.to(T)
    (step,) = [step for step in steps if step.operation in ("drop_column", "rebuild_table")]
    assert step.data_loss == "certain"
    assert step.inverse is None
    assert step.sql[0].startswith("ALTER TABLE") == native
    assert migration.sql("SELECT * FROM t") == [(1, 2)]


def test_tables_and_columns_are_renamed_with_all_that_mentions_them(migration):
    def schema(table, column):
        return (
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {column} TEXT UNIQUE CHECK (length({column}) > 0))",
            f"CREATE TABLE child (x TEXT REFERENCES {table} ({column}) ON DELETE CASCADE)",
            f"CREATE INDEX ix ON {table} ({column} COLLATE NOCASE DESC) WHERE {column} <> ''",
            f"CREATE VIEW v AS SELECT {column} FROM {table}",
            f"CREATE TRIGGER hung INSTEAD OF INSERT ON v BEGIN INSERT INTO {table} VALUES (NULL, NEW.{column}); END",
            f"CREATE TRIGGER own AFTER INSERT ON {table} BEGIN UPDATE {table} SET {column} = upper({column}); END",
            f"CREATE TRIGGER other AFTER INSERT ON child BEGIN DELETE FROM {table} WHERE {column} = 'x'; END",
        )

    migration.sql(*schema("old", "a"), "INSERT INTO v VALUES ('y')", "INSERT INTO child VALUES ('Y')")
    before = migration.inspect()
    steps = migration.to(*schema("new", "b"), tables={"new": "old"}, columns={"new": {"b": "a"}})
    assert "rename_table" in operations(steps)
    assert "rename_column" in operations(steps)
    assert not any(step.rewrites for step in steps)
    migration.sql("INSERT INTO v VALUES ('z')", "INSERT INTO child VALUES ('Z')")
    assert migration.sql("SELECT * FROM new") == [(1, "Y"), (2, "Z")]
    migration.back(steps)
    assert migration.inspect() == before


def test_a_table_is_renamed_and_made_anew(migration):
    migration.sql("CREATE TABLE old (id INTEGER PRIMARY KEY, a TEXT)", "CREATE TABLE child (x INT REFERENCES old)")
    migration.sql("INSERT INTO old VALUES (1, '5')", "INSERT INTO child VALUES (1)")
    new = (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, b INT NOT NULL) STRICT",
        "CREATE TABLE child (x INT REFERENCES new)",
    )
    steps = migration.to(*new, tables={"new": "old"}, columns={"new": {"b": "a"}})
    assert operations(steps)[-2:] == ["rename_column", "rebuild_table"]
    assert migration.sql("SELECT * FROM new") == [(1, 5)]


def test_what_the_changes_leave_out_stays(migration):
    """Callers may keep what no model mentions: the wanted text is not all there is to say then."""
    migration.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, /* of theirs */ extra TEXT DEFAULT 'e', a INT CHECK (a > 0))"
    )
    migration.sql("CREATE INDEX theirs ON t (extra)", "INSERT INTO t (a) VALUES (5)")
    found, wanted = migration.inspect(), migration.desired("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INT)")
    old, new = found.tables["t"], wanted.tables["t"]
    changes = [
        Change("alter_column", "t", "a", before=old.columns["a"], after=new.columns["a"]),
        Change("add_column", "t", "b", after=new.columns["b"]),
    ]
    steps = migration.editor.steps(found, wanted, changes)
    assert operations(steps) == ["rebuild_table"]
    migration.execute(steps)
    table = migration.inspect().tables["t"]
    assert "/* of theirs */ extra TEXT DEFAULT 'e'" in table.sql
    assert [one.definition for one in table.constraints] == ['PRIMARY KEY ("id")', 'CHECK ("a" > 0)']
    assert list(table.indexes) == ["theirs"]
    assert migration.sql("SELECT * FROM t") == [(1, "e", "5", None)]


def test_a_constraint_of_which_no_text_is_known_is_written(migration):
    migration.sql(T, "INSERT INTO t VALUES (1, 2)")
    found = migration.inspect()
    wanted = migration.desired("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, CONSTRAINT [odd name] UNIQUE (a))")
    (key,) = [one for one in wanted.tables["t"].constraints if one.kind == "unique"]
    (step,) = migration.editor.steps(found, found, [Change("add_constraint", "t", key.name, after=key)])
    assert step.operation == "add_unique"
    assert step.fails_on_data == "rows have the same a"
    migration.execute([step])
    assert migration.inspect() == wanted


def test_tables_come_with_their_indexes_and_triggers_and_go(migration):
    whole = (T, "CREATE UNIQUE INDEX i ON t (a)", "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END")
    steps = migration.to(*whole)
    assert operations(steps) == ["create_table", "create_index", "create_trigger"]
    steps = migration.to()
    assert [(step.operation, step.inverse) for step in steps] == [("drop_table", None)]


def test_rows_that_break_a_new_rule_undo_the_migration(migration):
    migration.sql(T, "INSERT INTO t VALUES (1, 2), (2, 2)")
    for new, error in (
        (with_column("CHECK (a > 2)"), CheckError),
        (with_column("UNIQUE (a)"), DatabaseError),
        (with_column("b INT DEFAULT 0 CHECK (b > 0)"), CheckError),
    ):
        steps = migration.plan(new)
        with pytest.raises(error):
            migration.execute(steps)
    assert migration.sql("SELECT name, sql FROM sqlite_master") == [("t", T)]


def test_what_sqlite_does_not_have_is_refused(migration):
    with pytest.raises(NotYetAvailable):
        migration.editor.steps(migration.inspect(), migration.inspect(), [Change("create_enum", "", "mood")])


def test_a_column_that_refers_to_a_key_without_naming_it_refers_to_it_once(migration):
    migration.sql(T)
    migration.to(with_column("up INT REFERENCES t DEFERRABLE INITIALLY DEFERRED"))
    assert migration.sql("SELECT count(*) FROM pragma_foreign_key_list('t')") == [(1,)]


def test_a_check_may_refuse_values_of_another_type_and_the_step_says_so(migration):
    old = T.replace("a INT", "a INT CHECK (typeof(a) <> 'text')")
    migration.sql(old, "INSERT INTO t VALUES (1, 2)")
    steps = migration.plan(old.replace("a INT", "a TEXT"))
    assert "a constraint refuses the value that a gets" in steps[0].fails_on_data


def test_a_column_that_must_have_a_value_and_whose_default_is_null_is_announced_as_failing(migration):
    migration.sql(T, "INSERT INTO t VALUES (1, 2)")
    new = with_column("b INT NOT NULL DEFAULT NULL")
    (step,) = migration.plan(new)
    assert (step.operation, step.fails_on_data) == ("add_column_not_null_no_default", "there are rows, which have no b")
    with pytest.raises(IntegrityError):
        migration.execute([step])
    (step,) = migration.plan(new, values={("t", "b"): "7"})
    assert step.fails_on_data == "no"
    migration.to(new, values={("t", "b"): "7"})
    assert migration.sql("SELECT * FROM t") == [(1, 2, 7)]


def test_a_computed_column_that_is_null_for_a_row_may_fail_and_the_step_says_so(migration):
    migration.sql(T)
    steps = migration.plan(with_column("b INT NOT NULL AS (a + 1)"))
    assert steps[0].fails_on_data == "b is computed as NULL for a row"


@pytest.mark.parametrize(
    "constraint",
    ["UNIQUE (a)", "UNIQUE (id, a)", "CHECK (a <> 7)", "CONSTRAINT up FOREIGN KEY (a) REFERENCES t (id)"],
)
def test_a_value_for_rows_that_have_none_may_break_a_constraint_and_the_step_says_so(migration, constraint):
    old = T.replace("a INT", f"a INT, {constraint}")
    migration.sql(old)
    steps = migration.plan(old.replace("a INT", "a INT NOT NULL"), values={("t", "a"): "7"})
    assert steps[0].fails_on_data == "a constraint refuses the value that a gets"
    steps = migration.plan(T.replace("a INT", "a INT NOT NULL"), values={("t", "a"): "7"})
    assert steps[0].fails_on_data == "no"


@pytest.mark.parametrize("index", ["i ON t (a)", "i ON t ((a + 1))", "i ON t (c) WHERE a = 7"])
def test_a_value_for_rows_that_have_none_may_break_a_unique_index_and_the_step_says_so(migration, index):
    old = with_column("c INT")
    migration.sql(old, f"CREATE UNIQUE INDEX {index}", "INSERT INTO t VALUES (1, 7, 5), (2, NULL, 5)")
    new = (old.replace("a INT", "a INT NOT NULL"), f"CREATE UNIQUE INDEX {index}")
    (step,) = migration.plan(*new, values={("t", "a"): "7"})
    assert step.fails_on_data == "a constraint refuses the value that a gets"
    with pytest.raises(UniqueError):
        migration.execute([step])
    other = old.replace("a INT, c INT", "a INT, c INT NOT NULL")
    (step,) = migration.plan(other, f"CREATE UNIQUE INDEX {index}", values={("t", "c"): "5"})
    assert (step.fails_on_data == "no") == ("c" not in index.partition("(")[2])


# -- what the framework keeps on tables -------------------------------------------------------------------------------
FRAMEWORK = (
    "CREATE TABLE dataflow_log (x)",
    "CREATE TRIGGER dataflow_audit_t_insert AFTER INSERT ON t BEGIN INSERT INTO dataflow_log VALUES (new.a); END",
    "CREATE TRIGGER dataflow_audit_u_insert AFTER INSERT ON u BEGIN INSERT INTO dataflow_log VALUES (1); END",
    "CREATE VIEW dataflow_write_t_insert AS SELECT NULL AS c0",
    "CREATE TRIGGER dataflow_write_t_row INSTEAD OF INSERT ON dataflow_write_t_insert BEGIN DELETE FROM t; END",
    "CREATE TRIGGER dataflow_null_t_a BEFORE DELETE ON t BEGIN UPDATE u SET x = NULL WHERE x = OLD.id; END",
)


@pytest.mark.parametrize("new", ["CREATE TABLE t (id INTEGER PRIMARY KEY)", T.replace("a INT", "a TEXT NOT NULL")])
def test_the_frameworks_triggers_and_views_step_aside_where_they_are_in_the_way(migration, new):
    other = "CREATE TABLE u (x INT)"
    migration.sql(T, other, *FRAMEWORK)
    found = migration.inspect()
    assert list(found.tables) == ["t", "u"]
    assert not found.views
    assert list(found.tables["t"].triggers) == ["dataflow_null_t_a"]  # no feature would make it anew
    migration.to(new, other, FRAMEWORK[-1])
    names = [row[0] for row in migration.sql("SELECT name FROM sqlite_master WHERE name LIKE 'dataflow%'")]
    assert names == ["dataflow_log", "dataflow_audit_u_insert", "dataflow_null_t_a"]


def test_nothing_steps_aside_for_what_needs_no_room(migration):
    migration.sql(T, "CREATE TABLE u (x INT)", *FRAMEWORK)
    before = migration.sql("SELECT count(*) FROM sqlite_master WHERE name LIKE 'dataflow%'")
    migration.to(with_column("b INT"), "CREATE TABLE u (x INT)", "CREATE INDEX i ON t (a)", FRAMEWORK[-1])
    assert migration.sql("SELECT count(*) FROM sqlite_master WHERE name LIKE 'dataflow%'") == before


def test_an_index_that_is_renamed_with_its_column_is_renamed_back_with_it(migration):
    migration.sql("CREATE TABLE t (old INT)", "CREATE UNIQUE INDEX old ON t (old) WHERE old > 0")
    before = migration.inspect()
    wanted = migration.desired("CREATE TABLE t (new INT)", 'CREATE UNIQUE INDEX "index" ON t (new) WHERE new > 0')
    changes = [
        Change("rename_column", "t", "new", before="old", after="new"),
        Change(
            "rename_index",
            "t",
            "index",
            before=before.tables["t"].indexes["old"],
            after=wanted.tables["t"].indexes["index"],
        ),
    ]
    steps = migration.editor.steps(before, wanted, changes)
    migration.execute(steps)
    assert migration.inspect() == wanted
    migration.back(steps)
    assert migration.inspect() == before
