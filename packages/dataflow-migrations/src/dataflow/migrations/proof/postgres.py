"""Random schemas of PostgreSQL, and the statements that make them."""

# ruff: noqa: S608  # names are quoted, and values are none of anybody's

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from dataflow.migrations.proof.drawing import Drawer
from dataflow.migrations.proof.schema import Column, Part, Schema, in_order, mark

VALUES: Mapping[str, Sequence[str]] = {
    "smallint": ("0", "1", "7", "-3", "32767"),
    "integer": ("0", "1", "2", "7", "-3", "100", "2147483647"),
    "bigint": ("0", "1", "2", "3", "-9", "9007199254740993"),
    "numeric(10,2)": ("0", "1.10", "-2.55", "99999999.99"),
    "numeric": ("0", "1.5", "3.14159265358979", "1000000"),
    "real": ("0", "1.5", "-2.25"),
    "double precision": ("0", "1.5", "0.1", "-1e100"),
    "text": ("", "a", "B", "ab c", "12", "it''s", "ünï", "null"),
    "character varying(20)": ("", "a", "B", "abcdefghij", "7"),
    "character varying": ("", "x", "yy", "8"),
    "character(8)": ("a", "bb", "12345678"),
    "boolean": ("true", "false"),
    "date": ("2024-02-29", "1999-12-31", "2001-01-01"),
    "timestamp without time zone": ("2024-02-29 12:30:00", "1999-12-31 23:59:59.5"),
    "timestamp with time zone": ("2024-02-29 12:30:00+00", "1999-12-31 23:59:59.5+02"),
    "time without time zone": ("12:30:00", "23:59:59.25"),
    "interval": ("1 day", "02:00:00", "1 mon 3 days"),
    "uuid": ("00000000-0000-0000-0000-000000000001", "6f6c2f70-7b0a-4b4c-8e24-4f6d1f1f0a01"),
    "json": ("{}", '{"a": 1}', "[1, 2]"),
    "jsonb": ("{}", '{"a": 1}', "[1, 2]", "null"),
    "bytea": ("\\x", "\\x00ff"),
    "inet": ("10.0.0.1", "::1", "10.1.0.0/16"),
    "bit(4)": ("0101", "1111"),
    "integer[]": ("{}", "{1,2}", "{7}"),
    "text[]": ("{}", "{a,b}", "{NULL,x}"),
    "int4range": ("[1,5)", "empty", "[7,9)"),
}
NUMBERS = ("smallint", "integer", "bigint", "numeric(10,2)", "numeric", "real", "double precision")
TEXTS = ("text", "character varying(20)", "character varying", "character(8)")
TIMES = ("date", "timestamp without time zone", "timestamp with time zone")
_KEYS = ("smallint", "integer", "bigint", "text", "character varying(20)", "date", "uuid", "numeric(10,2)")
_DEFAULTS: Mapping[str, Sequence[str]] = {
    "integer": ("(1 + 2)", "((random() * 1000))::integer"),
    "double precision": ("random()",),
    "text": ("lower('AB')", "CURRENT_USER", "'a (b)'"),
    "date": ("CURRENT_DATE",),
    "timestamp without time zone": ("now()", "CURRENT_TIMESTAMP"),
    "timestamp with time zone": ("now()", "clock_timestamp()"),
    "uuid": ("gen_random_uuid()",),
    "integer[]": ("ARRAY[1, 2]",),
    "jsonb": ("jsonb_build_object('a', 1)",),
}
_METHODS: Mapping[str, Sequence[str]] = {
    "jsonb": ("gin", "gin jsonb_path_ops"), "integer[]": ("gin",), "text[]": ("gin",), "int4range": ("gist", "spgist"),
    "inet": ("gist inet_ops", "spgist"), "text": ("hash", "spgist", "btree text_pattern_ops"),
    "integer": ("hash", "brin"), "date": ("brin", "hash"), "uuid": ("hash",), "bigint": ("brin",),
    "character varying(20)": ("btree varchar_pattern_ops",),
}  # fmt: skip


