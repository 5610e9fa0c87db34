"""Models -> plan: reads the live schema, builds the models' schema aside, compares, and asks the dialect for steps.

Reads the database only, but for what a dialect builds aside and undoes.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs

from dataflow.catalog import Catalog, Column
from dataflow.changes import Change, SchemaEditor
from dataflow.dialect import Dialect, Program
from dataflow.errors import InputError, MissingCapability, SchemaError, suggest
from dataflow.fields import FieldSpec
from dataflow.migrations.diff import changes, renameable
from dataflow.migrations.journal import Journal, Registered
from dataflow.migrations.plan import Plan, PlannedStep, Question
from dataflow.migrations.registry import dump, kinds_of, reads_all
from dataflow.migrations.renames import Renames
from dataflow.migrations.renaming import declared
from dataflow.migrations.risk import RiskLevel, level_of
from dataflow.migrations.target import target
from dataflow.plugins import specs
from dataflow.plugins.manager import PluginSet
from dataflow.schema import create_tables, statements
from dataflow.types import FloatType, ValueRefused, filter_value

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel


@attrs.frozen
class Wishes:
    """What the caller says besides the models.

    Attributes:
        renames: "table.column" or "table" as it is called now -> its name before; None: it is new.
        backfill: "table.column" or "Model.field" -> the value that existing rows get.
        drop: "table", "table.column" or "table.index" that may go though DataFlow has not made it.
    """

    renames: Mapping[str, str | None] = attrs.field(factory=dict)
    backfill: Mapping[str, Any] = attrs.field(factory=dict)
    drop: Collection[str] = ()


@attrs.frozen
class Draft:
    """A plan, and what it came from.

    Attributes:
        plan: the plan.
        found: the live schema.
        desired: the models' schema, alone.
        wanted: the live schema as it shall be.
        changes: what differs.
        registered: table -> what the registry knows of it.
        renames: of the plan.
    """

    plan: Plan
    found: Catalog
    desired: Catalog
    wanted: Catalog
    changes: Sequence[Change]
    registered: Mapping[str, Registered]
    renames: Renames


def ddl_hash(model: "BoundModel", dialect: Dialect) -> str:
    """Return a text that changes exactly when the statements do that create a model's table."""
    return hashlib.sha256(json.dumps(statements(model, dialect)).encode()).hexdigest()


def can_migrate(dialect: Dialect, plugins: PluginSet) -> bool:
    """Tell whether a dialect has a schema editor."""
    return _editor(dialect, plugins) is not None


def editor_of(dialect: Dialect, plugins: PluginSet) -> SchemaEditor:
    """Return the schema editor of a dialect.

    Raises:
        MissingCapability: it has none.
    """
    reference = _editor(dialect, plugins)
    if reference is None:
        msg = f"the dialect {dialect.name} cannot migrate schemas"
        raise MissingCapability(msg, hint="change the schema by hand, or use a dialect with a schema editor")
    return specs.load(reference)(dialect)  # type: ignore[no-any-return]


def _editor(dialect: Dialect, plugins: PluginSet) -> specs.Reference | None:
    found = next((spec for spec in plugins.dialects.values() if spec.name == dialect.name), None)
    return None if found is None else found.schema_editor


