"""Random schemas of SQLite, and the statements that make them."""

# ruff: noqa: S608  # names are quoted, and values are none of anybody's

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import attrs

from dataflow.migrations.proof.drawing import Drawer, key_columns
from dataflow.migrations.proof.schema import Column, Part, Schema, in_order, mark

_NUMBERS = ("0", "1", "2", "7", "-3", "100", "9007199254740993")
_TEXTS = ("''", "'a'", "'B'", "'ab c'", "'12'", "'it''s'", "'ünï'", "'1.50'")
VALUES: Mapping[str, Sequence[str]] = {
    "INTEGER": _NUMBERS,
    "INT": _NUMBERS,
    "BIGINT": _NUMBERS,
    "TEXT": _TEXTS,
    "VARCHAR(20)": _TEXTS,
    "REAL": ("0", "1.5", "-2.25", "0.1", "1e100"),
    "DOUBLE": ("0", "1.5", "0.1"),
    "NUMERIC": ("0", "1.10", "2", "'x'"),
    "DECIMAL(10, 2)": ("0", "1.10", "-2.55"),
    "BLOB": ("x''", "x'00ff'"),
    "BOOLEAN": ("0", "1"),
    "DATE": ("'2024-02-29'", "'1999-12-31'"),
    "": ("1", "'1'", "x'31'", "1.5"),
    "ANY": ("1", "'1'", "x'31'", "1.5"),
}
_STRICT = ("INTEGER", "INT", "TEXT", "REAL", "BLOB", "ANY")
_CONFLICTS = ("", "", "", "", "", " ON CONFLICT IGNORE", " ON CONFLICT REPLACE", " ON CONFLICT FAIL")


