"""Class -> `ModelDraft` -> (features edit it) -> frozen `ModelSpec`.

Registration touches no database and imports no SQLAlchemy. Knows nothing of dialects and plans.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_origin, get_type_hints

import attrs

from dataflow import fields as f
from dataflow import later, naming
from dataflow import types as t
from dataflow.errors import ModelError, UsageError, suggest
from dataflow.plugins.hints import extra_for

CORE_OPTIONS = ("primary_key", "timestamps", "existing")
LONGEST_NAME = 63
"""Most bytes of an identifier: PostgreSQL's limit, kept everywhere, so that a model works on every database."""
SYSTEM_COLUMNS = ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid")
"""Columns that every table of PostgreSQL has already; no model may use their names, for the same reason."""
FEATURE_OPTIONS = {
    "multi_tenant": "dataflow_tenancy",
    "soft_delete": "dataflow_soft_delete",
    "versioned": "dataflow_versioning",
    "audit_log": "dataflow_audit",
}
"""Options that demand a capability -> the hook through which it must come."""


@attrs.frozen
class IndexSpec:
    """An index.

    Attributes:
        name: unique in the schema.
        fields: its columns, in order.
        unique: whether it is a unique key.
        where: SQL predicate of a partial index, or None.
    """

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    where: str | None = None


@attrs.frozen
class CallOption:
    """An option that a feature adds to operations.

    Attributes:
        shapes: whether its value changes the SQL; "given": whether it is given does.
        operations: names of the operations that take it; empty for all.
        rows: names of the operations whose rows may bring it, as the field of the same name.
        flag: whether it is True or False.
    """

    shapes: bool | str = False
    operations: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    flag: bool = False

    def of(self, operation: str) -> bool:
        """Tell whether an operation takes it."""
        return not self.operations or operation in self.operations


@attrs.frozen
class HiddenColumn:
    """A column that a feature needs and no result shows.

    Attributes:
        name: begins with an underscore, which no field does.
        type: its field type.
        nullable: whether it takes NULL.
    """

    name: str
    type: t.FieldType
    nullable: bool = True


@attrs.frozen
class SchemaExtra:
    """What a feature wants of the schema besides columns and indexes: triggers, policies, tables of its own.

    Attributes:
        name: unique among the extras of a model; equal names mean equal extras.
        present: ``(dialect, spec) -> Program[bool]``: whether it is there, as it should be.
        create: ``(dialect, spec) -> Program[None]``: make it, or make it anew; runs under the schema lock.
    """

    name: str
    present: Callable[[Any, Any], Any] = attrs.field(eq=False)
    create: Callable[[Any, Any], Any] = attrs.field(eq=False)