class Planner:
    """Makes plans for the models of one DataFlow.

    Args:
        core: the inside of the DataFlow.
        editor: of its dialect.
        journal: of its database.
    """

    def __init__(self, core: "Core", editor: SchemaEditor, journal: Journal) -> None:
        self.core = core
        self.editor = editor
        self.journal = journal

    @property
    def models(self) -> list["BoundModel"]:
        """The models whose tables are DataFlow's to change, in an order in which they can be created."""
        return self.core.in_key_order(model for model in self.core.models.values() if not model.spec.existing)

    def draft(self, wishes: Wishes | None = None) -> Program[Draft]:
        """Compare the models with the live schema.

        Raises:
            InputError: a wish names something that does not exist.
        """
        wishes = self._spelled(wishes or Wishes())
        models = self.models
        found = yield from self.editor.inspect()
        desired = yield from self.editor.desired(self._build(models))
        registered = yield from self.journal.registered()
        self._check(wishes, found, desired)
        renames, asked = declared(models, found, wishes.renames, registered)
        owned = {table: entry.owned for table, entry in registered.items()}
        owned |= {new: owned[old] for old, new in renames.tables.items() if old in owned}
        moved = renames.apply(found)
        made = {table for table, entry in registered.items() if entry.ddl}
        made |= {new for old, new in renames.tables.items() if old in made}
        _refuse_views(desired, moved)
        wanted, notes = target(moved, desired, owned, made=made, drop=wishes.drop)
        notes += self._reread(models, registered, moved, wanted)
        if not models:
            notes.append("no models are registered: nothing is compared")
        loose = self.core.dialect.references_ahead
        found_changes = changes(found, wanted, renames=renames, values=self._values(models, wishes), loose=loose)
        found_changes = self._ruled("diff", found_changes)
        asked += _rename_questions(moved, wanted, wishes, _of_features(models, registered))
        plan = Plan(
            self.core.dialect.name,
            found.fingerprint,
            self.steps(found, wanted, found_changes),
            tuple(notes),
            (
                *asked,
                *_value_questions(moved, found_changes),
            ),
        )
        plan = attrs.evolve(plan, notes=(*plan.notes, *(note for rule in self._rules("lint") for note in rule(plan))))
        return Draft(plan, found, desired, wanted, found_changes, registered, renames)

    def steps(self, found: Catalog, wanted: Catalog, some: Sequence[Change]) -> tuple[PlannedStep, ...]:
        """Return the steps that make changes, with their risk."""
        rules = self._rules("risk")
        planned = []
        for step in self.editor.steps(found, wanted, some):
            levels = [level_of(step), *(RiskLevel(level) for level in (rule(step) for rule in rules) if level)]
            planned.append(PlannedStep(step, max(levels, key=lambda level: level.rank)))
        return tuple(planned)

    def _build(self, models: Sequence["BoundModel"]) -> Program[None]:
        yield from self.core.dialect.before_tables([model.spec for model in models])
        yield from create_tables(models, self.core.dialect)

    def _rules(self, kind: str) -> list[Any]:
        found = self.core.plugins.schema_rules(self.core.dialect.name)
        return [specs.load(rule.rule) for rule in found.values() if rule.kind == kind]

    def _ruled(self, kind: str, what: Any) -> Any:
        for rule in self._rules(kind):
            what = rule(what)
        return what

    # -- wishes ---------------------------------------------------------------------------------------------------
    def _spelled(self, wishes: Wishes) -> Wishes:
        """Write "Model.field" as "table.column"."""
        tables = {model.name: model.spec.table for model in self.core.models.values()}

        def spelled(name: str) -> str:
            head, dot, tail = name.partition(".")
            return f"{tables.get(head, head)}{dot}{tail}"

        return Wishes(
            {spelled(name): old for name, old in wishes.renames.items()},
            {spelled(name): value for name, value in wishes.backfill.items()},
            tuple(map(spelled, wishes.drop)),
        )

    def _check(self, wishes: Wishes, found: Catalog, desired: Catalog) -> None:
        known = {*found.tables, *desired.tables, *found.views}
        for catalog in (found, desired):
            for name, table in catalog.tables.items():
                known |= {f"{name}.{part}" for part in (*table.columns, *table.indexes)}
                known |= {f"{name}.{constraint.name}" for constraint in table.constraints if constraint.name}
        for option, names in (("renames", wishes.renames), ("backfill", wishes.backfill), ("drop", wishes.drop)):
            for name in names:
                if name not in known:
                    close = suggest(name, known)
                    msg = f"{option}: there is no {name!r}"
                    hint = f"did you mean {close!r}?" if close else "write table.column"
                    raise InputError(msg, hint=hint, code="unknown-name")

    def _reread(
        self, models: Iterable["BoundModel"], registered: Mapping[str, Registered], moved: Catalog, wanted: Catalog
    ) -> Iterable[str]:
        """Say which fields have another type that the database stores alike: nothing converts what is there."""
        for model in models:
            name = model.spec.table
            entry, table = registered.get(name), moved.tables.get(name)
            if entry is None or table is None or table.empty:
                continue
            before, now = kinds_of(entry.definition), kinds_of(dump(model.spec, self.core.plugins))
            for field in sorted(before.keys() & now.keys() & table.columns.keys()):
                pair, stored = (before[field], now[field]), table.columns[field].type
                if pair[0] != pair[1] and not reads_all(*pair) and wanted.tables[name].columns[field].type == stored:
                    yield (
                        f"{name}.{field}: was {pair[0]} and is {pair[1]}, both stored as {stored}: the values that are "
                        "there stay as they are, and cannot be read where they are none"
                    )

    def _values(self, models: Sequence["BoundModel"], wishes: Wishes) -> dict[tuple[str, str], str]:
        """Return what existing rows get, as the caller says."""
        return {
            (model.spec.table, field.name): self._literal(model.spec.table, field, wishes.backfill[key])
            for model in models
            for field in model.spec.fields.values()
            if (key := f"{model.spec.table}.{field.name}") in wishes.backfill
        }

    def _literal(self, table: str, field: FieldSpec, value: Any) -> str:
        """Write a value as SQL, as the dialect writes the default of the field."""
        try:
            exact = isinstance(value, Decimal) and isinstance(field.type, FloatType)  # as JSON is read
            accepted = filter_value(field.type, float(value) if exact else value)
        except ValueRefused as refused:
            msg = f"backfill: {table}.{field.name}: {refused.message}"
            raise InputError(msg, hint=refused.hint, code="wrong-type") from None
        options = self.core.dialect.column_options(
            attrs.evolve(field, default=accepted, write="", generated=False), table
        )
        return str(options["server_default"].text).replace(r"\:", ":")