class PostgresDrawer(Drawer):
    """Draws schemas of PostgreSQL."""

    name = "postgres"
    kinds: ClassVar[Mapping[str, int]] = {
        "column": 6, "index": 5, "foreign key": 4, "check": 3, "unique": 2, "primary key": 1, "table": 1, "view": 3,
        "trigger": 2, "policy": 1, "function": 1, "sequence": 1, "enum": 1,
    }  # fmt: skip
    retypes: ClassVar[Mapping[str, Sequence[str]]] = {
        "smallint": ("integer", "bigint", "numeric", "text", "real"),
        "integer": ("bigint", "smallint", "numeric(10,2)", "text", "character varying(20)", "double precision",
                    "integer[]"),
        "bigint": ("integer", "numeric", "text"),
        "numeric(10,2)": ("numeric(12,2)", "numeric", "numeric(8,1)", "integer", "text", "double precision"),
        "numeric": ("numeric(10,2)", "bigint", "text"),
        "real": ("double precision", "numeric"),
        "double precision": ("real", "numeric", "text"),
        "text": ("character varying(20)", "character varying", "integer", "uuid", "jsonb", "character(8)", "date"),
        "character varying(20)": ("character varying(40)", "text", "character varying(3)", "character varying"),
        "character varying": ("text", "character varying(20)", "integer"),
        "character(8)": ("text", "character varying(20)", "character(12)"),
        "boolean": ("integer", "text"),
        "date": ("timestamp without time zone", "timestamp with time zone", "text"),
        "timestamp without time zone": ("timestamp with time zone", "date", "timestamp(3) without time zone"),
        "timestamp with time zone": ("timestamp without time zone", "date"),
        "time without time zone": ("interval", "text"),
        "interval": ("text",),
        "uuid": ("text",),
        "json": ("jsonb", "text"),
        "jsonb": ("json", "text"),
        "inet": ("text",),
        "bit(4)": ("bit varying", "text", "bit(6)"),
        "integer[]": ("bigint[]", "text[]", "integer"),
        "text[]": ("text", "character varying(20)[]"),
    }  # fmt: skip

    def before_tables(self) -> None:
        for kind in ("enum", "function", "sequence"):
            while self.chance(0.35):
                self.draw(kind)

    # -- tables and columns -------------------------------------------------------------------------------------------
    def table_options(self, table: Part) -> tuple[str, ...]:
        serial = any(column.identity == "serial" for column in self.schema.columns(table.id))
        words = {"row security": 0.08, "force row security": 0.04, "fillfactor=70": 0.08, "unlogged": 0.04}
        chosen = [word for word, share in words.items() if self.chance(share)]
        if serial and "unlogged" in chosen:  # the catalog does not say that its sequence is unlogged as well
            chosen.remove("unlogged")
        return tuple(chosen)

    def key_column(self, table: Part) -> None:
        identity = self.pick(("serial", "always", "by default", "", ""))
        type_ = self.pick(("integer", "bigint"))
        column = self.add(
            Column(self.number, "column", self.fresh("id"), table.id, type=type_, nullable=False, identity=identity)
        )
        self.constraint("primary key", table, f"PRIMARY KEY ({mark(column)})")

    def type(self) -> str:
        enums = self.schema.of("enum")
        if enums and self.chance(0.15):
            return mark(self.pick(enums)) + ("[]" if self.chance(0.15) else "")
        if self.chance(0.5):
            return self.pick(("integer", "text", "bigint", "numeric(10,2)", "character varying(20)", "boolean"))
        return self.pick(list(VALUES))

    def default(self, type_: str) -> str | None:
        if type_ in ("integer", "bigint") and self.chance(0.25):
            sequences = self.schema.of("sequence")
            functions = [f for f in self.schema.of("function") if f.options == ("integer",)]
            if sequences and self.chance(0.5):
                return f"nextval('§{self.pick(sequences).id}§'::regclass)"
            if functions:
                return f"{mark(self.pick(functions))}(3)"
        own = _DEFAULTS.get(type_, ())
        if own and self.chance(0.5):
            return self.pick(own)
        return f"'{self.pick(self.values(type_))}'"

    def values(self, type_: str) -> Sequence[str]:
        """Return values of a type, as they stand in quotes."""
        if type_.startswith("«"):
            enum = self.schema.parts[int(type_.strip("«»[]"))]
            labels = [label.replace("'", "''") for label in enum.options]
            return [f"{{{label}}}" for label in ("", *labels[:1])] if type_.endswith("[]") else labels
        return VALUES.get(type_) or VALUES.get(_plain(type_)) or ("",)

    def collation(self, type_: str) -> str | None:
        return self.pick(('"C"', '"POSIX"', '"und-x-icu"')) if type_ in TEXTS else None

    def computed(self, columns: Sequence[Column], *, stored: bool) -> tuple[str, str] | None:
        one = self.pick(columns)
        name = mark(one)
        if one.type in ("integer", "bigint", "numeric"):
            return one.type, self.pick(
                (f"({name} + 1)" if stored else f"({name} / 2)", f"({name} % 10)", f"COALESCE({name}, 0)")
            )
        if one.type in ("text", "character varying(20)", "character varying"):
            return self.pick((("text", f"upper({name})"), ("integer", f"length({name})"), ("text", f"({name} || 'x')")))
        return "boolean", f"({name} IS NULL)"

    def condition(self, columns: Sequence[Column]) -> str:
        if not columns:
            return "(1 = 1)"
        one, other = self.pick(columns), self.pick(columns)
        name = mark(one)
        plain = (f"({name} IS NOT NULL)", f"(({name} IS NULL) OR ({mark(other)} IS NOT NULL))")
        if one.type in NUMBERS:
            choice = (f"({name} > -1000)", f"({name} >= 0)", f"({name} <> 5)", f"({name} IN (0, 1, 2, 7))")
        elif one.type in TEXTS:
            choice = (f"(length({name}) < 50)", f"({name} <> 'zz')", f"({name} ~ '^[a-z0-9 ]*$')", f"({name} <> '')")
        elif one.type in TIMES:
            choice = (f"({name} > '2000-01-01')", *plain, plain[1])
        elif one.type == "boolean":
            choice = (name, f"(NOT {name})", *plain)
        elif one.type.startswith("«") and not one.type.endswith("]"):
            choice = (f"({name} <> '{self.values(one.type)[0]}')", f"({name}::text <> 'none')", *plain)
        else:
            choice = (plain[0], plain[1], plain[0], plain[1])
        return self.pick((*choice, *choice, plain[1]))

    def keyable(self, table: Part, count: int) -> list[Column]:
        fit = [c for c in self.schema.columns(table.id) if c.type in _KEYS and (c.generated is None or c.stored)]
        self.rng.shuffle(fit)
        return fit[:count]

    def unique_words(self) -> str:
        return "NULLS NOT DISTINCT " if self.chance(0.1) else ""

    def deferrable(self) -> str:
        return self.pick((" DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED")) if self.chance(0.15) else ""

    # -- indexes ------------------------------------------------------------------------------------------------------
    def index(self) -> Part | None:
        """Draw an index."""
        table = self.some_table()
        columns = self.schema.columns(table.id) if table else []
        columns = [c for c in columns if c.type in VALUES and c.type != "json" and (c.generated is None or c.stored)]
        if table is None or not columns:
            return None
        one = self.pick(columns)
        special = _METHODS.get(one.type, ())
        if special and self.chance(0.35):
            method, _, operators = self.pick(special).partition(" ")
            body = f"USING {method} ({mark(one)} {operators})"
            unique = ""
        else:
            keys = self.rng.sample(columns, min(len(columns), self.rng.randint(1, 3)))
            unique = "UNIQUE " if self.chance(0.15) else ""
            body = f"({', '.join(map(self.key, keys))})"
            others = [c for c in columns if c not in keys]
            body += f" INCLUDE ({mark(self.pick(others))})" if others and self.chance(0.15) else ""
            body += " NULLS NOT DISTINCT" if unique and self.chance(0.2) else ""
            body += " WITH (fillfactor='80')" if self.chance(0.1) else ""
        body += f" WHERE {self.condition([c for c in columns if c.generated is None])}" if self.chance(0.2) else ""
        number = self.number
        text = f"CREATE {unique}INDEX {mark(number)} ON {mark(table)} {body}"
        return self.add(Part(number, "index", self.fresh(), table.id, text))

    def key(self, column: Column) -> str:
        """Return a key of an index: a column or an expression."""
        name = mark(column)
        if column.type in TEXTS and self.chance(0.3):
            return self.pick((f"lower({name})", f'{name} COLLATE "C"', f"({name} || 'a')"))
        if column.type in NUMBERS and self.chance(0.15):
            return f"(({name} + 1))"
        return name + self.pick(("", "", "", " DESC", " DESC NULLS LAST", " NULLS FIRST"))

    # -- views, triggers, policies ------------------------------------------------------------------------------------
    def view(self) -> Part | None:
        """Draw a view of a table, of two, or of another view."""
        views, table = self.schema.of("view"), self.some_table()
        number = self.number
        stored = self.chance(0.25)
        if views and self.chance(0.35):
            query = f"SELECT x0 AS x0 FROM {mark(self.pick(views))}"
        elif table is None:
            return None
        else:
            query = self.query(table)
        word = "MATERIALIZED VIEW" if stored else "VIEW"
        options = " WITH (security_invoker=true)" if not stored and self.chance(0.1) else ""
        text = f"CREATE {word} {mark(number)}{options} AS {query}"
        return self.add(Part(number, "view", self.fresh(), 0, text, (word,), self.comment()))

    def query(self, table: Part) -> str:
        """Return a query of a table."""
        columns = self.schema.columns(table.id)
        some = self.rng.sample(columns, min(len(columns), self.rng.randint(1, 3)))
        listed = ", ".join(f"{mark(column)} AS x{place}" for place, column in enumerate(some))
        if self.chance(0.15):
            return f"SELECT count({mark(some[0])}) AS x0 FROM {mark(table)}"
        other = self.some_table()
        if other is not None and other.id != table.id and self.chance(0.2):
            theirs = mark(self.pick(self.schema.columns(other.id)))
            return f"SELECT a.{mark(some[0])} AS x0, b.{theirs} AS x1 FROM {mark(table)} a CROSS JOIN {mark(other)} b"
        where = f" WHERE {self.condition([c for c in columns if c.generated is None])}" if self.chance(0.4) else ""
        return f"SELECT {listed} FROM {mark(table)}{where}"

    def trigger(self) -> Part | None:
        """Draw a trigger, with a function if there is none for it."""
        table = self.some_table()
        if table is None:
            return None
        functions = [function for function in self.schema.of("function") if function.options == ("trigger",)]
        function = self.pick(functions) if functions else self.function("trigger")
        column = self.pick(self.schema.columns(table.id))
        event = self.pick(("UPDATE", f"UPDATE OF {mark(column)}", "INSERT OR UPDATE", "DELETE"))
        when = ""
        if event.startswith("UPDATE") and column.type != "json" and self.chance(0.3):
            when = f" WHEN (OLD.{mark(column)} IS DISTINCT FROM NEW.{mark(column)})"
        time = "AFTER" if column.generated is not None and when else self.pick(("BEFORE", "AFTER"))
        number = self.number
        text = f"CREATE TRIGGER {mark(number)} {time} {event} ON {mark(table)} FOR EACH ROW{when}"
        if self.chance(0.1) and time == "AFTER":
            text = text.replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER").replace(
                " FOR EACH ROW", " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            )
        text += f" EXECUTE FUNCTION {mark(function)}()"
        return self.add(Part(number, "trigger", self.fresh(), table.id, text))

    def policy(self) -> Part | None:
        """Draw a policy of row-level security."""
        table = self.some_table()
        if table is None:
            return None
        command = self.pick(("ALL", "SELECT", "INSERT", "UPDATE"))
        kind = self.pick(("PERMISSIVE", "PERMISSIVE", "RESTRICTIVE"))
        condition = self.condition(self.schema.columns(table.id))
        clause = f"WITH CHECK ({condition})" if command == "INSERT" else f"USING ({condition})"
        number = self.number
        text = f"CREATE POLICY {mark(number)} ON {mark(table)} AS {kind} FOR {command} TO PUBLIC {clause}"
        return self.add(Part(number, "policy", self.fresh(), table.id, text))

    # -- what belongs to no table -------------------------------------------------------------------------------------
    def function(self, kind: str = "") -> Part:
        """Draw a function."""
        number = self.number
        kind = kind or self.pick(("trigger", "integer", "setof"))
        table = self.some_table()
        head = f"CREATE FUNCTION {mark(number)}"
        if kind == "trigger":
            word = self.pick(("NEW", "COALESCE(NEW, OLD)"))
            text = f"{head}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN {word}; END $$"
        elif kind == "integer" or table is None:
            kind = "integer"
            text = (
                f"{head}(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT n * {self.rng.randint(1, 4)} $$"
            )
        else:
            text = f"{head}() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM {mark(table)} $$"
        return self.add(Part(number, "function", self.fresh(), 0, text, (kind,)))

    def sequence(self) -> Part:
        """Draw a sequence."""
        number = self.number
        how = self.pick(("", " INCREMENT BY 5", " AS integer START WITH 100", " MINVALUE 1 MAXVALUE 1000 CYCLE"))
        return self.add(Part(number, "sequence", self.fresh(), 0, f"CREATE SEQUENCE {mark(number)}{how}"))

    def enum(self) -> Part:
        """Draw an enum type."""
        labels = self.rng.sample(("sad", "ok", "happy", "it's", "Very Odd", "x,y"), self.rng.randint(1, 4))
        name = self.fresh(self.pick(("mood", "Mood", "of it's kind", "state")))  # not that of a type PostgreSQL has
        return self.add(Part(self.number, "enum", name, 0, "", tuple(labels)))

    def referring(self, column: Column) -> str:
        return "bigint" if column.type == "integer" and self.chance(0.2) else column.type


