"""What the editor reads from PostgreSQL's catalogues, and from schemas that it builds aside."""

import time

import attrs
import pytest

from dataflow.catalog import Column, Constraint, EnumType, IndexKey, Sequence
from dataflow.dialect import COUNT, Command
from dataflow.errors import QueryError, SchemaError
from dataflow.postgres.migration.editor import PostgresEditor
from dataflow.session import atomic

EVERYTHING = r"""
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE SEQUENCE counts AS integer START WITH 5 INCREMENT BY 2 CYCLE;
CREATE FUNCTION "Twice"(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE PROCEDURE tidy(a text, b mood) LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE TABLE parents (
    tenant text COLLATE "C" NOT NULL,
    id serial,
    name varchar(40) UNIQUE DEFAULT 'x',
    PRIMARY KEY (tenant, id));
CREATE TABLE "Children" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "tenant" text COLLATE "C",
    parent integer,
    boss bigint REFERENCES "Children" ON DELETE SET NULL,
    mood mood DEFAULT 'sad',
    moods mood[] NOT NULL DEFAULT ARRAY['sad'::mood],
    size numeric(10, 2) CHECK (size > 0),
    lot positive,
    counted integer DEFAULT nextval('counts'),
    born timestamptz DEFAULT now(),
    doubled integer GENERATED ALWAYS AS (parent * 2) STORED,
    more jsonb,
    CONSTRAINT family FOREIGN KEY (tenant, parent) REFERENCES parents (tenant, id) ON DELETE CASCADE ON UPDATE RESTRICT
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT part FOREIGN KEY (tenant, parent) REFERENCES parents (tenant, id) ON DELETE SET NULL (parent),
    CONSTRAINT both_or_none UNIQUE NULLS NOT DISTINCT (tenant, boss) INCLUDE (born),
    CONSTRAINT apart EXCLUDE USING btree (parent WITH =));
CREATE INDEX by_name ON parents (lower(name), tenant DESC NULLS LAST) WHERE name <> 'x';
CREATE UNIQUE INDEX by_mood ON "Children" (mood DESC, "tenant" COLLATE "POSIX" text_pattern_ops)
    INCLUDE (born) NULLS NOT DISTINCT WITH (fillfactor = 70);
CREATE INDEX by_more ON "Children" USING gin (more jsonb_path_ops);
CREATE INDEX by_sum ON "Children" ((parent + 1), "Twice"(parent));
CREATE TRIGGER touched BEFORE UPDATE OF size ON "Children" FOR EACH ROW WHEN (NEW.size > 1) EXECUTE FUNCTION touch();
ALTER TABLE "Children" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Children" SET (fillfactor = 80);
CREATE POLICY own ON "Children" AS RESTRICTIVE FOR UPDATE USING (tenant = 'a') WITH CHECK (size > 2);
CREATE VIEW grown WITH (security_invoker = true) AS
    SELECT c.id, c.mood, p.name FROM "Children" c JOIN parents p USING (tenant);
CREATE VIEW names AS SELECT name AS "Name", 'happy'::mood AS m FROM grown;
CREATE MATERIALIZED VIEW sums AS SELECT tenant, count(*) AS n FROM parents GROUP BY tenant;
CREATE UNIQUE INDEX sums_key ON sums (tenant);
CREATE UNLOGGED TABLE logs (at date NOT NULL, text text);
CREATE TABLE events (at date NOT NULL, n int PRIMARY KEY, CHECK (n > 0)) PARTITION BY RANGE (n);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (10);
CREATE INDEX by_at ON events (at);
COMMENT ON TABLE parents IS 'who''s who';
COMMENT ON COLUMN parents.name IS 'of theirs';
COMMENT ON VIEW names IS 'seen';
CREATE TABLE dataflow_things (id serial PRIMARY KEY);
CREATE FUNCTION dataflow_touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER dataflow_touched BEFORE UPDATE ON parents FOR EACH ROW EXECUTE FUNCTION dataflow_touch();
CREATE SEQUENCE dataflow_counts;
CREATE TYPE dataflow_kind AS ENUM ('a');
"""


class Editing:
    """A schema of its own, and the editor of it."""

    def __init__(self, pg, **settings):
        self.pg = pg
        pg.server.execute(f"CREATE SCHEMA {pg.schema}")
        self.db = pg.open(**settings)
        self.editor = PostgresEditor(self.db.core.dialect)

    def run(self, program):
        return self.db.core.ask(program, write=True)

    def execute(self, sql):
        self.pg.server.execute(f"SET search_path = {self.pg.schema}, public; {sql}; SET search_path = public")

    def inspect(self):
        return self.run(self.editor.inspect())

    def desired(self, sql):
        return self.run(self.editor.desired(built(sql)))


def built(sql):
    yield Command(sql, COUNT, writes=True), ()


@pytest.fixture
def editing(pg):
    return Editing(pg)


