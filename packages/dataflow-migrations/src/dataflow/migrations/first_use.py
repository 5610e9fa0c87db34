"""What happens when models are first used: missing tables are created, missing columns and indexes added.

Nothing else is ever done without being asked for. A model whose table needs more than additions is an error with the
plan in it. The registry tells whether a model has changed since its table was made, so that a schema is compared only
then; a table that DataFlow has not made only gets what it lacks.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from dataflow.changes import Change
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import Problem, SchemaError, UsageError
from dataflow.migrations import additive
from dataflow.migrations.journal import MODELS, Journal, Outcome, Registered
from dataflow.migrations.plan import Plan
from dataflow.migrations.planning import Draft, Planner, ddl_hash
from dataflow.migrations.registry import dump
from dataflow.migrations.renaming import fields_of, is_renamed, options_of
from dataflow.migrations.target import Owned
from dataflow.model import FEATURE_OPTIONS
from dataflow.schema import create_extras, create_missing, missing_columns

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel

READY, CREATE, MIGRATE = "", "create", "migrate"
PARTLY = "partly done"
"""In place of a hash: no model has made the table as it is."""
HINT = "or let 'dataflow migrate apply' do it (await db.auto_migrate())"


class Registry:
    """What the registry is told about models, when their tables were made or changed.

    Args:
        core: the inside of the DataFlow.
        journal: of its database.
    """

    def __init__(self, core: "Core", journal: Journal) -> None:
        self.core = core
        self.journal = journal

    @property
    def kept(self) -> bool:
        """Whether there is one: the setting `enable_model_persistence`."""
        return bool(self.core.config["enable_model_persistence"])

    def known(self, tables: Collection[str]) -> Program[dict[str, Registered]]:
        """Return table -> what the registry knows of these; nothing where none is kept."""
        return (yield from self.journal.registered(tables)) if self.kept else {}

    def listed(self) -> Program[set[str]]:
        """Return the tables that the registry knows; none where none is kept."""
        return (yield from self.journal.listed()) if self.kept else set()

    def entry(self, model: "BoundModel", *, whole: bool) -> Registered:
        """Return the entry of a model whose table was just made, or was there before (not `whole`)."""
        owned, ddl = Owned(), ""
        if whole:
            table = model.table
            names = {str(index.name) for index in table.indexes}
            names |= {str(constraint.name) for constraint in table.constraints if constraint.name}
            owned = Owned(frozenset(map(str, table.columns.keys())), frozenset(names))
            ddl = ddl_hash(model, self.core.dialect)
        features = sorted({feature.capability for feature in model.features}.intersection(FEATURE_OPTIONS))
        definition = dump(model.spec, self.core.plugins, self.core.classes[model.name], features=features)
        return Registered(model.spec.table, model.name, definition, ddl, owned)

    def write(self, entries: Iterable[Registered]) -> Program[None]:
        """Write entries, in place of older ones; creates the registry."""
        if self.kept:
            yield from self.journal.make(MODELS)
            yield from self.journal.register(entries)

    def outcome(self, draft: Draft, models: Iterable["BoundModel"]) -> Outcome:
        """Return what a migration changes here: what it makes is DataFlow's, what it drops is nobody's."""
        if not self.kept:
            return Outcome()
        before = {draft.renames.tables.get(table, table): entry for table, entry in draft.registered.items()}
        after = [self._after(draft, model) for model in models]
        new = [entry for entry in after if not _same(entry, before.get(entry.table))]
        return Outcome([before[entry.table] for entry in new if entry.table in before], new)

    def settle(self, outcome: Outcome) -> Program[None]:
        """Write down what a migration has changed."""
        for entry in outcome.before:
            yield from self.journal.forget(entry.table)
        if outcome.after:
            yield from self.journal.make(MODELS)
            yield from self.journal.register(outcome.after)

    def leave(self, outcome: Outcome) -> Program[None]:
        """Write down what there is of a migration that is partly done: no model agrees with it."""
        there = set((yield from self.core.dialect.list_tables()))
        known = {entry.table: entry.owned for entry in outcome.before}
        partly = [
            attrs.evolve(entry, ddl=entry.ddl and PARTLY, owned=entry.owned | known.get(entry.table, Owned()))
            for entry in outcome.after
            if entry.table in there
        ]
        gone = [entry for entry in outcome.before if entry.table not in there]
        yield from self.settle(Outcome(gone, partly))

    def _after(self, draft: Draft, model: "BoundModel") -> Registered:
        table = model.spec.table
        old = next((old for old, new in draft.renames.tables.items() if new == table), table)
        before, entry = draft.registered.get(old), self.entry(model, whole=True)
        known = before.owned if before is not None else Owned()
        if old in draft.found.tables and (before is None or not before.ddl):
            made = _made(draft, table)
            return attrs.evolve(entry, owned=known | made, ddl="")
        wanted = draft.wanted.tables[table]
        objects = {*wanted.indexes, *(constraint.name for constraint in wanted.constraints)}
        kept = Owned(known.columns & frozenset(wanted.columns), known.objects & objects)
        return attrs.evolve(entry, owned=entry.owned | kept)


def _swaps(model: "BoundModel", known: Registered) -> bool:
    """Tell whether names that are there may have to swap: those of columns that are alike tell nothing."""
    before = {field.name: field.renamed_from for field in model.spec.fields.values() if field.renamed_from}
    kept = fields_of(known)
    return any(old in model.spec.fields and kept.get(name) != old for name, old in before.items())


def _same(one: Registered, other: Registered | None) -> bool:
    return other is not None and json.dumps(one.to_dict()) == json.dumps(other.to_dict())


def _made(draft: Draft, table: str) -> Owned:
    """Return what a plan makes of a table for its model; what it makes anew of others' stays theirs."""
    own = [change for change in draft.changes if change.table == table]
    desired = draft.desired.tables[table]
    columns = {change.name for change in own if change.kind == "add_column"}
    objects = {change.name for change in own if change.kind in ("create_index", "add_constraint") and change.name}
    keys = {constraint.name for constraint in desired.constraints}
    return Owned(frozenset(columns & desired.columns.keys()), frozenset(objects & (keys | desired.indexes.keys())))