def _refuse_views(desired: Catalog, found: Catalog) -> None:
    name = next((name for name in desired.tables if name in found.views), None)
    if name is not None:
        msg = f"{name!r} is a view, which cannot follow a model"
        hint = "leave the model out, or use the schema as it is: DataFlow(existing_schema_mode=True)"
        raise SchemaError(msg, hint=hint, where={"table": name}, code="is-view")


def _of_features(models: Iterable["BoundModel"], registered: Mapping[str, Registered]) -> set[tuple[str, str]]:
    """Return (table, column) of columns that features add, or added before: nobody renames them."""
    found = {
        (model.spec.table, name)
        for model in models
        for name in (
            *(field.name for field in model.spec.fields.values() if field.origin != "user"),
            *(hidden.name for hidden in model.spec.hidden),
        )
    }
    for table, entry in registered.items():
        if "fields" in entry.definition:
            found |= {(table, name) for name in entry.owned.columns - kinds_of(entry.definition).keys()}
    return found


def _rename_questions(
    moved: Catalog, wanted: Catalog, wishes: Wishes, features: set[tuple[str, str]]
) -> Iterable[Question]:
    for name, table in wanted.tables.items():
        before = moved.tables.get(name)
        if before is None or before is table:
            continue
        candidates: dict[str, list[str]] = {}
        for old, new in renameable(before, table):
            if {(name, old.name), (name, new.name)} & features:
                continue
            if f"{name}.{new.name}" not in wishes.renames and f"{name}.{old.name}" not in wishes.drop:
                candidates.setdefault(new.name, []).append(old.name)
        for column, olds in candidates.items():
            hint = (
                f'declare it: {column}: Annotated[…, Field(renamed_from="{olds[0]}")]; or say so once:'
                f' renames={{"{name}.{column}": "{olds[0]}"}} (--rename {name}.{column}={olds[0]}),'
                f" None (--new {name}.{column}) where it is new"
            )
            yield Question("rename", name, column, tuple(olds), hint)


def _value_questions(moved: Catalog, some: Iterable[Change]) -> Iterable[Question]:
    for change in some:
        if change.kind != "add_column" or change.value is not None or not _needs_value(change.after):
            continue
        if not moved.tables[change.table].empty:
            key = f"{change.table}.{change.name}"
            hint = f'say so: backfill={{"{key}": …}} (--value {key}=…), give the field a default, or let it be None'
            yield Question("value", change.table, change.name, hint=hint)


def _needs_value(column: Column) -> bool:
    return not (column.nullable or column.default is not None or column.generated is not None or column.identity)
