"""A database's schema as data: tables, columns, keys, indexes, views, triggers … as its catalog tells them.

Dialects read it (`dataflow.changes.SchemaEditor.inspect`), migration engines compare it. Texts (types, defaults,
definitions) are the database's own, so that two objects mean the same exactly if they are equal, provided that the same
code read both. Names of the schema at hand are not qualified. Knows no SQL.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import attrs

ConstraintKind = Literal["primary key", "unique", "foreign key", "check", "exclude", "not null"]


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        type: the SQL type, as the database writes it.
        nullable: whether it takes NULL.
        default: SQL expression, or None.
        generated: SQL expression of a computed column, or None.
        stored: whether a computed column is stored.
        identity: "" | "always" | "by default" (identity columns) | "autoincrement" (SQLite).
        collation: where it is not the type's own, else None.
        comment: its comment, or None.
    """

    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    generated: str | None = None
    stored: bool = False
    identity: str = ""
    collation: str | None = None
    comment: str | None = None


@attrs.frozen
class Constraint:
    """A key, foreign key, check or exclusion of a table.

    Attributes:
        name: "" where the database gives it none.
        kind: what it is.
        columns: its columns, in order; those that a check mentions, as far as the database tells.
        definition: the whole, without ``CONSTRAINT name``: "FOREIGN KEY (a) REFERENCES b(id) ON DELETE CASCADE".
        target: the table that a foreign key refers to, else "".
        remote: the columns it refers to.
        on_delete: "NO ACTION", "CASCADE" … of a foreign key, else "".
        on_update: the same.
        valid: False for one that was added NOT VALID and not validated yet.
    """

    name: str
    kind: ConstraintKind
    columns: tuple[str, ...]
    definition: str
    target: str = ""
    remote: tuple[str, ...] = ()
    on_delete: str = ""
    on_update: str = ""
    valid: bool = True


@attrs.frozen
class IndexKey:
    """A column or expression of an index.

    Attributes:
        expression: the quoted column name, or the expression in parentheses where the database wants them.
        descending: its order.
        nulls_first: where NULLs go; None where the database has no such choice.
        collation: where it is not the column's own, else None.
        operators: the operator class where it is not the type's default, else None.
    """

    expression: str
    descending: bool = False
    nulls_first: bool | None = None
    collation: str | None = None
    operators: str | None = None


@attrs.frozen
class Index:
    """An index that does not belong to a constraint.

    Attributes:
        name: its name.
        keys: columns and expressions, in order.
        columns: names of the columns among `keys`, and of those that it includes.
        unique: whether it is a unique key.
        method: "btree" …
        include: columns that it only stores.
        where: predicate of a partial index, or None.
        nulls_distinct: whether a unique index lets several NULLs be.
        options: storage parameters, "fillfactor=70".
        definition: the whole statement, as the database stores or writes it.
        valid: False for what a failed concurrent build has left.
    """

    name: str
    keys: tuple[IndexKey, ...]
    columns: tuple[str, ...]
    unique: bool = False
    method: str = "btree"
    include: tuple[str, ...] = ()
    where: str | None = None
    nulls_distinct: bool = True
    options: tuple[str, ...] = ()
    definition: str = attrs.field(default="", eq=False)
    valid: bool = True


@attrs.frozen
class Trigger:
    """A trigger: its whole CREATE statement is `definition`; `table` is a table or a view."""

    name: str
    table: str
    definition: str


@attrs.frozen
class Policy:
    """A row-level security policy: its whole CREATE statement is `definition`."""

    name: str
    definition: str


@attrs.frozen
class Table:
    """A table.

    Attributes:
        name: its name.
        columns: name -> column, in order.
        constraints: keys first, then by name.
        indexes: name -> index.
        triggers: name -> trigger.
        policies: name -> policy.
        options: "strict", "without rowid", "unlogged", "row security", "fillfactor=70" …, sorted.
        comment: its comment, or None.
        sql: the stored CREATE TABLE text, where the database keeps it.
        empty: whether it has no rows.
        bytes: about how large it is; 0 where nobody asked.
    """

    name: str
    columns: Mapping[str, Column]
    constraints: tuple[Constraint, ...] = ()
    indexes: Mapping[str, Index] = attrs.field(factory=dict)
    triggers: Mapping[str, Trigger] = attrs.field(factory=dict)
    policies: Mapping[str, Policy] = attrs.field(factory=dict)
    options: tuple[str, ...] = ()
    comment: str | None = None
    sql: str = attrs.field(default="", eq=False)
    empty: bool = attrs.field(default=False, eq=False)
    bytes: int = attrs.field(default=0, eq=False)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return next((found.columns for found in self.constraints if found.kind == "primary key"), ())


@attrs.frozen
class View:
    """A view: `definition` is its query, or the whole statement where the database keeps that.

    Attributes:
        name: its name.
        definition: the text.
        materialized: whether it stores its rows.
        reads: tables and views it reads, as far as the database tells.
        indexes: of a materialized view.
        options: "security_invoker=true" …
        comment: its comment, or None.
        columns: names of its columns, where the database keeps them.
        triggers: name -> trigger instead of writing to it; they go with the view.
    """

    name: str
    definition: str
    materialized: bool = False
    reads: tuple[str, ...] = ()
    indexes: Mapping[str, Index] = attrs.field(factory=dict)
    options: tuple[str, ...] = ()
    comment: str | None = None
    columns: tuple[str, ...] = ()
    triggers: Mapping[str, Trigger] = attrs.field(factory=dict)


@attrs.frozen
class Function:
    """A function or procedure: `name` with its argument types, ``touch(integer)``; `definition` the whole statement."""

    name: str
    definition: str
    kind: str = "function"


@attrs.frozen
class Sequence:
    """A sequence that does not belong to an identity column.

    Attributes:
        name: its name.
        definition: what follows the name in CREATE SEQUENCE.
        owner: "table.column" that it is dropped with, or "".
    """

    name: str
    definition: str
    owner: str = ""


@attrs.frozen
class EnumType:
    """An enum type with its labels in order."""

    name: str
    labels: tuple[str, ...]


@attrs.frozen
class Catalog:
    """All of a schema, each kind by name."""

    tables: Mapping[str, Table] = attrs.field(factory=dict)
    views: Mapping[str, View] = attrs.field(factory=dict)
    functions: Mapping[str, Function] = attrs.field(factory=dict)
    sequences: Mapping[str, Sequence] = attrs.field(factory=dict)
    enums: Mapping[str, EnumType] = attrs.field(factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return attrs.asdict(self)

    @property
    def fingerprint(self) -> str:
        """A text that is the same exactly as long as the schema is; neither sizes nor rows count."""
        counted = attrs.asdict(self, filter=lambda attribute, _: bool(attribute.eq))
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