class FirstUse:
    """Gets the tables of models ready.

    Args:
        core: the inside of the DataFlow.
        planner: makes plans for it.
        registry: of its models.
    """

    def __init__(self, core: "Core", planner: Planner, registry: Registry) -> None:
        self.core = core
        self.planner = planner
        self.registry = registry

    def look(self, models: Sequence["BoundModel"]) -> Program[str]:
        """Tell what models need before they can be used: READY, CREATE or MIGRATE."""
        tables = set((yield from self.core.dialect.list_tables()))
        if (yield from self.registry.journal.unfinished()) is not None:
            return MIGRATE
        named = {model.spec.table for model in models}
        named |= {model.spec.options["renamed_from"] for model in models if "renamed_from" in model.spec.options}
        registered = yield from self.registry.known(named & tables)
        needs = set()
        for model in models:
            if model.spec.existing:
                continue  # core looks whether all is there
            if model.spec.table in tables:
                known = registered.get(model.spec.table)
                before = model.spec.options.get("renamed_from")
                if known is not None and before in tables and options_of(known).get("renamed_from") != before:
                    return MIGRATE  # the table is another's, perhaps
                needs.add((yield from self._look_at(model, known)))
            else:
                before = model.spec.options.get("renamed_from")
                needs.add(MIGRATE if before in tables and not self._is_renamed(before, registered) else CREATE)
        return next((need for need in (MIGRATE, CREATE) if need in needs), READY)

    def _is_renamed(self, table: str, registered: Mapping[str, Registered]) -> bool:
        """Tell whether a table has its name since it was renamed itself, so that no other was called so."""
        known = registered.get(table)
        owner = next((model for model in self.core.models.values() if model.spec.table == table), None)
        if known is None or owner is None:
            return False
        return is_renamed(owner.spec.options.get("renamed_from"), options_of(known).get("renamed_from"))

    def _look_at(self, model: "BoundModel", known: Registered | None) -> Program[str]:
        spec, dialect = model.spec, self.core.dialect
        columns = yield from dialect.list_columns(spec.table)
        if missing_columns(spec, (column.name for column in columns)):
            return MIGRATE
        if spec.indexes:
            present = set((yield from dialect.list_indexes(spec.table)))
            if any(index.name not in present for index in spec.indexes):
                return MIGRATE
        if known is not None and ((known.ddl and known.ddl != ddl_hash(model, dialect)) or _swaps(model, known)):
            return MIGRATE
        for extra in spec.ddl_extras:
            if not isinstance(extra, str) and not (yield from extra.present(dialect, spec)):
                return CREATE
        return READY

    def create(self, models: Sequence["BoundModel"]) -> Program[None]:
        """Create tables that are missing, and register their models; under the schema lock."""
        there = set((yield from self.core.dialect.list_tables()))
        yield from create_missing(models, self.core.dialect, create=True, hint=HINT)
        registered = yield from self.registry.listed()
        new = [model for model in models if model.spec.table not in registered and not model.spec.existing]
        if new:
            yield from self.registry.write(
                self.registry.entry(model, whole=model.spec.table not in there) for model in new
            )

    def additions(self) -> Program[tuple[Plan, Draft, frozenset[str]]]:
        """Return the plan that adds what tables lack, what it comes from, and tables that are ahead of the models.

        Raises:
            SchemaError: more than additions would be needed.
        """
        draft = yield from self.planner.draft()

        def foreign(change: Change) -> bool:
            entry = draft.registered.get(change.table)
            if entry is None or not entry.ddl:
                return bool(change.table)
            return change.kind == "alter_column" and change.name not in entry.owned.columns

        found = additive.sort(draft.changes, foreign=foreign)
        if not found.refused and not any(question.kind == "value" for question in draft.plan.questions):
            wanted = additive.applied(draft.found, draft.wanted, found.made)
            steps = self.planner.steps(draft.found, wanted, found.made)
            if not any(additive.unexpected(planned.step) for planned in steps):
                plan = attrs.evolve(draft.plan, steps=steps, questions=())
                return plan, draft, frozenset(change.table for change in found.left)
        raise _not_additive(draft.plan)

    def outcome(self, draft: Draft, models: Sequence["BoundModel"], ahead: frozenset[str] = frozenset()) -> Outcome:
        """Return what the registry learns of a migration; `ahead` are tables that have more than their models."""
        own = [model for model in models if not (model.spec.existing or model.spec.table in ahead)]
        return self.registry.outcome(draft, own)

    def finish(self, models: Sequence["BoundModel"], outcome: Outcome) -> Program[None]:
        """End a migration: features get what they need, and the registry learns of it."""
        yield from create_extras(models, self.core.dialect)
        yield from self.registry.settle(outcome)

    def inside(self, models: Sequence["BoundModel"]) -> Program[None]:
        """Add what tables lack inside an open transaction, as far as that is possible there.

        Raises:
            UsageError: it is not.
        """
        plan, draft, ahead = yield from self.additions()
        if any(planned.step.mode != "together" for planned in plan.steps):
            msg = "a table lacks an index or column that cannot be added inside the open transaction"
            hint = "await db.initialize() before the transaction begins"
            raise UsageError(msg, hint=hint, code="schema-in-transaction")
        yield from self.planner.editor.clear([planned.step for planned in plan.steps])
        for planned in plan.steps:
            for sql in planned.step.sql:
                yield Command(sql, COUNT, writes=True), ()
        yield from self.finish(models, self.outcome(draft, models, ahead))


def _not_additive(plan: Plan) -> SchemaError:
    problems = [Problem(planned.step.operation, f"{planned.risk} {planned.step.summary}") for planned in plan.steps]
    problems += [Problem("question", str(question)) for question in plan.questions]
    msg = "the models need changes of the schema that are more than additions, which are not made by themselves"
    hint = "look at the plan: dataflow migrate plan --app …; carry it out: dataflow migrate apply --app …"
    return SchemaError(msg, problems=problems, hint=f"{hint}, or await db.auto_migrate()", code="not-additive")