class SQLiteDrawer(Drawer):
    """Draws schemas of SQLite."""

    name = "sqlite"
    kinds: ClassVar[Mapping[str, int]] = {
        "column": 6, "index": 5, "foreign key": 4, "check": 3, "unique": 2, "primary key": 1, "table": 1, "view": 3,
        "trigger": 3,
    }  # fmt: skip
    retypes: ClassVar[Mapping[str, Sequence[str]]] = {
        "INTEGER": ("TEXT", "REAL", "BIGINT", "NUMERIC"),
        "INT": ("TEXT", "INTEGER", "REAL"),
        "BIGINT": ("INTEGER", "TEXT"),
        "TEXT": ("INTEGER", "VARCHAR(20)", "BLOB", "REAL"),
        "VARCHAR(20)": ("TEXT", "INT"),
        "REAL": ("TEXT", "INTEGER", "DOUBLE"),
        "DOUBLE": ("REAL", "NUMERIC"),
        "NUMERIC": ("TEXT", "REAL"),
        "DECIMAL(10, 2)": ("TEXT", "NUMERIC", "REAL"),
        "BLOB": ("TEXT", ""),
        "BOOLEAN": ("INTEGER", "TEXT"),
        "DATE": ("TEXT",),
        "": ("TEXT", "INTEGER", "BLOB"),
        "ANY": ("TEXT", "INTEGER"),
    }

    # -- tables and columns -------------------------------------------------------------------------------------------
    def table_options(self, table: Part) -> tuple[str, ...]:
        strict = all(c.type in _STRICT for c in self.schema.columns(table.id)) and self.chance(0.5)
        keyed = self.schema.of("primary key", owner=table.id)
        counted = any(column.identity for column in self.schema.columns(table.id))
        loose = bool(keyed) and not counted and self.chance(0.2)
        return tuple(word for word, use in (("strict", strict), ("without rowid", loose)) if use)

    def key_column(self, table: Part) -> None:
        counted = "autoincrement" if self.chance(0.25) else ""
        type_ = "INTEGER" if counted or self.chance(0.8) else self.pick(("TEXT", "INT"))
        nullable = self.chance(0.8)
        column = self.add(
            Column(self.number, "column", self.fresh("id"), table.id, type=type_, identity=counted, nullable=nullable)
        )
        words = "" if counted else self.pick(("inline", "inline", "", "desc"))
        name = self.fresh() if self.chance(0.2) else ""
        text = f"PRIMARY KEY ({mark(column)})"
        self.add(
            Part(self.number, "primary key", name, table.id, text, ("inline",) if counted else tuple(words.split()))
        )

    def _strict(self, table: Part) -> bool:
        return "strict" in self.schema.parts[table.id].options

    def column(self, table: Part | None = None) -> Part | None:
        table = table or self.some_table()
        made = super().column(table)
        if table is not None and isinstance(made, Column) and self._strict(table) and made.type not in _STRICT:
            self.schema = self.schema.without(made.id)
            return None
        return made

    def comment(self) -> str | None:
        return None

    def type(self) -> str:
        if self.chance(0.6):
            return self.pick(("INTEGER", "TEXT", "REAL", "INT", "BLOB"))
        return self.pick(list(VALUES))

    def default(self, type_: str) -> str | None:
        own = self.pick(self.values(type_))
        if type_ == "TEXT" and self.chance(0.4):
            return self.pick(("CURRENT_TIMESTAMP", "(lower('X'))", "(hex(randomblob(4)))", "NULL"))
        if type_ == "INTEGER" and self.chance(0.4):
            return self.pick(("(1 + 1)", "(abs(random() % 100))", "+7", "NULL"))
        return own

    def values(self, type_: str) -> Sequence[str]:
        """Return values of a type, as SQL."""
        return VALUES[type_]

    def collation(self, type_: str) -> str | None:
        return self.pick(("NOCASE", "RTRIM", "BINARY")) if type_ in ("TEXT", "VARCHAR(20)") else None

    def computed(self, columns: Sequence[Column], *, stored: bool) -> tuple[str, str] | None:
        del stored
        one = self.pick(columns)
        name = mark(one)
        if one.type in ("TEXT", "VARCHAR(20)"):
            return self.pick((("TEXT", f"upper({name})"), ("INTEGER", f"length({name})"), ("TEXT", f"{name} || 'x'")))
        return self.pick((("INTEGER", f"{name} IS NULL"), ("TEXT", f"typeof({name})"), ("ANY", f"coalesce({name}, 0)")))

    def condition(self, columns: Sequence[Column]) -> str:
        if not columns:
            return "1 = 1"
        one, other = self.pick(columns), self.pick(columns)
        name = mark(one)
        plain = (f"{name} IS NOT NULL", f"{name} IS NULL OR {mark(other)} IS NOT NULL")
        if one.type in ("TEXT", "VARCHAR(20)", "DATE"):
            choice = (f"length( {name} ) < 50", f"{name} <> 'zz'", f"{name} NOT LIKE 'q%'", f"{name} <> ''")
        else:
            choice = (f"{name} > -1000", f"{name} <> 5", f"typeof({name}) <> 'text'", f"{name} IN (0, 1, 2, 7, 'a')")
        return self.pick((*choice, *plain, plain[1]))

    def keyable(self, table: Part, count: int) -> list[Column]:
        fit = [c for c in self.schema.columns(table.id) if c.generated is None]
        self.rng.shuffle(fit)
        return fit[:count]

    # -- constraints --------------------------------------------------------------------------------------------------
    def constraint(self, kind: str, table: Part, text: str, needs: tuple[int, ...] = ()) -> Part:
        conflict = self.pick(_CONFLICTS) if kind in ("primary key", "unique") and self.chance(0.3) else ""
        made = super().constraint(kind, table, text + conflict, needs)
        alone = kind != "check" and len(key_columns(made)) == 1
        alone = alone or (kind == "check" and len(made.uses - {table.id}) == 1)
        if alone and self.chance(0.4):
            made = self.add(attrs.evolve(made, options=("inline",)))
        return made

    def deferrable(self) -> str:
        return ""

    def foreign_key(self) -> Part | None:
        made = super().foreign_key()
        if made is None:
            return None
        text = made.text
        key = self.schema.parts[made.needs[0]]
        if key.kind == "primary key" and self.chance(0.3):  # the primary key is meant
            head, refers, tail = text.partition(" REFERENCES ")
            target, _, rest = tail.partition(" (")
            text = f"{head}{refers}{target} {rest.partition(')')[2].strip()}".rstrip()
        text += self.pick(("", "", "", " DEFERRABLE INITIALLY DEFERRED"))
        return self.add(attrs.evolve(made, text=text))

    # -- indexes, views, triggers -------------------------------------------------------------------------------------
    def index(self) -> Part | None:
        """Draw an index."""
        table = self.some_table()
        columns = self.schema.columns(table.id) if table else []
        if table is None or not columns:
            return None
        keys = self.rng.sample(columns, min(len(columns), self.rng.randint(1, 3)))
        unique = "UNIQUE " if self.chance(0.15) else ""
        where = f" WHERE {self.condition([c for c in columns if c.generated is None])}" if self.chance(0.25) else ""
        number = self.number
        text = f"CREATE {unique}INDEX {mark(number)} ON {mark(table)} ({', '.join(map(self.key, keys))}){where}"
        return self.add(Part(number, "index", self.fresh(), table.id, text))

    def key(self, column: Column) -> str:
        """Return a key of an index: a column or an expression."""
        name = mark(column)
        if self.chance(0.2):
            return self.pick((f"lower({name})", f"{name} || 'a'", f"({name} + 1)", f"abs( {name} ) DESC"))
        return name + self.pick(("", "", "", " DESC", " COLLATE NOCASE", " ASC"))

    def view(self) -> Part | None:
        """Draw a view of a table, of two, or of another view."""
        views, table = self.schema.of("view"), self.some_table()
        number = self.number
        if views and self.chance(0.3):
            query = f"SELECT x0 AS x0 FROM {mark(self.pick(views))}"
        elif table is None:
            return None
        else:
            columns = self.schema.columns(table.id)
            some = self.rng.sample(columns, min(len(columns), self.rng.randint(1, 3)))
            listed = ", ".join(f"{mark(column)} AS x{place}" for place, column in enumerate(some))
            where = f" WHERE {self.condition(columns)}" if self.chance(0.4) else ""
            query = f"SELECT {listed} FROM {mark(table)}{where}"
        names = self.pick(("", "", " -- seen"))
        return self.add(Part(number, "view", self.fresh(), 0, f"CREATE VIEW {mark(number)} AS {query}{names}"))

    def trigger(self) -> Part | None:
        """Draw a trigger of a table or a view."""
        table = self.some_table()
        views = self.schema.of("view")
        number = self.number
        if table is None:
            return None
        column = self.pick(self.schema.columns(table.id))
        other = self.some_table() or table
        theirs = self.pick(self.schema.columns(other.id))
        action = self.pick((
            f"UPDATE {mark(other)} SET {mark(theirs)} = {mark(theirs)} WHERE 0;",
            f"DELETE FROM {mark(other)} WHERE {mark(theirs)} = 'no such value';",
            "SELECT 1;",
        ))  # fmt: skip
        if theirs.generated is not None and action.startswith("UPDATE"):
            action = "SELECT 1;"
        if views and self.chance(0.25):
            view = self.pick(views)
            text = f"CREATE TRIGGER {mark(number)} INSTEAD OF INSERT ON {mark(view)} BEGIN {action} END"
            return self.add(Part(number, "trigger", self.fresh(), view.id, text))
        event = self.pick(("UPDATE", f"UPDATE OF {mark(column)}", "INSERT", "DELETE"))
        row = "OLD" if event == "DELETE" else "NEW"
        when = f" WHEN {row}.{mark(column)} IS NOT NULL" if self.chance(0.4) else ""
        text = f"CREATE TRIGGER {mark(number)} AFTER {event} ON {mark(table)}{when} BEGIN {action} END"
        return self.add(Part(number, "trigger", self.fresh(), table.id, text))