def test_the_catalogue_tells_all_kinds_of_objects(editing):
    editing.execute(EVERYTHING)
    found = editing.inspect()
    assert sorted(found.tables) == ["Children", "events", "events_1", "logs", "parents"]
    assert sorted(found.views) == ["grown", "names", "sums"]
    assert sorted(found.functions) == ['"Twice"(integer)', "tidy(text, mood)", "touch()"]
    assert found.functions["tidy(text, mood)"].kind == "procedure"
    assert found.functions['"Twice"(integer)'].definition.startswith('CREATE OR REPLACE FUNCTION "Twice"(n integer)')
    assert found.enums == {"mood": EnumType("mood", ("sad", "it's ok", "happy"))}
    counting = "AS integer INCREMENT BY 2 MINVALUE 1 MAXVALUE 2147483647 START WITH 5 CACHE 1 CYCLE"
    assert found.sequences["counts"] == Sequence("counts", counting)
    assert found.sequences["parents_id_seq"].owner == "parents.id"
    assert len(found.sequences) == 2


def test_the_catalogue_tells_columns(editing):
    editing.execute(EVERYTHING)
    found = editing.inspect()
    parents, children = found.tables["parents"], found.tables["Children"]
    assert parents.columns == {
        "tenant": Column("tenant", "text", nullable=False, collation='"C"'),
        "id": Column("id", "integer", nullable=False, default="nextval('parents_id_seq'::regclass)"),
        "name": Column("name", "character varying(40)", default="'x'::character varying", comment="of theirs"),
    }
    assert parents.comment == "who's who"
    assert not parents.triggers
    assert children.columns["id"] == Column("id", "bigint", nullable=False, identity="always")
    assert children.columns["moods"] == Column("moods", "mood[]", nullable=False, default="ARRAY['sad'::mood]")
    assert children.columns["lot"].type == "positive"
    assert children.columns["doubled"] == Column("doubled", "integer", generated="(parent * 2)", stored=True)


def test_the_catalogue_tells_keys_indexes_and_what_surrounds_a_table(editing):
    editing.execute(EVERYTHING)
    found = editing.inspect()
    children = found.tables["Children"]
    assert [key.kind for key in children.constraints[:2]] == ["primary key", "unique"]
    keys = {key.name: key for key in children.constraints}
    definition = (
        "FOREIGN KEY (tenant, parent) REFERENCES parents(tenant, id) ON UPDATE RESTRICT ON DELETE CASCADE"
        " DEFERRABLE INITIALLY DEFERRED"
    )
    family = Constraint(
        "family", "foreign key", ("tenant", "parent"), definition, "parents", ("tenant", "id"), "CASCADE", "RESTRICT"
    )
    assert keys["family"] == family
    assert keys["Children_boss_fkey"].target == "Children"
    assert keys["part"].definition.endswith("ON DELETE SET NULL (parent)")
    by_mood = children.indexes["by_mood"]
    assert by_mood.keys == (
        IndexKey('"mood"', descending=True, nulls_first=True),
        IndexKey('"tenant"', nulls_first=False, collation='"POSIX"', operators="text_pattern_ops"),
    )
    assert by_mood.definition == (
        'CREATE UNIQUE INDEX "by_mood" ON "Children" USING "btree" ("mood" DESC, "tenant" COLLATE "POSIX"'
        " text_pattern_ops) INCLUDE (\"born\") NULLS NOT DISTINCT WITH (fillfactor='70')"
    )
    assert set(children.indexes) == {"by_mood", "by_more", "by_sum"}
    assert children.options == ("fillfactor=80", "row security")
    assert children.triggers["touched"].definition.startswith(
        'CREATE TRIGGER touched BEFORE UPDATE OF size ON "Children"'
    )
    assert found.tables["logs"].options == ("unlogged",)
    assert found.tables["events"].options == ("partition by RANGE (n)",)
    assert found.tables["events_1"].options == ("partition of events FOR VALUES FROM (1) TO (10)",)
    assert not found.tables["events_1"].indexes
    assert found.views["names"].reads == ("grown",)
    assert found.views["names"].columns == ("Name", "m")
    assert found.views["sums"].materialized
    assert set(found.views["sums"].indexes) == {"sums_key"}


def test_a_schema_built_aside_reads_as_the_same_objects_made_in_place(editing):
    editing.execute(EVERYTHING)
    found = editing.inspect()
    desired = editing.desired(EVERYTHING)
    for kind in attrs.fields_dict(type(found)):
        assert getattr(desired, kind) == getattr(found, kind)
    assert desired.fingerprint == found.fingerprint
    assert editing.inspect() == found
    assert not editing.pg.server.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dataflow_shadow%'")


