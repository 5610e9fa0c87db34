"""Reads the schema at hand as `dataflow.catalog` describes it, in a fixed number of queries however large it is.

The server writes definitions as things are now, not as a snapshot sees them: there is none of what was just dropped.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from dataflow import catalog as objects
from dataflow.catalog import (
    Catalog,
    Column,
    Constraint,
    ConstraintKind,
    EnumType,
    Function,
    Index,
    IndexKey,
    Policy,
    Table,
    Trigger,
    View,
)
from dataflow.dialect import Command, Program
from dataflow.postgres.migration import queries
from dataflow.postgres.migration.texts import settled

Quote = Callable[[str], str]
Row = Sequence[Any]
_KINDS: Mapping[str, ConstraintKind] = {
    "p": "primary key", "u": "unique", "f": "foreign key", "c": "check", "x": "exclude",
}  # fmt: skip
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_IDENTITIES = {"": "", "a": "always", "d": "by default"}
_COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
_FIRST = ("primary key", "unique")
_NOT_VALID = " NOT VALID"


def inspect(quote: Quote) -> Program[Catalog]:
    """Read the schema at hand.

    Args:
        quote: how the dialect quotes identifiers.
    """
    found = _Found(quote)
    yield from found.read()
    return found.catalog()


def index_named(quote: Quote, name: str) -> Program[Index | None]:
    """Read one index, which belongs to no constraint; None if there is none."""
    found = _Found(quote)
    found.relations = yield Command(queries.RELATIONS), ()
    found.name_columns((yield Command(queries.COLUMNS), ()))
    found.add_indexes((yield Command(queries.INDEXES), (name,)))
    return next((index for own in found.indexes.values() for index in own.values()), None)


class _Found:
    """What the queries have found, by the numbers of relations."""

    def __init__(self, quote: Quote) -> None:
        self.quote = quote
        self.relations: list[Row] = []
        self.names: dict[int, str] = {}
        self.attributes: dict[tuple[int, int], str] = {}
        self.columns: defaultdict[int, dict[str, Column]] = defaultdict(dict)
        self.comments: dict[tuple[int, int], str] = {}
        self.constraints: defaultdict[int, list[Constraint]] = defaultdict(list)
        self.indexes: defaultdict[int, dict[str, Index]] = defaultdict(dict)
        self.triggers: defaultdict[int, dict[str, Trigger]] = defaultdict(dict)
        self.policies: defaultdict[int, dict[str, Policy]] = defaultdict(dict)
        self.confined: set[int] = set()
        self.parents: defaultdict[int, list[str]] = defaultdict(list)
        self.reads: defaultdict[int, set[str]] = defaultdict(set)
        self.others: dict[str, Any] = {}

    def read(self) -> Program[None]:
        self.relations = yield Command(queries.RELATIONS), ()
        self.names = {row[0]: row[1] for row in self.relations}
        self.comments = {(row[0], row[1]): row[2] for row in (yield Command(queries.COMMENTS), ())}
        self._add_columns((yield Command(queries.COLUMNS), ()))
        self._add_constraints((yield Command(queries.CONSTRAINTS), ()))
        self.add_indexes((yield Command(queries.INDEXES), (None,)))
        for oid, name, definition in (yield Command(queries.TRIGGERS), ()):
            self.triggers[oid][name] = Trigger(name, self.names[oid], settled(definition or ""))
        self._add_policies((yield Command(queries.POLICIES), ()))
        for oid, parent in (yield Command(queries.PARENTS), ()):
            self.parents[oid].append(parent)
        for oid, other in (yield Command(queries.READS), ()):
            if other in self.names:
                self.reads[oid].add(self.names[other])
        yield from self._read_others()

    def _read_others(self) -> Program[None]:
        kinds = {"p": "procedure"}
        functions = yield Command(queries.FUNCTIONS), ()
        self.others["functions"] = {
            name: Function(name, (text or "").rstrip("\n"), kinds.get(kind, "function"))
            for name, kind, text in functions
        }
        sequences = yield Command(queries.SEQUENCES), ()
        self.others["sequences"] = {row[0]: objects.Sequence(row[0], _counting(row), row[8] or "") for row in sequences}
        enums = yield Command(queries.ENUMS), ()
        self.others["enums"] = {name: EnumType(name, tuple(labels)) for name, labels in enums}

    # -- columns and constraints ----------------------------------------------------------------------------------
    def name_columns(self, rows: list[Row]) -> None:
        self.names = {row[0]: row[1] for row in self.relations}
        self.attributes = {(row[0], row[1]): row[2] for row in rows}

    def _add_columns(self, rows: list[Row]) -> None:
        self.name_columns(rows)
        for oid, number, name, kind, nullable, text, generated, identity, collation in rows:
            expression = text and settled(text)
            self.columns[oid][name] = Column(
                name,
                kind,
                nullable,
                None if generated else expression,
                expression if generated else None,
                generated == "s",
                _IDENTITIES[identity],
                collation,
                self.comments.get((oid, number)),
            )

    def _add_constraints(self, rows: list[Row]) -> None:
        for oid, name, letter, own, definition, target, remote, on_delete, on_update, valid, outside in rows:
            kind = _KINDS[letter]
            columns = tuple(self.attributes[oid, number] for number in own or ())
            text = definition or ""
            text = settled(text if valid else text.removesuffix(_NOT_VALID))
            if kind != "foreign key":
                self.constraints[oid].append(Constraint(name, kind, columns, text, valid=valid))
                continue
            far, *names = outside or (self.names.get(target, ""), *(self.attributes[target, n] for n in remote))
            actions = _ACTIONS[on_delete], _ACTIONS[on_update]
            found = Constraint(name, kind, columns, text, far, tuple(names), *actions, valid)
            self.constraints[oid].append(found)
        for each in self.constraints.values():
            each.sort(key=lambda found: (*(found.kind != kind for kind in _FIRST), found.name))

    # -- indexes --------------------------------------------------------------------------------------------------
    def add_indexes(self, rows: list[Row]) -> None:
        for row in rows:
            self.indexes[row[0]][row[1]] = self._index(row)

    def _index(self, row: Row) -> Index:
        oid, name, method, unique, width, numbers, options, texts, collations, classes = row[:10]
        distinct_not, storage, where, valid, ordered = row[10:]
        names = [self.attributes.get((oid, number), "") for number in numbers]
        keys = []
        for place in range(width):
            text = self.quote(names[place]) if numbers[place] else settled(texts[place] or "")
            descending, first = bool(options[place] & 1), bool(options[place] & 2)
            keys.append(
                IndexKey(text, descending, first if ordered else None, collations[place], classes[place]),
            )
        index = Index(
            name,
            tuple(keys),
            tuple(each for each in names if each),
            unique,
            method,
            tuple(names[width:]),
            where and settled(where),
            not distinct_not,
            tuple(sorted(storage or ())),
            valid=valid,
        )
        return defined(index, self.names[oid], self.quote)

    # -- policies -------------------------------------------------------------------------------------------------
    def _add_policies(self, rows: list[Row]) -> None:
        """Leave out those with which the framework confines tables: its own, and that of the confined role."""
        self.confined = {row[0] for row in rows if row[1].startswith("dataflow_")}
        for oid, name, permissive, command, roles, using, check, confines in rows:
            if name.startswith("dataflow_") or (confines and oid in self.confined):
                continue
            parts = [
                f"CREATE POLICY {self.quote(name)} ON {self.quote(self.names[oid])}",
                f"AS {'PERMISSIVE' if permissive else 'RESTRICTIVE'} FOR {_COMMANDS[command]} TO {', '.join(roles)}",
            ]
            parts += [f"USING ({settled(using)})"] if using else []
            parts += [f"WITH CHECK ({settled(check)})"] if check else []
            self.policies[oid][name] = Policy(name, " ".join(parts))

    # -- the whole ------------------------------------------------------------------------------------------------
    def catalog(self) -> Catalog:
        tables, views = {}, {}
        for row in self.relations:
            if row[2] in ("r", "p"):
                tables[row[1]] = self._table(row)
            else:
                views[row[1]] = self._view(row)
        return Catalog(tables, views, **self.others)

    def _table(self, row: Row) -> Table:
        oid, name, size = row[0], row[1], row[9]
        return Table(
            name,
            self.columns[oid],
            tuple(self.constraints[oid]),
            self.indexes[oid],
            self.triggers[oid],
            self.policies[oid],
            self._options(row),
            self.comments.get((oid, 0)),
            empty=not size,
            bytes=size,
        )

    def _options(self, row: Row) -> tuple[str, ...]:
        oid, _, _, unlogged, secured, forced, storage, partitioned, bound = row[:9]
        options = list(storage or ())
        options += ["unlogged"] if unlogged else []
        if oid not in self.confined:  # else the framework has switched it on, with its policies
            options += ["row security"] if secured else []
            options += ["force row security"] if forced else []
        options += [f"partition by {partitioned}"] if partitioned else []
        for parent in self.parents[oid]:
            options.append(f"partition of {parent} {bound}" if bound else f"inherits {parent}")
        return tuple(sorted(options))

    def _view(self, row: Row) -> View:
        oid, name, kind, storage, definition = row[0], row[1], row[2], row[6], row[10]
        return View(
            name,
            settled((definition or "").strip().removesuffix(";")),
            kind == "m",
            tuple(sorted(self.reads[oid])),
            self.indexes[oid],
            tuple(sorted(storage or ())),
            self.comments.get((oid, 0)),
            tuple(self.columns[oid]),
            self.triggers[oid],
        )


def defined(index: Index, table: str, quote: Quote) -> Index:
    """Return an index with the statement that creates it, from its parts: the server's own text names the schema."""
    unique = "UNIQUE " if index.unique else ""
    text = f"CREATE {unique}INDEX {quote(index.name)} ON {quote(table)} {index_body(index, quote)}"
    return attrs.evolve(index, definition=text)