# -- statements -------------------------------------------------------------------------------------------------------
def statements(schema: Schema, quote: Callable[[str], str]) -> list[str]:
    """Return the statements that make a schema from nothing."""
    made = [_table(schema, table) for table in schema.of("table")]
    made += [part.text for part in in_order(schema.of("index", "view", "trigger"))]
    return [schema.write(sql, quote) for sql in made]


def _table(schema: Schema, table: Part) -> str:
    keys = schema.of("primary key", "unique", "check", "foreign key", owner=table.id)
    inline = {key.id: key for key in keys if "inline" in key.options or "desc" in key.options}
    items = [_column(column, inline) for column in schema.columns(table.id)]
    items += [_constraint(part) for part in keys if part.id not in inline]
    options = f" {', '.join(table.options).upper()}" if table.options else ""
    return f"CREATE TABLE {mark(table)} ({', '.join(items)}){options}"


def _constraint(part: Part) -> str:
    return f"CONSTRAINT {mark(part)} {part.text}" if part.name else part.text


def _column(column: Column, keys: Mapping[int, Part]) -> str:
    parts = [mark(column), column.type] if column.type else [mark(column)]
    if column.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) {'STORED' if column.stored else 'VIRTUAL'}")
    parts += [] if column.nullable else ["NOT NULL"]
    parts += [f"DEFAULT {column.default}"] if column.default is not None else []
    parts += [f"COLLATE {column.collation}"] if column.collation else []
    for key in keys.values():
        if column.id == _place(key):
            parts.append(f"CONSTRAINT {mark(key)} " * bool(key.name) + _inline(key, column))
    return " ".join(parts)


def _place(key: Part) -> int:
    """Return the column behind which a constraint is written."""
    return min(key.uses - {key.owner}) if key.kind == "check" else key_columns(key)[0]


def _inline(key: Part, column: Column) -> str:
    """Write a constraint of one column behind the column."""
    text = key.text
    if key.kind == "foreign key":
        return "REFERENCES " + text.partition(" REFERENCES ")[2]
    if key.kind == "check":
        return text
    title, _, conflict = text.partition(f" ({mark(column)})")
    counted = " AUTOINCREMENT" if column.identity and key.kind == "primary key" else ""
    return f"{title}{' DESC' * ('desc' in key.options)}{conflict}{counted}"