def _plain(type_: str) -> str:
    """Return a type of which values are known that another type has as well."""
    base = type_.partition("(")[0]
    return next((known for known in VALUES if known.partition("(")[0] == base), "text")


# -- statements -------------------------------------------------------------------------------------------------------
def statements(schema: Schema, quote: Callable[[str], str]) -> list[str]:
    """Return the statements that make a schema from nothing."""
    made = [f"CREATE TYPE {mark(e)} AS ENUM ({', '.join(map(_literal, e.options))})" for e in schema.of("enum")]
    made = ["SET LOCAL check_function_bodies = off", *made]
    made += [part.text for part in in_order(schema.of("function", "sequence"))]
    for table in schema.of("table"):
        made += _table(schema, table)
    for key in schema.of("foreign key"):
        made.append(f"ALTER TABLE {mark(key.owner)} ADD {_constraint(key)}")
    made += [part.text for part in in_order(schema.of("index"))]
    for view in in_order(schema.of("view")):
        made.append(view.text)
        if view.comment is not None:
            made.append(f"COMMENT ON {view.options[0]} {mark(view)} IS {_literal(view.comment)}")
    made += [part.text for part in schema.of("trigger", "policy")]
    return [schema.write(sql, quote) for sql in made]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _constraint(part: Part) -> str:
    return f"CONSTRAINT {mark(part)} {part.text}" if part.name else part.text


