"""What is made anew keeps its owner, its privileges, its comments, and what hangs on it."""

import importlib.util
import sys
from pathlib import Path

import pytest

from dataflow.changes import Change
from dataflow.dialect import COUNT, Command
from dataflow.errors import SchemaError
from dataflow.postgres.migration.editor import PostgresEditor


def _load(name):
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


one = _load("migration_cases").one
RIGHTS = """
SELECT * FROM (
    SELECT relname::text, pg_get_userbyid(relowner)::text,
           ARRAY(SELECT format('%s %s %s', coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable)
                 FROM aclexplode(coalesce(relacl, acldefault('r', relowner))) LEFT JOIN pg_roles ON oid = grantee
                 ORDER BY 1),
           obj_description(pg_class.oid, 'pg_class'), reloptions::text
    FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('v', 'm', 'r')
    UNION ALL
    SELECT proname::text, pg_get_userbyid(proowner)::text,
           ARRAY(SELECT format('%s %s %s', coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable)
                 FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) LEFT JOIN pg_roles ON oid = grantee
                 ORDER BY 1),
           obj_description(pg_proc.oid, 'pg_proc'), ''
    FROM pg_proc WHERE pronamespace = to_regnamespace(current_schema())
    UNION ALL
    SELECT typname::text, pg_get_userbyid(typowner)::text,
           ARRAY(SELECT format('%s %s %s', coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable)
                 FROM aclexplode(coalesce(typacl, acldefault('T', typowner))) LEFT JOIN pg_roles ON oid = grantee
                 ORDER BY 1),
           obj_description(pg_type.oid, 'pg_type'), ''
    FROM pg_type WHERE typnamespace = to_regnamespace(current_schema()) AND typtype = 'e'
    UNION ALL
    SELECT relname || '.' || attname, '',
           ARRAY(SELECT format('%s %s %s', coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable)
                 FROM aclexplode(attacl) LEFT JOIN pg_roles ON oid = grantee ORDER BY 1),
           col_description(attrelid, attnum), (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                               WHERE adrelid = attrelid AND adnum = attnum)
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('v', 'm', 'r')
    UNION ALL
    SELECT tgname::text, tgenabled::text, NULL, obj_description(pg_trigger.oid, 'pg_trigger'), ''
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace = to_regnamespace(current_schema()) AND NOT tgisinternal
    UNION ALL
    SELECT polname::text, '', NULL, obj_description(pg_policy.oid, 'pg_policy'), ''
    FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE relnamespace = to_regnamespace(current_schema())
    UNION ALL
    SELECT relname::text, indisclustered::text, NULL, obj_description(indexrelid, 'pg_class'), ''
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = to_regnamespace(current_schema())
    UNION ALL
    SELECT conname::text, '', NULL, obj_description(oid, 'pg_constraint'), ''
    FROM pg_constraint WHERE connamespace = to_regnamespace(current_schema()) AND contype <> 'n'
    UNION ALL
    SELECT tablename || '.' || rulename, '', NULL, definition, '' FROM pg_rules WHERE schemaname = current_schema()
) AS listed ORDER BY 1, 2, 3"""
SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION twice(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$;
CREATE TABLE t (i integer NOT NULL, n integer, mood mood, g integer GENERATED ALWAYS AS (i * 2) STORED,
    CONSTRAINT t_positive CHECK (i > 0));
CREATE INDEX t_n ON t (n);
CREATE TRIGGER t_touched BEFORE UPDATE OF i ON t FOR EACH ROW EXECUTE FUNCTION touch();
CREATE POLICY t_own ON t USING (i > 0);
CREATE VIEW seen WITH (security_barrier=true, security_invoker=true) AS SELECT i, n FROM t;
COMMENT ON VIEW seen IS 'it''s seen';
CREATE VIEW open AS SELECT i FROM seen;
CREATE VIEW part AS SELECT i FROM t;
CREATE MATERIALIZED VIEW sums AS SELECT n, sum(i) AS i FROM t GROUP BY n;
CREATE UNIQUE INDEX sums_n ON sums (n);
"""
BESIDE = """
GRANT SELECT, INSERT ON seen TO {reader} WITH GRANT OPTION;
GRANT SELECT ON seen TO PUBLIC;
GRANT UPDATE (n), SELECT (i) ON seen TO {writer};
GRANT SELECT ON sums TO {reader};
REVOKE ALL ON open FROM {user};
GRANT SELECT (i) ON part TO {reader};
GRANT SELECT (g) ON t TO {reader};
GRANT UPDATE (g) ON t TO {writer} WITH GRANT OPTION;
REVOKE EXECUTE ON FUNCTION twice(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION twice(integer) TO {reader};
REVOKE USAGE ON TYPE mood FROM PUBLIC;
GRANT USAGE ON TYPE mood TO {writer};
COMMENT ON COLUMN seen.n IS 'back\\slash';
COMMENT ON INDEX sums_n IS 'key';
COMMENT ON FUNCTION twice(integer) IS 'two';
COMMENT ON TYPE mood IS 'how it is';
COMMENT ON TRIGGER t_touched ON t IS 'touches';
COMMENT ON POLICY t_own ON t IS 'own rows';
COMMENT ON INDEX t_n IS 'by n';
COMMENT ON CONSTRAINT t_positive ON t IS 'above zero';
ALTER TABLE t ENABLE ALWAYS TRIGGER t_touched;
ALTER VIEW seen ALTER COLUMN n SET DEFAULT 7;
CREATE RULE quiet AS ON DELETE TO seen DO INSTEAD NOTHING;
ALTER MATERIALIZED VIEW sums CLUSTER ON sums_n;
ALTER VIEW seen OWNER TO {writer};
ALTER MATERIALIZED VIEW sums OWNER TO {writer};
ALTER FUNCTION twice(integer) OWNER TO {writer};
ALTER TYPE mood OWNER TO {writer};
"""
ANEW = [
    *(one("drop_view", "", name) for name in ("open", "seen", "sums", "part")),
    one("drop_trigger", "t", "t_touched"), one("drop_policy", "t", "t_own"), one("drop_index", "t", "t_n"),
    one("drop_constraint", "t", "t_positive"), one("drop_column", "t", "g"),
    one("alter_enum", "", "mood"), one("alter_function", "", "twice(integer)"), one("alter_column", "t", "i"),
    one("add_column", "t", "g"), one("add_constraint", "t", "t_positive"), one("create_index", "t", "t_n"),
    *(one("create_view", "", name) for name in ("sums", "seen", "open", "part")),
    one("create_trigger", "t", "t_touched"), one("create_policy", "t", "t_own"),
]  # fmt: skip


class Place:
    """A schema of its own, an editor, and roles that go with the test."""

    def __init__(self, pg):
        self.pg = pg
        self.user = pg.server.rows("SELECT current_user::text")[0][0]
        pg.server.execute(f"CREATE SCHEMA {pg.schema}; SET search_path = {pg.schema}, public")
        self.roles = {"reader": f"{pg.schema}_Reader", "writer": f"{pg.schema} writer"}
        for role in self.roles.values():
            pg.server.execute(f'CREATE ROLE "{role}"; GRANT USAGE, CREATE ON SCHEMA {pg.schema} TO "{role}"')
        self.db = pg.open()
        self.editor = PostgresEditor(self.db.core.dialect)

    def execute(self, sql):
        names = {name: f'"{role}"' for name, role in self.roles.items()}
        self.pg.server.execute(sql.format(**names, user=self.user) if "{" in sql else sql)

    def inspect(self):
        return self.db.core.ask(self.editor.inspect(), write=True)

    def desired(self, sql):
        def build():
            yield Command(sql, COUNT, writes=True), ()

        return self.db.core.ask(self.editor.desired(build()), write=True)

    def rights(self):
        return self.pg.server.rows(RIGHTS)

    def carry_out(self, statements):
        self.pg.server.execute("BEGIN; " + "; ".join(statements) + "; COMMIT")


@pytest.fixture
def place(pg):
    found = Place(pg)
    yield found
    pg.server.execute(f"ROLLBACK; RESET ROLE; RESET search_path; DROP SCHEMA {pg.schema} CASCADE")
    for role in found.roles.values():
        pg.server.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')


def anew(place, sql, listed=ANEW):
    """Return the steps that make everything anew, `sql` being what is different then."""
    found, wanted = place.inspect(), place.desired(sql)
    made = []
    for kind, table, name, value in listed:
        what = {"table": "tables", "view": "views", "function": "functions", "enum": "enums"}.get(kind.split("_")[1])
        sides = []
        for catalog in (found, wanted):
            if what:
                sides.append(getattr(catalog, what).get(name))
                continue
            own = catalog.tables[table]
            kept = {c.name: c for c in own.constraints} | dict(own.indexes) | dict(own.triggers) | dict(own.policies)
            sides.append({**kept, **own.columns}[name])
        before, after = sides
        before, after = None if kind.startswith(("create", "add")) else before, None if "drop" in kind else after
        made.append(Change(kind, table, name, before, after, value))
    return place.editor.steps(found, wanted, made)


OTHER = SCHEMA.replace("i integer NOT NULL", "i bigint NOT NULL").replace("'sad', 'happy'", "'happy', 'sad'")
OTHER = OTHER.replace("twice(n integer) RETURNS integer", "twice(m integer) RETURNS integer").replace("n * 2", "m * 2")


@pytest.mark.parametrize("granted", ["", "GRANT ALL ON TABLES TO PUBLIC"])
def test_what_is_made_anew_is_as_it_was_but_for_what_changed(place, granted):
    place.execute(SCHEMA)
    place.execute(BESIDE)
    before = place.rights()
    assert len({row[1] for row in before if row[0] in ("seen", "open")}) == 2
    if granted:  # privileges that any new object has are none of the old one's
        place.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {place.pg.schema} {granted}")
    steps = anew(place, OTHER)
    place.carry_out(sql for step in steps for sql in step.sql)
    assert place.rights() == before
    assert place.inspect().views.keys() == {"seen", "open", "sums", "part"}


def test_undoing_it_gives_everything_back_as_well(place):
    place.execute(SCHEMA)
    place.execute(BESIDE)
    before = place.rights()
    listed = [change for change in ANEW if change[2] not in ("i", "mood", "twice(integer)")]
    steps = anew(place, SCHEMA, listed)
    place.carry_out(sql for step in steps for sql in step.sql)
    place.carry_out(sql for step in reversed(steps) for sql in step.inverse)
    assert place.rights() == before


def test_a_view_that_cannot_be_given_back_to_its_owner_is_announced(place):
    writer, reader = place.roles["writer"], place.roles["reader"]
    place.execute(SCHEMA)
    place.execute(
        "ALTER TABLE t OWNER TO {reader}; ALTER TYPE mood OWNER TO {reader}; ALTER VIEW open OWNER TO {reader};"
        "ALTER MATERIALIZED VIEW sums OWNER TO {reader}; ALTER VIEW seen OWNER TO {writer}; GRANT ALL ON t TO {writer};"
        "GRANT SELECT ON seen TO {reader};"
    )
    place.pg.server.execute(f'ALTER SCHEMA {place.pg.schema} OWNER TO "{reader}"')
    own = place.db.core

    def as_reader():
        yield Command(f'SET ROLE "{reader}"', COUNT), ()
        found = yield from place.editor.inspect()
        yield Command("RESET ROLE", COUNT), ()
        return found

    found = own.ask(as_reader(), write=True)
    changes = [Change("drop_view", "", name, found.views[name]) for name in ("open", "seen")]
    changes += [Change("create_view", "", name, None, found.views[name]) for name in ("seen", "open")]
    steps = place.editor.steps(found, found, changes)
    assert [f'cannot be given to "{writer}"' in step.summary for step in steps] == [False, False, True, False]
    place.pg.server.execute(f'SET ROLE "{reader}"')
    place.carry_out(sql for step in steps for sql in step.sql)
    place.pg.server.execute("RESET ROLE")
    rights = {row[0]: row for row in place.rights()}
    assert rights["seen"][1] == reader
    assert f"{writer} SELECT f" in rights["seen"][2]


def test_nothing_is_written_where_there_is_nothing_to_keep(place):
    place.execute(SCHEMA)
    steps = anew(place, SCHEMA, [one("drop_view", "", "open"), one("create_view", "", "open")])
    assert [len(step.sql) for step in steps] == [1, 1]


def test_a_rule_that_names_what_is_renamed_is_refused_before_anything_is_done(place):
    place.execute(SCHEMA + "CREATE RULE kept AS ON INSERT TO seen DO INSTEAD INSERT INTO t (i) VALUES (new.i);")
    found = place.inspect()
    changes = [
        Change("rename_table", "u", "u", "t", "u"),
        Change("drop_view", "", "seen", found.views["seen"]),
        Change("create_view", "", "seen", None, found.views["seen"]),
    ]
    with pytest.raises(SchemaError, match="a rule of it names t, which is renamed"):
        place.editor.steps(found, found, changes)
