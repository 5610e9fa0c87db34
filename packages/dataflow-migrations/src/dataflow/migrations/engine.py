"""The schema engine: what `DataFlow` and core call. Plans, asks, and has plans carried out on one connection."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from dataflow import _log
from dataflow.changes import SchemaEditor
from dataflow.dialect import COUNT, Command, Program
from dataflow.errors import InputError, Problem, SchemaError, UsageError, suggest
from dataflow.migrations import additive
from dataflow.migrations.execution import Execution, Limits, MigrationError, who
from dataflow.migrations.journal import DONE, FAILED, HISTORY, MODELS, STEPS, UNDONE, Entry, Journal, Registered
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.planning import Draft, Planner, Wishes, ddl_hash, editor_of
from dataflow.migrations.preview import ask
from dataflow.migrations.registry import dump
from dataflow.migrations.risk import RiskLevel
from dataflow.migrations.target import Owned
from dataflow.schema import create_extras, create_missing, missing_columns
from dataflow.session import Call

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel


class SchemaEngine:
    """Lets the schema of one database follow the models of a DataFlow.

    Args:
        core: the inside of the DataFlow.
    """

    hint = "or let 'dataflow migrate apply' do it (await db.auto_migrate())"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.journal = Journal(core.dialect)

    @cached_property
    def editor(self) -> SchemaEditor:
        """The dialect's schema editor."""
        return editor_of(self.core.dialect, self.core.plugins)

    @cached_property
    def planner(self) -> Planner:
        """What makes plans."""
        return Planner(self.core, self.editor, self.journal)

    @property
    def limits(self) -> Limits:
        """How patient migrations are, by the settings."""
        config = self.core.config
        return Limits(
            lock_timeout=config["migration_lock_timeout"],
            statement_timeout=config["migration_statement_timeout"],
            patience=config["migration_patience"],
            waiting=config["migration_wait"],
        )

    @property
    def _keeps(self) -> bool:
        return bool(self.core.config["enable_model_persistence"])

    # -- first use of models ----------------------------------------------------------------------------------------
    def look(self, models: Sequence["BoundModel"]) -> Program[str]:
        """Tell what models need before they can be used: "" (nothing), "create" or "migrate"."""
        dialect = self.core.dialect
        tables = set((yield from dialect.list_tables()))
        registered = (yield from self.journal.registered()) if self._keeps else {}
        todo = ""
        for model in models:
            spec = model.spec
            if spec.table not in tables:
                if spec.options.get("renamed_from") in tables:
                    return "migrate"
                todo = "create"
                continue
            columns = yield from dialect.list_columns(spec.table)
            if missing_columns(spec, (column.name for column in columns)):
                return "migrate"
            present = set((yield from dialect.list_indexes(spec.table))) if spec.indexes else ()
            if any(index.name not in present for index in spec.indexes):
                return "migrate"
            known = registered.get(spec.table)
            if known is not None and known.ddl and known.ddl != ddl_hash(model, dialect):
                return "migrate"
            if (known is None and self._keeps) or not (yield from self._has_extras(model)):
                todo = "create"
        if registered and (yield from self.journal.unfinished()) is not None:
            return "migrate"
        return todo

    def _has_extras(self, model: "BoundModel") -> Program[bool]:
        for extra in model.spec.ddl_extras:
            if not isinstance(extra, str) and not (yield from extra.present(self.core.dialect, model.spec)):
                return False
        return True

    def create(self, models: Sequence["BoundModel"]) -> Program[None]:
        """Create tables that are missing, and register the models; in a transaction that holds the schema lock."""
        there = set((yield from self.core.dialect.list_tables()))
        yield from create_missing(models, self.core.dialect, create=True, hint=self.hint)
        if self._keeps:
            yield from self.journal.make(MODELS)
            registered = yield from self.journal.registered()
            new = [model for model in models if model.spec.table not in registered]
            made = {model.spec.table for model in new} - there
            yield from self.journal.register(self._entry(model, whole=model.spec.table in made) for model in new)

    def _entry(self, model: "BoundModel", *, whole: bool) -> Registered:
        """Return the registry's entry of a model whose table was just made, or was there before (not `whole`)."""
        owned, ddl = Owned(), ""
        if whole:
            table = model.table
            names = {str(index.name) for index in table.indexes}
            names |= {str(constraint.name) for constraint in table.constraints if constraint.name}
            owned = Owned(frozenset(map(str, table.columns.keys())), frozenset(names))
            ddl = ddl_hash(model, self.core.dialect)
        return Registered(
            model.spec.table, model.name, dump(model.spec, self.core.plugins, self.core.classes[model.name]), ddl, owned
        )

    def bring(self, models: Sequence["BoundModel"], call: Call) -> Program[None]:
        """Add what tables lack; outside a transaction where the database allows it.

        Raises:
            SchemaError: more than additions would be needed; the error lists them, and says how to make them.
        """
        if call.session.depth:
            yield from self.core.dialect.schema_lock()
            yield from self._bring_inside(models)
            return
        yield from self.editor.locked(self._bring(models), timeout=self.limits.waiting)

    def _bring(self, models: Sequence["BoundModel"]) -> Program[None]:
        yield from self._resume()
        plan, draft = yield from self._additions()
        finish = self._finish(draft, models)
        if plan:
            yield from self.editor.clear([planned.step for planned in plan.steps])
            yield from self._execution(finish).run(plan)
        else:
            yield from self._attempt(finish(plan))

    def _bring_inside(self, models: Sequence["BoundModel"]) -> Program[None]:
        plan, draft = yield from self._additions()
        if any(planned.step.mode != "together" for planned in plan.steps):
            msg = "a table lacks an index or column that cannot be added inside the open transaction"
            raise UsageError(
                msg, hint="await db.initialize() before the transaction begins", code="schema-in-transaction"
            )
        yield from self.editor.clear([planned.step for planned in plan.steps])
        for planned in plan.steps:
            for sql in planned.step.sql:
                yield Command(sql, COUNT, writes=True), ()
        yield from self._finish(draft, models)(plan)

    def _additions(self) -> Program[tuple[Plan, Draft]]:
        """Return the plan that adds what is lacking."""
        draft = yield from self.planner.draft()
        registered = draft.registered

        def foreign(table: str) -> bool:
            return table not in registered or not registered[table].ddl

        found = additive.sort(draft.changes, foreign=foreign)
        if not found.refused:
            wanted = additive.applied(draft.found, draft.wanted, found.made)
            steps = self.planner.steps(draft.found, wanted, found.made)
            if not any(additive.unexpected(planned.step) for planned in steps):
                return attrs.evolve(draft.plan, steps=steps, questions=()), draft
        raise _not_additive(draft.plan)

    def _finish(self, draft: Draft, models: Iterable["BoundModel"] | None = None) -> Callable[[Plan], Program[None]]:
        """Return what ends a migration: features get what they need, and the registry learns of it."""

        def finish(plan: Plan) -> Program[None]:
            chosen = list(models) if models is not None else self.planner.models
            yield from create_extras(chosen, self.core.dialect)
            if self._keeps:
                yield from self.journal.make(MODELS)
                yield from self.journal.register(self._entries(draft, plan, chosen))
                for old in draft.renames.tables:
                    yield from self.journal.forget(old)

        return finish

    def _entries(self, draft: Draft, plan: Plan, models: Iterable["BoundModel"]) -> list[Registered]:
        """Return the registry's entries after a plan: what it made is DataFlow's, what it dropped is nobody's."""
        del plan
        back = {new: old for old, new in draft.renames.tables.items()}
        found = []
        for model in models:
            table = model.spec.table
            old = back.get(table, table)
            before = draft.registered.get(old)
            entry = self._entry(model, whole=True)
            if old in draft.found.tables and (before is None or not before.ddl):
                own = _names_made(draft, table)
                known = before.owned if before is not None else Owned()
                ours = Owned(known.columns | own.columns, known.objects | own.objects)
                entry = attrs.evolve(entry, owned=ours, ddl="")
            elif before is not None:
                kept = before.owned.columns & frozenset(draft.wanted.tables[table].columns)
                ours = Owned(entry.owned.columns | kept, entry.owned.objects | before.owned.objects)
                entry = attrs.evolve(entry, owned=ours)
            found.append(entry)
        return found

    # -- plans ------------------------------------------------------------------------------------------------------
    async def plan(self, **wishes: Any) -> Plan:
        """Return the plan that makes the schema follow the models; changes nothing. See `auto_migrate` for `wishes`."""
        return await self._run(self._drafted(_wishes(wishes)))  # type: ignore[no-any-return]

    def plan_sync(self, **wishes: Any) -> Plan:
        """`plan` for synchronous callers."""
        return self._run_sync(self._drafted(_wishes(wishes)))  # type: ignore[no-any-return]

    def _drafted(self, wishes: Wishes) -> Program[Plan]:
        draft = yield from self.planner.draft(wishes)
        return draft.plan

    async def auto_migrate(
        self,
        *,
        dry_run: bool = False,
        auto_confirm: bool = False,
        max_risk_level: str | None = None,
        backup_before_migration: bool = False,
        rollback_on_error: bool = True,
        **wishes: Any,
    ) -> tuple[bool, list[PlannedStep]]:
        """Preview the changes that models need, ask, and make them.

        Args:
            dry_run: return what would be done, and change nothing.
            auto_confirm: do not ask. Steps that lose data are refused then, unless `max_risk_level` allows their level.
            max_risk_level: LOW, MEDIUM, HIGH or CRITICAL: refuse plans with a step above it.
            backup_before_migration: copy what the plan touches first; the history says where.
            rollback_on_error: undo what was done when a step fails, where that is possible.
            wishes: `renames` ({"users.mail": "email"}; None where it is new), `backfill` ({"users.status": "new"}) and
                `drop` (["users.legacy"], for what DataFlow has not made).

        Returns:
            (True, steps) when all was done, or nothing had to be; (False, steps) when it was refused or declined.

        Raises:
            SchemaError: a question is open that only the caller can answer; or the schema changed meanwhile.
            MigrationError: a step failed.
        """
        _refuse_flags(dry_run=dry_run, auto_confirm=auto_confirm, rollback=rollback_on_error)
        limit = _level(max_risk_level)
        plan = await self.plan(**wishes)
        steps = list(plan.steps)
        if dry_run or not steps:
            return True, steps
        if not auto_confirm and _interactive():
            wishes, plan = await self._answered(plan, wishes)
            steps = list(plan.steps)
        refusal = _refusal(plan, limit, confirmed=auto_confirm)
        if not refusal and not auto_confirm and not _interactive():
            refusal = "refused: nobody to ask (no terminal); pass auto_confirm=True, or dry_run=True to look only"
        if refusal:
            sys.stderr.write(f"dataflow: {refusal}\n")
            return False, steps
        if not auto_confirm and not ask(plan):
            return False, steps
        program = self.apply(plan, _wishes(wishes), backup=backup_before_migration, rollback=rollback_on_error)
        await self._run(program)
        return True, steps

    async def _answered(self, plan: Plan, wishes: dict[str, Any]) -> tuple[dict[str, Any], Plan]:
        """Ask the user at the terminal what only the user knows."""
        from dataflow.migrations.preview import answers

        given = answers(plan)
        if not given:
            return wishes, plan
        merged = {name: {**wishes.get(name, {}), **given.get(name, {})} for name in ("renames", "backfill")}
        wishes = {**wishes, **merged}
        return wishes, await self.plan(**wishes)

    def refuse(self, plan: Plan, max_risk_level: str | None, *, confirmed: bool) -> None:
        """Raise unless a plan may be carried out.

        Raises:
            SchemaError: a question is open, a step is above the level, or data would be lost that nobody gave up.
        """
        refusal = _refusal(plan, _level(max_risk_level), confirmed=confirmed)
        if refusal:
            raise SchemaError(refusal, hint="look at the plan: dataflow migrate plan", code="too-risky")

    # -- carrying out -------------------------------------------------------------------------------------------------
    def apply(
        self, plan: Plan, wishes: Wishes, *, backup: bool = False, rollback: bool = True
    ) -> Program[Entry | None]:
        """Carry out a plan that was made before, if it still is the plan; None where another process did it meanwhile.

        Raises:
            SchemaError: the schema changed meanwhile, or may not be changed.
            MigrationError: a step failed.
        """
        if self.core.config["existing_schema_mode"]:
            msg = "this DataFlow uses the schema as it is (existing_schema_mode=True)"
            raise SchemaError(msg, hint="apply the plan with another DataFlow, or as SQL", code="existing-schema")
        self.core.permit_schema_change(self.core.own_call())
        body = self._apply(plan, wishes, backup=backup, rollback=rollback)
        try:
            return (yield from self.editor.locked(body, timeout=self.limits.waiting))
        except MigrationError as error:
            if self.editor.whole:
                yield from self.editor.locked(self._write_down(plan, error), timeout=self.limits.waiting)
            raise

    def _apply(self, plan: Plan, wishes: Wishes, *, backup: bool, rollback: bool) -> Program[Entry | None]:
        yield from self._resume()
        draft = yield from self.planner.draft(wishes)
        if not draft.plan:
            return None
        if draft.plan.steps != plan.steps:
            msg = "the schema or the models have changed since the plan was made"
            raise SchemaError(msg, hint="make the plan again", code="plan-stale")
        steps = [planned.step for planned in plan.steps]
        yield from self.editor.clear(steps)
        note = ""
        if backup:
            tables = sorted({step.table for step in steps} & draft.found.tables.keys())
            note = yield from self.editor.backup(tables)
        return (yield from self._execution(self._finish(draft), rollback=rollback).run(plan, note=note))

    def _write_down(self, plan: Plan, error: MigrationError) -> Program[None]:
        """Keep a migration in the history that its database undid as a whole."""
        yield from self.journal.make(HISTORY, STEPS)
        entry = yield from self.journal.begin(plan, who())
        reason = error.__cause__ or error
        yield from self.journal.end(entry, FAILED, str(reason).split("\n", maxsplit=1)[0])

    def _resume(self) -> Program[None]:
        """Carry out what is left of a migration that was interrupted."""
        entry = yield from self.journal.unfinished()
        if entry is not None:
            yield from self._execution(self._nothing).resume(entry)

    @staticmethod
    def _nothing(plan: Plan) -> Program[None]:
        del plan
        yield from ()

    def _execution(self, finish: Callable[[Plan], Program[None]], *, rollback: bool = True) -> Execution:
        config = self.core.config
        log = {"log": _log.event} if config["echo"] or config["monitoring"] else {}
        return Execution(self.editor, self.journal, limits=self.limits, finish=finish, rollback=rollback, **log)

    def _attempt(self, body: Program[None]) -> Program[None]:
        limits = self.limits
        yield from self.editor.attempt(
            body, lock_timeout=limits.lock_timeout, statement_timeout=limits.statement_timeout, transaction=True
        )

    def apply_sync(
        self, plan: Plan, wishes: Mapping[str, Any], *, backup: bool = False, rollback: bool = True
    ) -> Entry | None:
        """`apply` for synchronous callers; `wishes` as for `plan`."""
        return self._run_sync(self.apply(plan, _wishes(wishes), backup=backup, rollback=rollback))  # type: ignore[no-any-return]

    # -- history ----------------------------------------------------------------------------------------------------
    async def history(self) -> list[Entry]:
        """Return the migrations of this database, the first first."""
        return await self._run(self.journal.history())  # type: ignore[no-any-return]

    def history_sync(self) -> list[Entry]:
        """`history` for synchronous callers."""
        return self._run_sync(self.journal.history())  # type: ignore[no-any-return]

    def undo_plan_sync(self, migration: str | None = None) -> tuple[Entry, Plan]:
        """Return a migration of the history (the last one that is done), and the plan that undoes it.

        Raises:
            SchemaError: there is none, or one of its steps cannot be undone.
        """
        return _undoing(self.history_sync(), migration)

    async def undo(self, migration: str | None = None) -> Entry:
        """Undo a migration of the history (the last one that is done): its steps backwards.

        Raises:
            SchemaError: there is none, or one of its steps cannot be undone; nothing has changed.
            MigrationError: a step failed.
        """
        return await self._run(self._undo(migration))  # type: ignore[no-any-return]

    def undo_sync(self, migration: str | None = None) -> Entry:
        """`undo` for synchronous callers."""
        return self._run_sync(self._undo(migration))  # type: ignore[no-any-return]

    def _undo(self, migration: str | None) -> Program[Entry]:
        self.core.permit_schema_change(self.core.own_call())
        return (yield from self.editor.locked(self._undo_locked(migration), timeout=self.limits.waiting))

    def _undo_locked(self, migration: str | None) -> Program[Entry]:
        entry, back = _undoing((yield from self.journal.history()), migration)

        def finish(plan: Plan) -> Program[None]:
            del plan
            yield from self.journal.end(entry, UNDONE)
            if self._keeps:  # what the models say is not what is there: the next look compares anew
                registered = yield from self.journal.registered()
                touched = {planned.step.table for planned in back.steps}
                stale = [attrs.evolve(each, ddl="undone") for name, each in registered.items() if name in touched]
                yield from self.journal.register(stale)

        yield from self.editor.clear([planned.step for planned in back.steps])
        return (yield from self._execution(finish).run(back, note=f"undoes {entry.id}"))

    # -- models of tables ---------------------------------------------------------------------------------------------
    def discover_schema(self) -> dict[str, dict[str, Any]]:
        """Return what the database holds: table -> columns, keys, indexes."""
        from dataflow.migrations.discovery import described

        return described(self._run_sync(self.editor.inspect()))

    def register_schema_as_models(
        self, tables: Sequence[str] | None = None, *, names: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Register existing tables as models.

        Args:
            tables: names; all when left out.
            names: table -> name of its model, where the rule's is not wanted.

        Returns:
            ``{"generated_nodes": {model: {operation: node type}}, "models": {model: table}, "skipped": {what: why}}``
        """
        from dataflow.migrations.discovery import register

        return register(self.core, self._run_sync(self.editor.inspect()), tables, names)

    def reconstruct_models_from_registry(self) -> dict[str, Any]:
        """Register the models that earlier processes used on this database."""
        from dataflow.migrations.registry import restore

        registered = self._run_sync(self.journal.registered())
        return restore(self.core, {entry.model: entry.definition for entry in registered.values()})

    # -- running ------------------------------------------------------------------------------------------------------
    async def _run(self, program: Program[Any]) -> Any:
        return await self.core.run(program, self.core.own_call(), write=True, holder="migration")

    def _run_sync(self, program: Program[Any]) -> Any:
        return self.core.run_sync(program, self.core.own_call(), write=True, holder="migration")


def _undoing(entries: Sequence[Entry], migration: str | None) -> tuple[Entry, Plan]:
    done = [entry for entry in entries if entry.status in (DONE, FAILED) and not entry.note.startswith("undoes ")]
    chosen = [entry for entry in done if migration is None or entry.id == migration]
    if not chosen:
        msg = "there is no migration to undo" if migration is None else f"there is no migration {migration!r} to undo"
        raise SchemaError(msg, hint="see 'dataflow migrate history'", code="unknown-migration")
    entry = chosen[-1]
    if entry is not done[-1]:
        msg = f"migration {entry.id} is not the last one"
        raise SchemaError(msg, hint=f"undo {done[-1].id} first", code="not-last")
    back = entry.plan.inverse(entry.done)
    if back is None:
        lost = [str(planned) for planned in entry.plan.steps if planned.step.inverse is None]
        msg = f"migration {entry.id} cannot be undone: {'; '.join(lost)}"
        raise SchemaError(msg, hint="restore a backup, or change the models and migrate", code="not-undoable")
    return entry, back


def _refusal(plan: Plan, limit: RiskLevel | None, *, confirmed: bool) -> str:
    """Return why a plan is not carried out, or "".

    Raises:
        SchemaError: a question is open.
    """
    if plan.questions:
        problems = [Problem("question", str(question)) for question in plan.questions]
        msg = "the plan has questions that only you can answer"
        raise SchemaError(msg, problems=problems, hint="answer them, or declare it on the model", code="question")
    above = [str(planned) for planned in plan.steps if limit is not None and planned.risk.rank > limit.rank]
    if above:
        return f"refused: above {limit}: " + "; ".join(above)
    if confirmed and limit is None and plan.loses_data:
        return f"refused: data would be lost; confirm that with a highest risk level of {plan.risk}"
    return ""


def _names_made(draft: Draft, table: str) -> Owned:
    columns = {change.name for change in draft.changes if change.kind == "add_column" and change.table == table}
    kinds = ("create_index", "add_constraint")
    objects = {change.name for change in draft.changes if change.kind in kinds and change.table == table}
    return Owned(frozenset(columns), frozenset(objects - {""}))


def _wishes(given: Mapping[str, Any]) -> Wishes:
    known = {field.name for field in attrs.fields(Wishes)}
    for name in given:
        if name not in known:
            options = [*known, "dry_run", "auto_confirm", "max_risk_level", "backup_before_migration"]
            options.append("rollback_on_error")
            close = suggest(name, options)
            msg = f"auto_migrate() has no option {name!r}"
            hint = f"did you mean {close!r}?" if close else f"options: {', '.join(sorted(options))}"
            raise InputError(msg, hint=hint, code="bad-parameter")
    drop: Collection[str] = given.get("drop", ())
    if isinstance(drop, str):
        drop = [drop]
    return Wishes(given.get("renames") or {}, given.get("backfill") or {}, tuple(drop))


def _level(given: str | None) -> RiskLevel | None:
    if given is None:
        return None
    try:
        return RiskLevel(str(getattr(given, "value", given)).upper())
    except ValueError:
        msg = f"there is no risk level {given!r}"
        raise InputError(msg, hint=f"choose one of {', '.join(RiskLevel)}", code="bad-parameter") from None


def _refuse_flags(**flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} is True or False", hint=f"got {type(value).__name__}", code="bad-parameter")


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _not_additive(plan: Plan) -> SchemaError:
    problems = [Problem(planned.step.operation, f"{planned.risk} {planned.step.summary}") for planned in plan.steps]
    problems += [Problem("question", str(question)) for question in plan.questions]
    msg = "the models need changes of the schema that are more than additions, which are not made by themselves"
    hint = "look at the plan: dataflow migrate plan --app …; carry it out: dataflow migrate apply --app …"
    return SchemaError(msg, problems=problems, hint=f"{hint}, or await db.auto_migrate()", code="not-additive")
