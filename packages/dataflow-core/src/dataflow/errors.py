"""The exception tree, one shape for all: what went wrong, where, and what to type next.

DataFlowError
├── ConfigurationError      a setting, URL or capability is wrong
│   ├── MissingCapability   no active plugin provides what was asked for
│   └── NotYetAvailable     part of a later release
├── PluginError             PluginLoadError, PluginConflictError
├── ModelError              a model declaration is wrong
├── InputError              parameters of an operation are wrong; nothing was written
├── NotFoundError           no record under that key
├── TenancyError            no tenant is known for a call, or two contradict each other
├── WriteProtectedError     a policy forbids the write
├── VersionConflict         a record has another version than the caller expects
├── SchemaError             a table or column is missing or differs
├── DatabaseError           the database refused: QueryError, DatabaseUnavailable, DatabaseTimeout, SerializationError
│   └── IntegrityError      UniqueError, ForeignKeyError, NotNullError, CheckError
├── UsageError              the right call in the wrong place (thread, loop, closed instance)
└── WorkflowError           WorkflowBuildError, WorkflowExecutionError

Row values and secrets never enter a message. Driver errors are translated in the dialect only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that was most likely meant by `name`, or None."""
    pool = list(candidates)
    import difflib

    close = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if close:
        return close[0]
    folded = {candidate.lower().replace("_", ""): candidate for candidate in pool}
    return folded.get(name.lower().replace("_", ""))


@attrs.frozen
class Problem:
    """One fault among several of a call.

    Attributes:
        code: stable kebab-case identifier, for programs.
        message: what is wrong, in a sentence without values of rows.
        hint: what to type next.
        where: place of the fault, for example ``{"model": "User", "field": "email"}``.
    """

    code: str
    message: str
    hint: str = ""
    where: Mapping[str, str | int] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class DataFlowError(Exception):
    """Root of every error that DataFlow raises on purpose.

    Args:
        message: what is wrong.
        hint: what to do about it.
        where: the place (model, field, node, file …), outermost first.
        code: stable identifier; the class's own when not given.
        problems: the single faults when several were found together.
    """

    code: ClassVar[str] = "dataflow-error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        where: Mapping[str, str | int] | None = None,
        code: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where: dict[str, str | int] = dict(where or {})
        self.problems = tuple(problems)
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more precise than its class

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append("  where: " + ", ".join(f"{key} {value}" for key, value in self.where.items()))
        lines += [f"  - {problem}" for problem in self.problems]
        if self.hint:
            lines.append(f"  fix: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__ if isinstance(self.__cause__, DataFlowError) else None
        return (_rebuild, (type(self), self.message, dict(self.__dict__), cause))

    def at(self, **where: str | int) -> "DataFlowError":
        """Add places that only an outer layer knows; what is already known stays."""
        self.where = {**where, **self.where}
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-able data: error, code, message, hint, where, problems, cause."""
        out: dict[str, Any] = {
            "error": type(self).__name__,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "where": dict(self.where),
        }
        if self.problems:
            out["problems"] = [attrs.asdict(problem) for problem in self.problems]
        if isinstance(self.__cause__, DataFlowError):
            out["cause"] = self.__cause__.to_dict()
        return out


def _rebuild(
    cls: type[DataFlowError], message: str, state: dict[str, Any], cause: DataFlowError | None
) -> DataFlowError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


class ConfigurationError(DataFlowError):
    """A setting, database URL or policy is wrong."""

    code = "configuration"


class MissingCapability(ConfigurationError):
    """No active plugin provides a capability that a model, setting or URL asks for."""

    code = "missing-capability"


class NotYetAvailable(ConfigurationError):
    """The option belongs to a later release; it is refused, never ignored."""

    code = "not-yet-available"


class PluginError(DataFlowError):
    """A plugin cannot be used."""

    code = "plugin"


class PluginLoadError(PluginError):
    """A plugin failed to import, to fit the plugin API, or to name its hooks correctly."""

    code = "plugin-load"


class PluginConflictError(PluginError):
    """Two plugins provide the same name."""

    code = "plugin-conflict"


class ModelError(DataFlowError):
    """A model declaration is wrong."""

    code = "model"


class InputError(DataFlowError):
    """Parameters of an operation are wrong; the operation did not start and nothing was written."""

    code = "input"


class NotFoundError(DataFlowError):
    """No record has the given key, and the caller asked to be told so."""

    code = "not-found"


class TenancyError(DataFlowError):
    """A call on a multi-tenant model names no tenant, or another one than surrounds it; nothing was read or written."""

    code = "no-tenant"


class WriteProtectedError(DataFlowError):
    """A policy forbids the write; nothing was written.

    Attributes:
        level: global, connection, model, operation, field or runtime.
        rule: the rule that decided, as the policy words it.
    """

    code = "write-protected"

    def __init__(
        self,
        message: str,
        *,
        level: str = "",
        rule: str = "",
        hint: str = "",
        where: Mapping[str, str | int] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, where=where, code=code)
        self.level = level
        self.rule = rule


class VersionConflict(DataFlowError):
    """A record has another version than the caller expects; nothing was written.

    Attributes:
        ids: keys of the records that differ, where several were to be changed.
    """

    code = "version-conflict"

    def __init__(
        self,
        message: str,
        *,
        ids: Sequence[Any] = (),
        hint: str = "",
        where: Mapping[str, str | int] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, where=where, code=code)
        self.ids = list(ids)


class SchemaError(DataFlowError):
    """A table or column that a model needs is missing or differs."""

    code = "schema"


class DatabaseError(DataFlowError):
    """The database refused an operation or could not carry it out."""

    code = "database"


class IntegrityError(DatabaseError):
    """A constraint refused the write."""

    code = "integrity"


class UniqueError(IntegrityError):
    """A unique key already holds that value."""

    code = "unique"


class ForeignKeyError(IntegrityError):
    """A foreign key points to nothing, or something still points here."""

    code = "foreign-key"


class NotNullError(IntegrityError):
    """A column that must have a value got none."""

    code = "not-null"


class CheckError(IntegrityError):
    """A check constraint or column type refused the value."""

    code = "check"


class QueryError(DatabaseError):
    """The database could not run a statement."""

    code = "query"


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, opened, or written to."""

    code = "unavailable"


class DatabaseTimeout(DatabaseError):
    """A lock, connection or statement was not granted or done in time."""

    code = "timeout"


class SerializationError(DatabaseError):
    """Concurrent transactions excluded each other; this one was undone and may be run again."""

    code = "serialization"


class UsageError(DataFlowError):
    """The right call in the wrong place: a closed instance, the wrong thread or event loop."""

    code = "usage"


class WorkflowError(DataFlowError):
    """Something about a workflow is wrong."""

    code = "workflow"


class WorkflowBuildError(WorkflowError):
    """`build()` found problems; `problems` lists all of them."""

    code = "workflow-build"


class WorkflowExecutionError(WorkflowError):
    """A node of a running workflow failed.

    Attributes:
        node_id: the node that failed.
        node_type: its type.
        run_id: the run.
        results: dict node id -> outputs of the nodes that were done before.
    """

    code = "workflow-execution"

    def __init__(
        self, message: str, *, node_id: str, node_type: str, run_id: str, results: dict[str, Any], hint: str = ""
    ) -> None:
        where = {"node": node_id, "type": node_type, "run": run_id}
        super().__init__(message, where=where, hint=hint)
        self.node_id = node_id
        self.node_type = node_type
        self.run_id = run_id
        self.results = results