def test_expressions_read_the_same_once_they_were_made_of_what_was_read(editing):
    editing.execute(r"""
        CREATE TABLE t (s varchar(9) CHECK (s IN ('a', 'it''s', E'b\\\\c')), n varchar CHECK (n NOT IN ('x', NULL)),
            g text GENERATED ALWAYS AS (CASE WHEN s IN ('a', 'b') THEN 'x' END) STORED);
        CREATE INDEX i ON t ((s IN ('a', 'b'))) WHERE s IN ('a', 'b');
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER w BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.s IN ('a', 'b')) EXECUTE FUNCTION f();
        CREATE POLICY p ON t USING (s IN ('a', 'b')) WITH CHECK (s IN ('a', 'b'));
        CREATE VIEW v AS SELECT s FROM t WHERE s IN ('a', 'b');
    """)
    found = editing.inspect()
    table, view = found.tables["t"], found.views["v"]
    for check in (each for each in table.constraints if each.kind == "check"):
        editing.execute(f"ALTER TABLE t DROP CONSTRAINT {check.name}, ADD CONSTRAINT {check.name} {check.definition}")
    editing.execute(f"DROP INDEX i; {table.indexes['i'].definition}")
    editing.execute(f"DROP TRIGGER w ON t; {table.triggers['w'].definition}")
    editing.execute(f"DROP POLICY p ON t; {table.policies['p'].definition}")
    editing.execute(f"CREATE OR REPLACE VIEW v AS {view.definition}")
    editing.execute(
        f"ALTER TABLE t DROP g; ALTER TABLE t ADD g text GENERATED ALWAYS AS ({table.columns['g'].generated}) STORED"
    )
    assert editing.inspect() == found


def test_a_schema_built_aside_sees_types_of_the_schema_after_it(editing):
    editing.execute("CREATE TYPE shared AS ENUM ('a')")
    desired = editing.desired("CREATE TABLE t (x shared)")
    assert desired.tables["t"].columns["x"].type == "shared"


def test_models_are_built_aside(editing):
    core = editing.db.core
    models = list(core.models.values())
    desired = editing.run(editing.editor.desired(core._create_locked(models)))
    assert set(desired.tables) == {"rows", "notes"}
    assert "rows_n" in desired.tables["rows"].indexes
    assert not editing.inspect().tables
    core.ensure_sync(models)
    assert editing.inspect() == desired


def test_what_fails_while_it_is_built_aside_leaves_nothing(editing):
    with pytest.raises(QueryError):
        editing.desired("CREATE TABLE t (x int); SELECT nothing")
    assert not editing.pg.server.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'dataflow_shadow%'")
    assert editing.inspect().tables == {}


def test_a_schema_is_built_aside_within_an_open_transaction(editing):
    core = editing.db.core
    call = core.own_call()

    def both():
        yield Command("CREATE TABLE t (x int)", COUNT, writes=True), ()
        desired = yield from editing.editor.desired(built("CREATE TABLE u (x int)"))
        with pytest.raises(QueryError):
            yield from editing.editor.desired(built("SELECT nothing"))
        return desired

    desired = core.run_sync(atomic(call, both()), call, write=True, holder="test")
    assert list(desired.tables) == ["u"]
    assert list(editing.inspect().tables) == ["t"]


def test_who_may_not_create_schemas_is_told_so(editing):
    name, url = editing.pg.name, editing.pg.url
    server = editing.pg.server
    server.execute(f"CREATE ROLE {name} LOGIN; GRANT USAGE, CREATE ON SCHEMA {editing.pg.schema} TO {name}")
    host = url.rpartition("@")[2]
    db = editing.pg.open(f"postgresql://{name}@{host}")
    try:
        with pytest.raises(SchemaError) as caught:
            db.core.ask(PostgresEditor(db.core.dialect).desired(built("SELECT 1")))
        assert caught.value.code == "no-privilege"
    finally:
        db.close()
        server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_large_schema_is_read_quickly(editing):
    editing.execute(
        """
        DO $$ BEGIN
            FOR n IN 0..999 LOOP
                EXECUTE format('CREATE TABLE t%s (id bigint PRIMARY KEY, a text NOT NULL, b int DEFAULT 3,'
                    'c timestamptz, d bigint, e bigint, f numeric(10, 2), g boolean DEFAULT false)', n);
                EXECUTE format('CREATE INDEX i%s ON t%s (a, b DESC)', n, n);
                EXECUTE format('ALTER TABLE t%s ADD CONSTRAINT f%s FOREIGN KEY (d) REFERENCES t%s,'
                    'ADD CONSTRAINT g%s FOREIGN KEY (e) REFERENCES t%s', n, n, n / 2, n, n / 3);
            END LOOP;
        END $$"""
    )
    editing.pg.server.execute("ANALYZE pg_catalog.pg_class, pg_catalog.pg_attribute, pg_catalog.pg_constraint")
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        found = editing.inspect()
        taken.append(time.perf_counter() - start)
    assert len(found.tables) == 1000
    assert sum(key.kind == "foreign key" for table in found.tables.values() for key in table.constraints) == 2000
    print(f"1,000 tables: {[round(each, 3) for each in taken]} s")
    assert min(taken) < 1.0
