"""Existing tables as models: from a catalog to classes that are registered like any other, and to plain data.

Nothing is guessed: what cannot be read and written faithfully is left out, with the reason. Class names follow
`dataflow.migrations.class_names`, relations `dataflow.migrations.relating`, types `dataflow.migrations.column_types`.
Reads no database.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import attrs

from dataflow.catalog import Catalog, Column, Constraint, Index, Table
from dataflow.errors import DataFlowError, InputError, suggest
from dataflow.fields import Relation, resolve
from dataflow.migrations import existing as own
from dataflow.migrations import relating
from dataflow.migrations.class_names import class_name
from dataflow.migrations.column_types import Refused, annotation
from dataflow.model import LONGEST_NAME, SYSTEM_COLUMNS, forbid_instances

if TYPE_CHECKING:
    from dataflow.core import Core

_ACTIONS = {"RESTRICT": "restrict", "NO ACTION": "no action", "CASCADE": "cascade", "SET NULL": "set null"}
_COUNTED = re.compile(r"nextval\(", re.IGNORECASE)
_NO_KEYS = (dict, list, Any)


def described(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Return table -> what it is, as JSON-able data.

    Each table has ``columns`` (name -> type, nullable, primary_key, default, generated, identity, comment),
    ``primary_key``, ``foreign_keys``, ``unique`` (lists of columns), ``checks``, ``indexes`` and ``comment``.
    """
    return {name: _described(table) for name, table in catalog.tables.items()}


def _described(table: Table) -> dict[str, Any]:
    key = table.primary_key
    return {
        "columns": {
            name: {
                "type": column.type,
                "nullable": column.nullable and name not in key,
                "primary_key": name in key,
                "default": column.default,
                "generated": column.generated,
                "identity": column.identity,
                "comment": column.comment,
            }
            for name, column in table.columns.items()
        },
        "primary_key": list(key),
        "foreign_keys": [
            {
                "name": constraint.name,
                "columns": list(constraint.columns),
                "table": constraint.target,
                "references": list(constraint.remote),
                "on_delete": constraint.on_delete,
                "on_update": constraint.on_update,
            }
            for constraint in _of_kind(table, "foreign key")
        ],
        "unique": [list(columns) for columns in _unique_keys(table)],
        "checks": [constraint.definition for constraint in _of_kind(table, "check")],
        "indexes": [
            {
                "name": index.name,
                "columns": [key.expression for key in index.keys],
                "unique": index.unique,
                "method": index.method,
                "where": index.where,
            }
            for index in table.indexes.values()
        ],
        "comment": table.comment,
    }


def _of_kind(table: Table, kind: str) -> list[Constraint]:
    return [constraint for constraint in table.constraints if constraint.kind == kind]


def _is_plain(index: Index) -> bool:
    """Tell whether an index is on columns, all rows, and nothing else."""
    return index.valid and index.where is None and len(index.keys) + len(index.include) == len(index.columns)


def _key_columns(index: Index) -> tuple[str, ...]:
    return tuple(name for name in index.columns if name not in index.include)


def _unique_keys(table: Table) -> list[tuple[str, ...]]:
    """Return the unique keys besides the primary one."""
    found = [constraint.columns for constraint in _of_kind(table, "unique")]
    found += [_key_columns(index) for index in table.indexes.values() if index.unique and _is_plain(index)]
    return list(dict.fromkeys(found))