def index_body(index: Index, quote: Quote) -> str:
    """Write what follows the table in CREATE INDEX."""
    parts = [f"USING {quote(index.method)} ({', '.join(map(_key, index.keys))})"]
    if index.include:
        parts.append(f"INCLUDE ({', '.join(map(quote, index.include))})")
    if not index.nulls_distinct:
        parts.append("NULLS NOT DISTINCT")
    if index.options:
        parts.append(f"WITH ({', '.join(map(setting, index.options))})")
    if index.where is not None:
        parts.append(f"WHERE {index.where}")
    return " ".join(parts)


def _key(key: IndexKey) -> str:
    parts = [key.expression]
    parts += [f"COLLATE {key.collation}"] if key.collation else []
    parts += [key.operators] if key.operators else []
    if key.nulls_first is not None:
        parts += ["DESC"] if key.descending else []
        if key.nulls_first != key.descending:
            parts.append("NULLS FIRST" if key.nulls_first else "NULLS LAST")
    return " ".join(parts)


def setting(option: str) -> str:
    """Write a storage parameter as SQL takes it."""
    name, _, value = option.partition("=")
    return f"{name}='" + value.replace("'", "''") + "'"


def _counting(row: Row) -> str:
    _, kind, step, least, most, start, cache, cycles = row[:8]
    return (
        f"AS {kind} INCREMENT BY {step} MINVALUE {least} MAXVALUE {most} START WITH {start} CACHE {cache}"
        f" {'CYCLE' if cycles else 'NO CYCLE'}"
    )
