"""The schema engine: what `DataFlow` and core call. Plans, asks, and has plans carried out on one connection."""

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.changes import SchemaEditor
from dataflow.dialect import Program
from dataflow.errors import SchemaError
from dataflow.migrations.deciding import UNDOES, check_flags, level_of, refusal, somebody_there, undoing, wishes_of
from dataflow.migrations.execution import Execution, Limits, MigrationError, who
from dataflow.migrations.exporting import written
from dataflow.migrations.first_use import CREATE, HINT, READY, FirstUse, Registry
from dataflow.migrations.journal import FAILED, HISTORY, STEPS, UNDONE, Entry, Journal
from dataflow.migrations.plan import Plan, PlannedStep
from dataflow.migrations.planning import Planner, Wishes, can_migrate, editor_of
from dataflow.migrations.preview import answers, ask
from dataflow.model import SchemaExtra
from dataflow.schema import create_extras, create_missing, lacks, missing_columns
from dataflow.session import Call

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.plan.bound import BoundModel

T = TypeVar("T")


class SchemaEngine:
    """Lets the schema of one database follow the models of a DataFlow.

    Args:
        core: the inside of the DataFlow.
    """

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.journal = Journal(core.dialect)

    @property
    def hint(self) -> str:
        """How a missing column can be added, where that is not allowed by itself."""
        if can_migrate(self.core.dialect, self.core.plugins):
            return HINT
        return f"the dialect {self.core.dialect.name} has no schema editor that would do it"

    @cached_property
    def editor(self) -> SchemaEditor:
        """The dialect's schema editor."""
        return editor_of(self.core.dialect, self.core.plugins)

    @cached_property
    def planner(self) -> Planner:
        """What makes plans."""
        return Planner(self.core, self.editor, self.journal)

    @cached_property
    def registry(self) -> Registry:
        """What the registry is told."""
        return Registry(self.core, self.journal)

    @cached_property
    def first_use(self) -> FirstUse:
        """What gets the tables of models ready."""
        return FirstUse(self.core, self.planner, self.registry)

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

    # -- first use of models ----------------------------------------------------------------------------------------
    def look(self, models: Sequence["BoundModel"]) -> Program[str]:
        """Tell what models need before they can be used: "" (nothing), "create" or "migrate"."""
        if not can_migrate(self.core.dialect, self.core.plugins):  # then as core does alone
            return CREATE if (yield from lacks(models, self.core.dialect)) else READY
        return (yield from self.first_use.look(models))

    def create(self, models: Sequence["BoundModel"]) -> Program[None]:
        """Create tables that are missing; in a transaction that holds the schema lock."""
        if can_migrate(self.core.dialect, self.core.plugins):
            yield from self.first_use.create(models)
        else:
            yield from create_missing(models, self.core.dialect, create=True, hint=self.hint)

    def bring(self, models: Sequence["BoundModel"], call: Call) -> Program[None]:
        """Add what tables lack; outside a transaction, unless the call joined one.

        Raises:
            SchemaError: more than additions would be needed; the error lists them, and says how to make them.
        """
        if call.session.depth:
            yield from self.core.dialect.schema_lock()
            yield from self.first_use.inside(models)
        else:
            yield from self.editor.locked(self._bring(models), timeout=self.limits.waiting)

    def _bring(self, models: Sequence["BoundModel"]) -> Program[None]:
        yield from self._resume()
        plan, draft, ahead = yield from self.first_use.additions()
        outcome = self.first_use.outcome(draft, models, ahead)
        if plan:
            yield from self._clear(plan)
            yield from self._execution(models).run(plan, outcome=outcome)
        else:
            yield from self._attempt(self.first_use.finish(models, outcome))

    # -- plans ------------------------------------------------------------------------------------------------------
    async def plan(self, **wishes: Any) -> Plan:
        """Return the plan that makes the schema follow the models; changes nothing. See `auto_migrate` for `wishes`."""
        return await self._run(self._drafted(wishes_of(wishes)))

    def plan_sync(self, **wishes: Any) -> Plan:
        """`plan` for synchronous callers."""
        return self._run_sync(self._drafted(wishes_of(wishes)))

    def _drafted(self, wishes: Wishes) -> Program[Plan]:
        draft = yield from self.planner.draft(wishes)
        return draft.plan

    def script_sync(self, plan: Plan) -> str:
        """Return a plan as SQL for the database's own shell, with what features keep on tables."""
        return self._run_sync(self._script(plan))

    def _script(self, plan: Plan) -> Program[str]:
        models = self.planner.models
        names = sorted(
            {extra.name for model in models for extra in model.spec.ddl_extras if isinstance(extra, SchemaExtra)}
        )
        steps = [planned.step for planned in plan.steps]
        return (yield from written(self.editor, steps, lambda: create_extras(models, self.core.dialect), names))

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
        check_flags(dry_run=dry_run, auto_confirm=auto_confirm, rollback=rollback_on_error)
        limit = level_of(max_risk_level)
        settled = dry_run or self.core.config["existing_schema_mode"]
        plan = await (self.plan(**wishes) if settled else self._run(self._planned(wishes_of(wishes))))
        steps = list(plan.steps)
        if dry_run or (not steps and self.core.config["existing_schema_mode"]):
            return True, steps
        self._refuse_existing()
        if steps and not auto_confirm and somebody_there():
            wishes, plan = await self._answered(plan, wishes)
            steps = list(plan.steps)
        why = refusal(plan, limit, confirmed=auto_confirm)
        if steps and not why and not auto_confirm and not somebody_there():
            why = "refused: nobody to ask (no terminal); pass auto_confirm=True, or dry_run=True to look only"
        if why:
            sys.stderr.write(f"dataflow: {why}\n")
            return False, steps
        if steps and not auto_confirm and not ask(plan):
            return False, steps
        program = self.apply(plan, wishes_of(wishes), backup=backup_before_migration, rollback=rollback_on_error)
        await self._run(program)
        return True, steps

    async def _answered(self, plan: Plan, wishes: dict[str, Any]) -> tuple[dict[str, Any], Plan]:
        """Ask the user at the terminal what only the user knows."""
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
        why = refusal(plan, level_of(max_risk_level), confirmed=confirmed)
        if why:
            raise SchemaError(why, hint="look at the plan: dataflow migrate plan", code="too-risky")

    # -- carrying out -------------------------------------------------------------------------------------------------
    def apply(
        self, plan: Plan, wishes: Wishes, *, backup: bool = False, rollback: bool = True
    ) -> Program[Entry | None]:
        """Carry out a plan that was made before, if it still is the plan; None where another process did it meanwhile.

        A migration that was interrupted is ended first; where nothing is left to do then, it is what was carried out.

        Raises:
            SchemaError: the schema changed meanwhile, or may not be changed.
            MigrationError: a step failed.
        """
        self._refuse_existing()
        self.core.permit_schema_change(self.core.own_call())
        body = self._apply(plan, wishes, backup=backup, rollback=rollback)
        try:
            return (yield from self.editor.locked(body, timeout=self.limits.waiting))
        except MigrationError as error:
            if self.editor.whole:
                yield from self.editor.locked(self._write_down(plan, error), timeout=self.limits.waiting)
            raise

    def _refuse_existing(self) -> None:
        if self.core.config["existing_schema_mode"]:
            msg = "this DataFlow uses the schema as it is (existing_schema_mode=True)"
            raise SchemaError(msg, hint="apply the plan with another DataFlow, or as SQL", code="existing-schema")

    def _apply(self, plan: Plan, wishes: Wishes, *, backup: bool, rollback: bool) -> Program[Entry | None]:
        resumed = yield from self._resume()
        draft = yield from self.planner.draft(wishes)
        models = self.planner.models
        outcome = self.first_use.outcome(draft, models)
        if not draft.plan:
            yield from self._attempt(self.first_use.finish(models, outcome))
            return resumed
        if draft.plan.steps != plan.steps:
            msg = "the schema or the models have changed since the plan was made"
            if resumed is not None:
                msg = f"migration {resumed.id}, which was interrupted, is done now; the plan was made before that"
            raise SchemaError(msg, hint="make the plan again", code="plan-stale")
        steps = [planned.step for planned in plan.steps]
        note = ""
        if backup:
            tables = sorted({step.table for step in steps} & draft.found.tables.keys())
            note = yield from self.editor.backup(tables)
        yield from self._clear(plan)
        return (yield from self._execution(models, rollback=rollback).run(plan, note=note, outcome=outcome))

    def _write_down(self, plan: Plan, error: MigrationError) -> Program[None]:
        """Keep a migration in the history that its database undid as a whole."""
        yield from self.journal.make(HISTORY, STEPS)
        entry = yield from self.journal.begin(plan, who())
        reason = error.__cause__ or error
        yield from self.journal.end(entry, FAILED, str(reason).split("\n", maxsplit=1)[0])

    def _resume(self) -> Program[Entry | None]:
        """Carry out what is left of a migration that was interrupted; make sure that there is a schema at all."""
        yield from self._attempt(self.core.dialect.before_tables([]))
        entry = yield from self.journal.unfinished()
        if entry is not None:
            yield from self._clear(entry.plan)
            entry = yield from self._execution(()).resume(entry)
        return entry

    def _planned(self, wishes: Wishes) -> Program[Plan]:
        """Plan when no other process migrates: it is waited for; what one has left when it was killed is done."""
        while True:
            if (yield from self.journal.unfinished()) is not None:
                self.core.permit_schema_change(self.core.own_call())
                yield from self.editor.locked(self._resume(), timeout=self.limits.waiting)
            last = yield from self.journal.last()
            plan = yield from self._drafted(wishes)
            if last == (yield from self.journal.last()):
                return plan

    def _clear(self, plan: Plan) -> Program[None]:
        """Let what the framework keeps on tables step aside, where all is one transaction; elsewhere each unit does."""
        if self.editor.whole:
            yield from self.editor.clear([planned.step for planned in plan.steps])

    def _execution(self, models: Sequence["BoundModel"], *, rollback: bool = True) -> Execution:
        """Return what carries out a plan for models; their features get what they need at its end."""

        def finish(entry: Entry) -> Program[None]:
            if entry.note.startswith(UNDOES):
                yield from self.journal.end_of(entry.note.removeprefix(UNDOES), UNDONE)
            yield from self.first_use.finish(models, entry.outcome)

        def leave(entry: Entry) -> Program[None]:
            yield from self.registry.leave(entry.outcome)

        def again(tables: Collection[str]) -> Program[None]:
            for model in models:
                if model.spec.table in tables:
                    columns = yield from self.core.dialect.list_columns(model.spec.table)
                    if not missing_columns(model.spec, [column.name for column in columns]):
                        yield from create_extras([model], self.core.dialect)

        return Execution(
            self.editor,
            self.journal,
            limits=self.limits,
            finish=finish,
            leave=leave,
            again=again,
            rollback=rollback,
            log=self.core.tell,
        )

    def _attempt(self, body: Program[None]) -> Program[None]:
        limits = self.limits
        yield from self.editor.attempt(
            body, lock_timeout=limits.lock_timeout, statement_timeout=limits.statement_timeout, transaction=True
        )

    def apply_sync(
        self, plan: Plan, wishes: Mapping[str, Any], *, backup: bool = False, rollback: bool = True
    ) -> Entry | None:
        """`apply` for synchronous callers; `wishes` as for `plan`."""
        return self._run_sync(self.apply(plan, wishes_of(wishes), backup=backup, rollback=rollback))

    # -- history ----------------------------------------------------------------------------------------------------
    async def history(self) -> list[Entry]:
        """Return the migrations of this database, the first first."""
        return await self._run(self.journal.history())

    def history_sync(self) -> list[Entry]:
        """`history` for synchronous callers."""
        return self._run_sync(self.journal.history())

    def undo_plan_sync(self, migration: str | None = None) -> tuple[Entry, Plan]:
        """Return a migration of the history (the last one that is done), and the plan that undoes it.

        Raises:
            SchemaError: there is none, or one of its steps cannot be undone.
        """
        return undoing(self.history_sync(), migration)

    async def undo(self, migration: str | None = None) -> Entry:
        """Undo a migration of the history (the last one that is done): its steps backwards.

        Raises:
            SchemaError: there is none, or one of its steps cannot be undone; nothing has changed.
            MigrationError: a step failed.
        """
        return await self._run(self._undo(migration))

    def undo_sync(self, migration: str | None = None) -> Entry:
        """`undo` for synchronous callers."""
        return self._run_sync(self._undo(migration))

    def _undo(self, migration: str | None) -> Program[Entry]:
        self.core.permit_schema_change(self.core.own_call())
        return (yield from self.editor.locked(self._undo_locked(migration), timeout=self.limits.waiting))

    def _undo_locked(self, migration: str | None) -> Program[Entry]:
        resumed = yield from self._resume()
        of = "" if resumed is None else resumed.note
        if resumed is not None and of.startswith(UNDOES) and migration in (None, of.removeprefix(UNDOES)):
            return resumed  # it is what was to be undone
        entry, back = undoing((yield from self.journal.history()), migration)
        yield from self._clear(back)
        note = f"{UNDOES}{entry.id}"
        return (yield from self._execution(()).run(back, note=note, outcome=entry.outcome.reverse))

    # -- models of tables ---------------------------------------------------------------------------------------------
    def discover_schema(self) -> dict[str, dict[str, Any]] | None:
        """Return what the database holds: table -> columns, keys, indexes; None where its dialect cannot tell."""
        from dataflow.migrations.discovery import described

        if not can_migrate(self.core.dialect, self.core.plugins):
            return None
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

        registered = self._run_sync(self.journal.registered())
        featured = {
            table: f"of the model {entry.model} ({', '.join(entry.features)})"
            for table, entry in registered.items()
            if entry.features
        }
        return register(self.core, self._run_sync(self.editor.inspect()), tables, names, featured=featured)

    def reconstruct_models_from_registry(self) -> dict[str, Any]:
        """Register the models that earlier processes used on this database."""
        from dataflow.migrations.registry import restore

        registered = self._run_sync(self.journal.registered())
        return restore(self.core, {entry.model: entry.definition for entry in registered.values()})

    # -- running ------------------------------------------------------------------------------------------------------
    async def _run(self, program: Program[T]) -> T:
        return await self.core.run(program, self.core.own_call(), write=True, holder="migration")

    def _run_sync(self, program: Program[T]) -> T:
        return self.core.run_sync(program, self.core.own_call(), write=True, holder="migration")