def _table(schema: Schema, table: Part) -> list[str]:
    columns = schema.columns(table.id)
    items = [_column(column) for column in columns]
    items += [_constraint(part) for part in schema.of("primary key", "unique", "check", owner=table.id)]
    unlogged = "UNLOGGED " if "unlogged" in table.options else ""
    storage = [option for option in table.options if "=" in option]
    ends = f" WITH ({', '.join(storage)})" if storage else ""
    made = [f"CREATE {unlogged}TABLE {mark(table)} ({', '.join(items)}){ends}"]
    if "row security" in table.options:
        made.append(f"ALTER TABLE {mark(table)} ENABLE ROW LEVEL SECURITY")
    if "force row security" in table.options:
        made.append(f"ALTER TABLE {mark(table)} FORCE ROW LEVEL SECURITY")
    if table.comment is not None:
        made.append(f"COMMENT ON TABLE {mark(table)} IS {_literal(table.comment)}")
    made += [
        f"COMMENT ON COLUMN {mark(table)}.{mark(column)} IS {_literal(column.comment)}"
        for column in columns
        if column.comment is not None
    ]
    return made


def _column(column: Column) -> str:
    type_ = column.type
    if column.identity == "serial":
        type_ = {"integer": "serial", "bigint": "bigserial"}.get(type_, type_)
    parts = [mark(column), type_]
    parts += [f"COLLATE {column.collation}"] if column.collation else []
    if column.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) {'STORED' if column.stored else 'VIRTUAL'}")
    elif column.identity in ("always", "by default"):
        parts.append(f"GENERATED {column.identity.upper()} AS IDENTITY")
    elif column.default is not None and column.identity != "serial":
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts + ([] if column.nullable else ["NOT NULL"]))