def register(
    core: "Core",
    catalog: Catalog,
    tables: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    *,
    featured: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Register existing tables as models.

    Args:
        core: of the DataFlow.
        catalog: its schema.
        tables: which tables; all by default.
        names: table -> class name, where the one that its table gives is not wanted.
        featured: table -> the model and features that the registry knows it by. Columns do not tell of features: a
            model made of such a table would show what they hide.

    Returns:
        ``generated_nodes``: model -> operation -> node type; ``models``: model -> table; ``skipped``: "table" or
        "table.column" -> why it is no model, field or relation.

    Raises:
        InputError: there is no such table, or one that `tables` names cannot be a model.
    """
    return _Registration(core, catalog, tables, dict(names or {}), featured or {}).result()


@attrs.define
class _Draft:
    """A class in the making.

    Attributes:
        name: of the class.
        table: its table.
        fields: column -> annotation, without whether it takes NULL.
        key: columns of its key.
        skipped: column -> why it is no field.
    """

    name: str
    table: Table
    fields: dict[str, Any]
    key: tuple[str, ...]
    skipped: dict[str, str]


class _Registration:
    """One call of `register`."""

    def __init__(
        self,
        core: "Core",
        catalog: Catalog,
        tables: Sequence[str] | None,
        names: dict[str, str],
        featured: Mapping[str, str],
    ) -> None:
        self.core = core
        self.catalog = catalog
        self.asked = tables
        self.names = names
        self.featured = featured
        self.skipped: dict[str, str] = {}
        self.models: dict[str, str] = {}

    def result(self) -> dict[str, Any]:
        wanted = self._wanted()
        drafts = self._named([draft for table in wanted if (draft := self._draft(table)) is not None])
        while drafts:
            drafts = self._register(drafts)
        nodes = {
            model: {node.operation: node.type for node in self.core.models[model].nodes.values()}
            for model in self.models
        }
        return {"generated_nodes": nodes, "models": self.models, "skipped": self.skipped}

    # -- which tables ---------------------------------------------------------------------------------------------
    def _wanted(self) -> list[Table]:
        for name in [*(self.asked or ()), *self.names]:
            if name not in self.catalog.tables:
                close = suggest(str(name), self.catalog.tables)
                msg = f"there is no table {name!r}"
                if name in self.catalog.views:
                    msg = f"{name!r} is a view, which cannot be a model"
                hint = f"did you mean {close!r}?" if close else f"tables: {', '.join(self.catalog.tables) or 'none'}"
                raise InputError(msg, hint=hint, code="unknown-table")
        chosen = self.catalog.tables if self.asked is None else dict.fromkeys(self.asked)
        return [self.catalog.tables[name] for name in chosen]

    def _skip(self, table: str, reason: str, hint: str = "") -> None:
        if self.asked is not None and table in self.asked:
            msg = f"the table {table!r} cannot be a model: {reason}"
            raise InputError(msg, hint=hint or "leave it out of tables", where={"table": table}, code="no-model")
        self.skipped[table] = reason

    # -- a table as a class ---------------------------------------------------------------------------------------
    def _draft(self, table: Table) -> _Draft | None:
        owner = next((its for its in self.core.models.values() if its.spec.table == table.name), None)
        if owner is not None:
            if owner.name == (self.names.get(table.name) or owner.name) and owner.spec.existing:
                self.models[owner.name] = table.name
            else:
                self._skip(table.name, f"the model {owner.name} has it already", "use that model")
            return None
        if table.name in self.featured:
            reason = f"its columns do not tell of the features {self.featured[table.name]}"
            self._skip(table.name, reason, "db.reconstruct_models_from_registry() registers that model")
            return None
        name = self.names.get(table.name) or class_name(table.name)
        if not name.isidentifier():
            self._skip(table.name, "its name gives no class name", f"pass names={{{table.name!r}: '…'}}")
            return None
        if len(table.name.encode()) > LONGEST_NAME or table.name.lower().startswith(("dataflow_", "sqlite_")):
            self._skip(table.name, "its name is too long, or reserved")
            return None
        fields, skipped = self._fields(table)
        key = self._key(table, fields)
        if isinstance(key, Refused):
            self._skip(table.name, key.reason)
            return None
        return _Draft(name, table, fields, key, skipped)

    def _fields(self, table: Table) -> tuple[dict[str, Any], dict[str, str]]:
        fields: dict[str, Any] = {}
        skipped: dict[str, str] = {}
        folded: set[str] = set()
        for name, column in table.columns.items():
            found = Refused(_unspeakable(name, folded)) if _unspeakable(name, folded) else None
            found = found or annotation(column, self.catalog, self.core.dialect.name)
            folded.add(name.lower())
            if not isinstance(found, Refused):
                fields[name] = found
                continue
            fills = column.nullable or column.default is not None or column.generated or column.identity
            skipped[name] = found.reason if fills else f"{found.reason}; records cannot be created without it"
        return fields, skipped

    def _key(self, table: Table, fields: Mapping[str, Any]) -> tuple[str, ...] | Refused:
        """Return the primary key, or the first unique key without NULL where there is none."""
        required = [key for key in _unique_keys(table) if all(not table.columns[name].nullable for name in key)]
        keys = [*([table.primary_key] if table.primary_key else []), *sorted(required, key=len)]
        if not keys:
            return Refused("it has neither a primary key nor a unique key without NULL")
        for key in keys:
            if all(name in fields and not _is_document(fields[name]) for name in key):
                return key
        return Refused(f"its key ({', '.join(keys[0])}) cannot be a field")

    # -- names ----------------------------------------------------------------------------------------------------
    def _named(self, drafts: list[_Draft]) -> list[_Draft]:
        """Leave out the classes whose names are taken."""
        kept = []
        for draft in drafts:
            rivals = [its.table.name for its in drafts if its.name == draft.name and its is not draft]
            if rivals:
                reason = f"the table {rivals[0]!r} gives the class name {draft.name} as well"
                self._skip(draft.table.name, reason, f"pass names={{{draft.table.name!r}: '…'}}")
            elif draft.name in self.core.models:
                reason = f"another model is called {draft.name}"
                self._skip(draft.table.name, reason, f"pass names={{{draft.table.name!r}: '…'}}")
            else:
                kept.append(draft)
        return kept

    # -- registration ---------------------------------------------------------------------------------------------
    def _register(self, drafts: list[_Draft]) -> list[_Draft]:
        """Register classes, those first that others refer to; return what has to be planned anew where one fails."""
        found = self._relations(drafts)
        order = _ordered(drafts, found)
        for place, draft in enumerate(order):
            try:
                cls = _class(draft, found)
                self.core.register(cls, {}, "")
            except DataFlowError as error:
                self._skip(draft.table.name, error.message, error.hint or "")
                return order[place + 1 :]
            forbid_instances(cls)
            self.models[draft.name] = draft.table.name
            self.skipped |= {f"{draft.table.name}.{name}": reason for name, reason in draft.skipped.items()}
        return []

    def _relations(self, drafts: list[_Draft]) -> dict[tuple[str, str], Relation]:
        """Name the relations among drafts, and from them to registered models."""
        by_table = {self._folded(draft.table.name): draft for draft in drafts}
        there = {self._folded(model.spec.table): model for model in self.core.models.values()}
        taken = {draft.name: set(draft.fields) for draft in drafts}
        taken |= {name: {*model.fields, *model.relations} for name, model in self.core.models.items()}
        references: dict[tuple[str, str], relating.Reference] = {}
        for draft in drafts:
            for constraint in _of_kind(draft.table, "foreign key"):
                reason = ""
                if len(constraint.columns) > 1:
                    reason = "a relation has one field, and this foreign key has several"
                elif constraint.columns[0] in draft.fields:
                    table = self._folded(constraint.target)
                    target = by_table.get(table) or there.get(table)
                    if target is None:
                        continue
                    reference = self._reference(draft, constraint, target)
                    if isinstance(reference, Refused):
                        reason = reference.reason
                    else:
                        references.setdefault((draft.name, reference.field), reference)
                if reason:
                    self.skipped[f"{draft.table.name}.{'+'.join(constraint.columns)}"] = reason
        self._implicit(drafts, references)
        return relating.relations(references.values(), taken)

    def _folded(self, name: str) -> str:
        """Return what names have in common that mean the same: SQLite lets references differ in case."""
        return name.lower() if self.core.dialect.name == "sqlite" else name

    def _reference(self, draft: _Draft, constraint: Constraint, target: Any) -> relating.Reference | Refused:
        field = constraint.columns[0]
        if isinstance(target, _Draft):
            names, key = list(target.fields), target.table.primary_key
            keys = [target.key, *_unique_keys(target.table)]
        else:
            names, key, keys = list(target.fields), target.spec.primary_key, target.spec.unique_keys
        wanted = (*constraint.remote, *key, "")[0]
        remote = next((name for name in names if self._folded(name) == self._folded(wanted)), "")
        if not remote:
            return Refused(f"it refers to {target.name}.{wanted}, which is no field; there is no relation")
        there = self._type(target.fields[remote]) if isinstance(target, _Draft) else target.fields[remote].type
        if there != self._type(draft.fields[field]):
            return Refused(f"it refers to {target.name}.{remote}, which is of another type; there is no relation")
        on_delete = _ACTIONS.get(constraint.on_delete.upper() or "NO ACTION", "") if (remote,) in keys else ""
        return relating.Reference(draft.name, field, target.name, remote, on_delete)

    def _type(self, found: Any) -> Any:
        return resolve(found, naive=self.core.config["naive_datetimes"], custom=own.resolve)

    def _implicit(self, drafts: list[_Draft], references: dict[tuple[str, str], relating.Reference]) -> None:
        """Name the relations that fields ``customer_id`` make by themselves, so that they are in nobody's way."""
        models = {draft.name.lower(): draft for draft in drafts}
        for draft in drafts:
            for field, found in draft.fields.items():
                target = models.get(field.removesuffix("_id").replace("_", "").lower())
                if (draft.name, field) in references or not field.endswith("_id") or target is None:
                    continue
                if target is draft and draft.key == (field,):
                    continue
                if len(target.key) == 1 and target.fields[target.key[0]] == found:
                    remote = target.key[0]
                    references[draft.name, field] = relating.Reference(draft.name, field, target.name, remote, "")


def _unspeakable(name: str, folded: Iterable[str]) -> str:
    """Return why a column cannot be a field, or ""."""
    if name.startswith(("_", "$")) or "." in name or name == "*":
        return f"a field cannot be called {name!r}"
    if name.lower() in SYSTEM_COLUMNS or len(name.encode()) > LONGEST_NAME:
        return f"a field cannot be called {name!r}"
    return "another column has the same name but for case" if name.lower() in folded else ""


def _is_document(found: Any) -> bool:
    return found in _NO_KEYS or getattr(found, "__origin__", None) is list or found == own.Stored(own.DocumentType())


def _ordered(drafts: list[_Draft], found: Mapping[tuple[str, str], Relation]) -> list[_Draft]:
    """Order drafts so that what is referred to comes first; cycles come as they are."""
    by_name = {draft.name: draft for draft in drafts}
    order: dict[str, _Draft] = {}

    def settle(draft: _Draft, above: tuple[str, ...]) -> None:
        for (model, _), relation in found.items():
            if model == draft.name and relation.model in by_name and relation.model not in above:
                settle(by_name[relation.model], (*above, relation.model))
        order.setdefault(draft.name, draft)

    for draft in drafts:
        settle(draft, (draft.name,))
    return list(order.values())


def _class(draft: _Draft, found: Mapping[tuple[str, str], Relation]) -> type:
    """Build the class, as somebody who knows the table would write it."""
    annotations: dict[str, Any] = {}
    body: dict[str, Any] = {"__annotations__": annotations, "__tablename__": draft.table.name}
    for name, kind in draft.fields.items():
        relation = found.get((draft.name, name))
        annotations[name] = kind if relation is None else Annotated[kind, relation]
        if draft.table.columns[name].nullable and name not in draft.key:
            body[name] = None  # nullable
    body["__dataflow__"] = _options(draft)
    body["__indexes__"] = _indexes(draft)
    if draft.table.comment:
        body["__doc__"] = draft.table.comment
    return type(draft.name, (), body)


def _options(draft: _Draft) -> dict[str, Any]:
    columns = draft.table.columns
    computed = [name for name in draft.fields if columns[name].generated or columns[name].identity == "always"]
    given = [name for name in draft.fields if name not in computed and _is_given(draft, columns[name])]
    options: dict[str, Any] = {"existing": True, "primary_key": list(draft.key)}
    stamps = [draft.fields.get(name) for name in ("created_at", "updated_at")]
    instants = (datetime, own.Stored(own.InstantTextType()), own.Stored(own.TimestampType()))
    options["timestamps"] = all(found in instants for found in stamps)
    if options["timestamps"]:
        given = [name for name in given if name not in ("created_at", "updated_at")]
    if given:
        options[own.GIVEN] = given
    if computed:
        options[own.COMPUTED] = computed
    return options


def _is_given(draft: _Draft, column: Column) -> bool:
    """Tell whether the database has a value for a column where none is passed."""
    if column.default is not None or column.identity:
        return True
    alone = draft.key == (column.name,) and draft.table.primary_key == draft.key
    return (
        alone and column.type.upper() == "INTEGER" and "without rowid" not in draft.table.options and _is_rowid(draft)
    )


def _is_rowid(draft: _Draft) -> bool:
    """Tell whether a table is SQLite's: there an INTEGER PRIMARY KEY is counted."""
    return bool(draft.table.sql)


def _indexes(draft: _Draft) -> list[dict[str, Any]]:
    """Return its unique keys and plain indexes; names are the database's own, as far as it gives them."""
    found: list[dict[str, Any]] = []
    listed: set[tuple[str, ...]] = {draft.key}
    for constraint in _of_kind(draft.table, "unique"):
        if set(constraint.columns) <= draft.fields.keys() and constraint.columns not in listed:
            listed.add(constraint.columns)
            name = constraint.name or f"uq_{draft.table.name}_{'_'.join(constraint.columns)}"
            found.append({"name": name, "fields": list(constraint.columns), "unique": True})
    for index in draft.table.indexes.values():
        columns = _key_columns(index)
        if _is_plain(index) and set(columns) <= draft.fields.keys() and not (index.unique and columns in listed):
            found.append({"name": index.name, "fields": list(columns), "unique": index.unique})
    return [index for index in found if len(index["name"].encode()) <= LONGEST_NAME]