@attrs.frozen
class ModelSpec:
    """A registered model, frozen.

    Attributes:
        name: class name.
        table: table name.
        fields: name -> field, in column order.
        primary_key: names of the key fields.
        indexes: declared and added indexes.
        options: what stood in ``__dataflow__``.
        doc: docstring of the class.
        place: "file:line" of the class, when known.
        ddl_extras: what features want of the schema: SQL to send after CREATE TABLE, or `SchemaExtra`.
        call_options: options that features add to operations.
        scope: fields that stand before the others in every key of the table: keys are unique within them, and
            references stay within them.
        ends: the field that is NULL as long as a record lives; records that do not live are in nobody's way.
        hidden: columns that no result shows.
    """

    name: str
    table: str
    fields: Mapping[str, f.FieldSpec]
    primary_key: tuple[str, ...]
    indexes: tuple[IndexSpec, ...] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)
    doc: str = ""
    place: str = attrs.field(default="", eq=False)
    ddl_extras: tuple[Any, ...] = ()
    call_options: Mapping[str, CallOption] = attrs.field(factory=dict)
    scope: tuple[str, ...] = ()
    ends: str | None = None
    hidden: tuple[HiddenColumn, ...] = ()

    @property
    def key(self) -> tuple[f.FieldSpec, ...]:
        """The fields of the primary key."""
        return tuple(self.fields[name] for name in self.primary_key)

    @property
    def literals(self) -> dict[str, Any]:
        """The defaults that are plain values: field -> value."""
        return {field.name: field.default for field in self.fields.values() if field.default is not f.UNSET}

    @property
    def unique_keys(self) -> list[tuple[str, ...]]:
        """Field sets that identify a record, within its scope: the primary key first, then unique indexes."""
        keys = [self.primary_key]
        return keys + [
            tuple(name for name in index.fields if name not in self.scope)
            for index in self.indexes
            if index.unique and index.where is None
        ]

    @property
    def counter(self) -> str | None:
        """The field whose values the database counts: an integer that is the whole primary key; or None."""
        generated = len(self.primary_key) == 1 and self.key[0].generated and self.key[0].type.storage == "int"
        return self.primary_key[0] if generated else None

    @property
    def existing(self) -> bool:
        """Whether the table belongs to others: it is never created or changed."""
        return bool(self.options.get("existing"))

    @property
    def row_key(self) -> tuple[str, ...]:
        """The columns of the table's primary key: ids that the database generates are unique whatever the scope."""
        generated = len(self.primary_key) == 1 and self.key[0].generated
        return self.primary_key if generated else self.scoped(self.primary_key)

    def scoped(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of a key: those of the scope first."""
        return (*(name for name in self.scope if name not in names), *names)


@attrs.define
class ModelDraft:
    """A model that features may still edit, in `Feature.extend_model`."""

    name: str
    table: str
    fields: dict[str, f.FieldSpec]
    primary_key: tuple[str, ...]
    indexes: list[IndexSpec]
    options: dict[str, Any]
    doc: str = ""
    place: str = ""
    ddl_extras: list[Any] = attrs.field(factory=list)
    call_options: dict[str, CallOption] = attrs.field(factory=dict)
    scope: tuple[str, ...] = ()
    ends: str | None = None
    hidden: list[HiddenColumn] = attrs.field(factory=list)

    def add_option(
        self,
        name: str,
        *,
        shapes: bool | str = False,
        operations: Sequence[str] = (),
        rows: Sequence[str] = (),
        flag: bool = False,
    ) -> None:
        """Let operations on the model take an option; it arrives in `Call.options`.

        An option with the name of a field that the feature adds may also stand among the values of a record.

        Args:
            name: the parameter.
            shapes: whether its value changes the SQL, so that it belongs to the plan key; "given": whether it is given
                does, and ``plan.options[name]`` is True then.
            operations: names of those that take it; all when left out.
            rows: names of bulk operations whose rows may bring it, where it has the name of a field.
            flag: whether it is True or False; other values are refused.
        """
        self.call_options[name] = CallOption(shapes, tuple(operations), tuple(rows), flag)

    def add_field(self, field: f.FieldSpec) -> None:
        """Add a column, which the feature then sets: nobody is asked for its value.

        Raises:
            ModelError: a field of that name exists.
        """
        if field.name in self.fields:
            msg = f"model {self.name} already has a field {field.name!r}, which {field.origin!r} wants to add"
            raise ModelError(msg, hint="rename your field", where={"model": self.name, "field": field.name})
        self.fields[field.name] = field if field.origin != "user" else attrs.evolve(field, origin="feature")

    def add_index(self, index: IndexSpec) -> None:
        """Add an index."""
        self.indexes.append(index)

    def freeze(self) -> ModelSpec:
        """Check the whole and return the frozen spec.

        Raises:
            ModelError: an index or key names a field that does not exist.
        """
        for index in self.indexes:
            for name in index.fields:
                self._require(name, f"index {index.name!r}")
        folded: dict[str, str] = {}
        for name in self.fields:
            twin = folded.setdefault(name.lower(), name)
            if twin != name:
                msg = f"the fields {twin!r} and {name!r} of model {self.name} differ only in case"
                raise ModelError(msg, hint="rename one: databases may not tell them apart", where={"model": self.name})
        for name in self.primary_key:
            self._require(name, "the primary key")
            if self.fields[name].type.storage in ("json", "array"):
                msg = f"the primary key of model {self.name} names {name!r}, which is {self.fields[name].type}"
                raise ModelError(msg, hint="a key is text, a number, a date or a UUID", where={"model": self.name})
            if self.fields[name].nullable:
                self.fields[name] = attrs.evolve(self.fields[name], nullable=False)
        return ModelSpec(
            self.name,
            self.table,
            dict(self.fields),
            self.primary_key,
            tuple(self.indexes),
            dict(self.options),
            self.doc,
            self.place,
            tuple(self.ddl_extras),
            dict(self.call_options),
            self.scope,
            self.ends,
            tuple(self.hidden),
        )

    def _require(self, name: str, what: str) -> None:
        if name not in self.fields:
            close = suggest(name, self.fields)
            msg = f"{what} of model {self.name} names the field {name!r}, which does not exist"
            hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(self.fields)}"
            raise ModelError(msg, hint=hint, where={"model": self.name})


Resolver = Callable[[Any, str], t.FieldType | None]


class ClassReader:
    """Reads a model class into a draft.

    Args:
        cls: the annotated class.
        naive: setting `naive_datetimes`.
        custom: asks plugins for the type of (annotation, model name).
        model_options: names that plugins declared for ``__dataflow__``.
        namespace: local names at the place of the class, for annotations that are text.
        place: "file:line" of the class.
    """

    def __init__(
        self,
        cls: type,
        *,
        naive: str,
        custom: Resolver,
        model_options: set[str],
        namespace: Mapping[str, Any],
        place: str = "",
    ) -> None:
        self.cls = cls
        self.name = cls.__name__
        self.naive = naive
        self.custom = custom
        self.model_options = model_options
        self.namespace = dict(namespace)
        self.place = place

    def error(self, message: str, hint: str, **where: str) -> ModelError:
        """Build an error that names model and place."""
        file = {"file": self.place} if self.place else {}
        return ModelError(message, hint=hint, where={"model": self.name, **file, **where})

    def read(self) -> ModelDraft:
        """Return the draft, with id and timestamps added."""
        options = self._options()
        fields = self._fields()
        key = self._primary_key(options, fields)
        if options.get("timestamps", True):
            self._add_timestamps(fields)
        return ModelDraft(
            name=self.name,
            table=self._table(),
            fields=fields,
            primary_key=key,
            indexes=self._indexes(),
            options=options,
            doc=_own_doc(self.cls),
            place=self.place,
        )

    def _options(self) -> dict[str, Any]:
        options = getattr(self.cls, "__dataflow__", {})
        if not isinstance(options, Mapping):
            msg = "__dataflow__ is a dict of options"
            raise self.error(msg, "write __dataflow__ = {'soft_delete': True}")
        known = [*CORE_OPTIONS, *FEATURE_OPTIONS, *self.model_options]
        for name, value in options.items():
            if name in known or (name in later.MODEL_OPTIONS and not value):
                continue
            if name in later.MODEL_OPTIONS:
                raise later.refuse("model option", name, model=self.name)
            close = suggest(str(name), known)
            hint = f"did you mean {close!r}?" if close else extra_for("capability", str(name))
            msg = f"there is no model option {name!r}"
            raise self.error(msg, hint or f"options: {', '.join(known)}")
        for name in (*FEATURE_OPTIONS, "timestamps", "existing"):
            if not isinstance(options.get(name, False), bool):
                msg = f"the model option {name!r} is True or False"
                raise self.error(msg, f"write __dataflow__ = {{{name!r}: True}}")
        return dict(options)

    def _table(self) -> str:
        table = getattr(self.cls, "__tablename__", None) or naming.table_name(self.name)
        if not isinstance(table, str) or "\0" in table or len(table.encode()) > LONGEST_NAME:
            msg = "a table name is a str of at most 63 bytes"
            raise self.error(msg, "shorten __tablename__ (63 bytes is PostgreSQL's limit for identifiers)")
        if table.lower().startswith(("dataflow_", "sqlite_")):
            msg = f"the table name {table!r} is reserved"
            raise self.error(msg, "choose another __tablename__")
        return table

    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.cls, localns={**self.namespace, self.name: self.cls}, include_extras=True)
        except NameError as error:
            msg = f"an annotation names {error.name!r}, which is not defined here"
            close = suggest(str(error.name), (*(kind.__name__ for kind in f.SCALARS), "datetime", "list", "dict"))
            hint = f"did you mean {close!r}?" if close else ""
            hint = hint or f"import {error.name!r} before the class, not only under TYPE_CHECKING"
            raise self.error(msg, hint) from error
        except Exception as error:
            msg = f"the annotations cannot be read: {error}"
            raise self.error(msg, "check the annotations of the class") from error

    def _fields(self) -> dict[str, f.FieldSpec]:
        fields = {}
        hints = self._hints()
        for name, annotation in hints.items():
            if get_origin(annotation) is ClassVar or annotation is ClassVar or name.startswith("__"):
                continue
            fields[name] = self._field(name, annotation)
        for name, value in vars(self.cls).items():
            plain = not (name.startswith("_") or callable(value) or hasattr(value, "__get__"))
            if plain and name not in hints:
                msg = f"{name!r} has a value but no annotation, so it is not a field"
                raise self.error(msg, f"write {name}: {type(value).__name__} = …, or ClassVar for a constant")
        if not fields and "id" not in hints:
            msg = f"model {self.name} has no fields"
            raise self.error(msg, "annotate at least one: name: str")
        return fields

    def _field(self, name: str, annotation: Any) -> f.FieldSpec:
        if name.startswith("_"):
            msg = f"a field name cannot start with an underscore: {name!r}"
            raise self.error(msg, f"call it {name.strip('_')!r}", field=name)
        if name.startswith("$") or "." in name or name == "*":
            msg = f"a field cannot be called {name!r}: filters, updates and aggregates give that a meaning of their own"
            raise self.error(msg, "rename it", field=name)
        if name.lower() in SYSTEM_COLUMNS:
            msg = f"a field cannot be called {name!r}: PostgreSQL has a column of that name in every table"
            raise self.error(msg, "rename it", field=name)
        if len(name.encode()) > LONGEST_NAME:
            msg = f"the field name {name!r} is longer than {LONGEST_NAME} bytes"
            raise self.error(msg, "shorten it (PostgreSQL's limit for identifiers)", field=name)
        inner, nullable, relation = f.split_optional(annotation)
        try:
            kind = f.resolve(inner, naive=self.naive, custom=lambda a: self.custom(a, self.name))
        except f.AnnotationRefused as refused:
            raise self.error(f"field {name!r}: {refused.message}", refused.hint, field=name) from None
        default, factory = f.read_default(self.cls, name)
        if default is None:
            nullable, default = True, f.UNSET
        elif default is not f.UNSET:
            default = self._default(name, kind, default)
        generated = name == "id" and isinstance(kind, t.IntType) and default is f.UNSET and factory is None
        before = f.column_notes(annotation).renamed_from
        return f.FieldSpec(name, kind, nullable, default, factory, generated, relation=relation, renamed_from=before)

    def _default(self, name: str, kind: t.FieldType, default: Any) -> Any:
        if callable(default):
            msg = f"the default of field {name!r} is a function"
            raise self.error(msg, f"wrap it: {name}: … = Factory({getattr(default, '__name__', '…')})", field=name)
        try:
            kind.accept(default)
        except t.ValueRefused as refused:
            msg = f"the default of field {name!r} does not fit: {refused.message}"
            raise self.error(
                msg, refused.hint or f"change the default or the annotation of {name}", field=name
            ) from None
        return copy.deepcopy(default)  # the class's own list may change later

    def _primary_key(self, options: dict[str, Any], fields: dict[str, f.FieldSpec]) -> tuple[str, ...]:
        declared = options.get("primary_key")
        if declared is None:
            if "id" not in fields:
                own = f.FieldSpec("id", t.IntType(), generated=True, origin="id")
                rest = dict(fields)
                fields.clear()
                fields.update({"id": own, **rest})
            return ("id",)
        listed = declared if isinstance(declared, (list, tuple)) else ()
        key = (declared,) if isinstance(declared, str) else tuple(listed)
        if not key or len(set(key)) < len(key) or not all(isinstance(name, str) for name in key):
            msg = "primary_key names one or more different fields"
            raise self.error(msg, "write __dataflow__ = {'primary_key': ['code']}")
        if "id" in fields and key != ("id",):
            fields["id"] = attrs.evolve(fields["id"], generated=False)
        return key

    def _add_timestamps(self, fields: dict[str, f.FieldSpec]) -> None:
        for name, when in (("created_at", "create"), ("updated_at", "update")):
            own = fields.get(name)
            if own is None:
                fields[name] = f.FieldSpec(name, t.DateTimeType(self.naive), origin="timestamps", write=when)
            elif isinstance(own.type, t.DateTimeType) and own.factory is None and own.default is f.UNSET:
                fields[name] = attrs.evolve(own, write=when)

    def _indexes(self) -> list[IndexSpec]:
        found = []
        for raw in getattr(self.cls, "__indexes__", ()):
            if isinstance(raw, IndexSpec):
                found.append(raw)
                continue
            unknown = set(raw) - {"name", "fields", "unique", "where"} if isinstance(raw, Mapping) else {"?"}
            if unknown or not isinstance(raw.get("name"), str) or not _names(raw.get("fields")):
                msg = "an index is {'name': …, 'fields': […], 'unique': …, 'where': …}"
                raise self.error(msg, "give name and a list of fields; unique and where are optional")
            where, unique = raw.get("where"), raw.get("unique", False)
            if not isinstance(unique, bool):
                raise self.error(
                    f"index {raw['name']!r}: unique is True or False", "write 'unique': True, or leave it out"
                )
            if where is not None and not (isinstance(where, str) and where.strip()):
                hint = "write 'where': \"status = 'open'\", or leave it out"
                raise self.error(f"index {raw['name']!r}: where is a condition in SQL, as text", hint)
            found.append(IndexSpec(raw["name"], tuple(raw["fields"]), unique, where))
        return found


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) for name in value)


def _own_doc(cls: type) -> str:
    doc = cls.__doc__ or ""
    return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc)  # dataclasses write a signature


def forbid_instances(cls: type) -> None:
    """Make ``User()`` raise an error that shows the node to use instead."""
    name = cls.__name__

    def refuse(klass: type, *_: object, **values: object) -> None:
        del klass
        given = ", ".join(f'"{key}": …' for key in values) or "…"
        msg = f"{name} is a model, not a class of objects: {name}() creates nothing"
        hint = (
            f'write workflow.add_node("{name}CreateNode", "create", {{{given}}}) or db.express.create("{name}", {{…}})'
        )
        raise UsageError(msg, hint=hint, where={"model": name}, code="model-instantiated")

    cls.__new__ = refuse  # type: ignore[assignment,method-assign]
