"""The base of core's operations: sorting parameters into fields and options, and reporting all faults together."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from dataflow import later
from dataflow.dialect import Program
from dataflow.errors import InputError, MissingCapability, Problem, suggest
from dataflow.filters import FilterCompiler, shape
from dataflow.operations import BY_NAME, OperationKind
from dataflow.plan.builder import Plan, PlanBuilder, kept_problem, refused_problem
from dataflow.plugins.hints import extra_for
from dataflow.session import Call, atomic
from dataflow.types import ValueRefused, kind

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel

KEY = "@key"  # options that name parts of the primary key are routed here
_DOCUMENTS = ("filter", "conditions", "where")
DICT_HINT = "write {'field': value}"


SCALARS = frozenset((int, str, UUID))
"""Types of most keys."""


class Result(dict[str, Any]):
    """A node's result: a dict, with flags and the whole also under names that no field can take.

    ``result["_status"]`` holds the flags (found, created, updated, deleted), ``result["_result"]`` and
    ``result["result"]`` the whole, unless a field has that name.
    """

    __slots__ = ("status",)

    def __init__(self, values: Mapping[str, Any], status: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        if status is None:
            self.status: Mapping[str, Any] = _NO_STATUS
            return
        self.status = status
        for name, flag in status.items():
            self.setdefault(name, flag)

    def __missing__(self, key: str) -> Any:
        if key == "_status":
            return dict(self.status)
        if key in ("_result", "result"):
            return self
        raise KeyError(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Result, (dict(self), dict(self.status)))


_NO_STATUS: Mapping[str, Any] = {}


class ModelOperation:
    """Base of the operations on one model.

    Args:
        bound: the model on its database.
    """

    name: ClassVar[str]
    described: ClassVar[OperationKind | None] = None
    """What a plugin's operation is: its parameters and results; core's own stand in `dataflow.operations`."""

    def __init__(self, bound: "BoundModel") -> None:
        self.bound = bound
        self.kind: OperationKind = self.described or BY_NAME[self.name]
        self.writes = self.kind.writes
        known = bound.spec.call_options
        self.call_options = {name: option.shapes for name, option in known.items() if option.of(self.name)}
        self.value_options = [
            name
            for name, option in known.items()
            if name in bound.fields
            and bound.fields[name].spec.kept
            and (option.of(self.name) or self.name in option.rows)
        ]
        self.keyed = [feature for feature in bound.features if hasattr(feature, "plan_key")]
        self.route = self._routes()

    def _routes(self) -> dict[str, str | None]:
        """Map each parameter to its option, or to None for a field: a field of the user's always wins its name."""
        route: dict[str, str | None] = {}
        for parameter in self.kind.parameters:
            route[parameter.name] = parameter.name
            route[f"_{parameter.name}"] = parameter.name
        route |= {option: option for option in self.call_options}
        if "id" in route:
            route["record_id"] = "id"
            route.update(dict.fromkeys(self.bound.spec.primary_key, KEY))
            if self.bound.spec.primary_key == ("id",):
                route["id"] = "id"
        if self.kind.takes_fields:
            for name in self.bound.fields:
                if self.kind.takes_fields != "changes" or name not in self.bound.spec.primary_key:
                    route[name] = None
        for option in self.call_options:  # a feature that adds a field and an option of one name means the option
            route[f"_{option}"] = option
            if option in self.bound.fields and self.bound.spec.fields[option].origin != "user":
                route[option] = option
        return route

    # -- parameters -----------------------------------------------------------------------------------------------
    def split(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sort parameters into (fields, options).

        Raises:
            InputError: a name is unknown.
        """
        route = self.route
        fields: dict[str, Any] = {}
        options: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, value in params.items():
            try:
                target = route[name]
            except KeyError:
                problems.append(self.unknown(name))
                continue
            if target is None:
                fields[name] = value
            elif target is KEY:
                options.setdefault(KEY, {})[name] = value
            else:
                options[target] = value
        if problems:
            raise self.bound.refuse(self.check(params, partial=False) or problems, self.name)
        if options.get("soft_delete") and "soft_delete" not in self.call_options:
            raise self.lacking("soft_delete")
        return fields, options

    def lacking(self, capability: str) -> MissingCapability:
        """Build the error for an option that needs a feature this model does not have."""
        msg = f"{capability} is asked for, but model {self.bound.name} does not have that feature"
        extra = extra_for("capability", capability)
        hint = f"declare __dataflow__ = {{'{capability}': True}} on the model; {extra}".rstrip("; ")
        return MissingCapability(msg, hint=hint, where={"model": self.bound.name, "operation": self.name})

    def unknown(self, name: str) -> Problem:
        """Describe an unknown parameter.

        Raises:
            NotYetAvailable: it belongs to a later release.
        """
        if name in later.PARAMETERS:
            raise later.refuse("parameter", name, model=self.bound.name, operation=self.name)
        known = [known for known in self.route if not known.startswith(("_", "$"))]
        close = suggest(str(name), known)
        hint = f"did you mean {close!r}?" if close else f"{self.name} takes: {', '.join(known) or 'nothing'}"
        if name == "tenant_id":
            hint = "declare __dataflow__ = {'multi_tenant': True} on the model, or leave it out"
        what = (
            f"{self.bound.name} has no field or option" if self.kind.takes_fields else f"{self.name} takes no parameter"
        )
        return Problem("unknown-parameter", f"{what} {name!r}", hint, {"parameter": str(name)})

    def check(self, params: Mapping[str, Any], *, partial: bool) -> list[Problem]:
        """Return every fault of constants known before the run; `partial`: the rest comes by connections."""
        del partial
        problems: list[Problem] = []
        for name, value in params.items():
            if name not in self.route:
                problems.append(self.unknown(name))
            elif self.route[name] is None:
                problems += self.check_field(name, value)
            elif self.route[name] in _DOCUMENTS:
                if isinstance(value, Mapping):
                    problems += self.check_filter(value)
                elif value is not None:
                    problems.append(Problem("bad-parameter", f"{name} takes a dict, got {kind(value)}", DICT_HINT))
            elif self.route[name] == "data" and isinstance(value, Iterator):
                message = f"{name} takes a list of dicts, got {kind(value)}, which gives its rows only once"
                problems.append(Problem("bad-parameter", message, "write list(…): a workflow may run more than once"))
        return problems

    def check_filter(self, document: Mapping[str, Any]) -> list[Problem]:
        """Return the faults of a filter document, compiling it without keeping the plan."""
        problems: list[Problem] = []
        builder = PlanBuilder(self.bound, self.name, "select").apply_features()
        FilterCompiler(builder, problems).compile(document)
        if not problems:
            operands: list[Any] = []
            shape(document, operands)
            for source, convert, label in builder.slots.values():
                if isinstance(source, int) and convert is not None:
                    try:
                        convert(operands[source])
                    except ValueRefused as refused:
                        problems.append(refused_problem(label, refused))
        return problems

    def check_field(self, name: str, value: Any) -> list[Problem]:
        """Return the fault of one field value, if any."""
        spec = self.bound.fields[name].spec
        if value is None and spec.generated and not spec.nullable:
            return []
        if spec.kept:
            return [kept_problem(spec)]
        try:
            self.bound.fields[name].encode(value)
        except ValueRefused as refused:
            return [refused_problem(name, refused)]
        return []

    def compile_keys(self, document: Mapping[str, Any], operands: int, extra: Any) -> Plan:
        """Compile the read of the keys of the records a filter matches, as features let the call see them."""
        builder = PlanBuilder(self.bound, self.name, "select", options=dict(extra)).apply_features()
        self.compile_filter(builder, document)
        names = self.bound.spec.primary_key
        statement = builder.restrict(sa.select(*[builder.table.c[name] for name in names]))
        return builder.compile(statement, operands=operands, columns=names)

    def scalar(self, record: Mapping[str, Any]) -> Any:
        """Return the key of a record: a scalar, or a tuple."""
        key = tuple(record[name] for name in self.bound.spec.primary_key)
        return key[0] if len(key) == 1 else key

    def rank(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what orders records by their key, as the database does."""
        parts = [(self.bound.fields[name].type, record[name]) for name in self.bound.spec.primary_key]
        return tuple(own.accept(part) if isinstance(part, Enum) else part for own, part in parts)

    def inner(self, params: Mapping[str, Any], *options: str) -> list[tuple[str, Any]]:
        """Return the fields that stand in the dict of an option."""
        dicts = [value for name, value in params.items() if self.route.get(name) in options]
        return [item for value in dicts if isinstance(value, Mapping) for item in value.items()]

    def missing(self, names: set[str]) -> list[str]:
        """Return the required inputs that are not among `names`; "id" unless the record is named somehow."""
        have = {self.route.get(name) for name in names}
        if self.route.get("record_id") == "id" and not have & {"id", "conditions", "filter", KEY}:
            return ["id"]
        lacking = [p.name for p in self.kind.parameters if p.required and p.name not in have]
        return [name if self.route[name] == name else f"_{name}" for name in lacking]

    def program(self, params: Mapping[str, Any], call: Call) -> Program[dict[str, Any]]:
        """Return the program that carries the operation out."""
        raise NotImplementedError

    # -- helpers for implementations --------------------------------------------------------------------------------
    def fault(self, message: str, hint: str = "", code: str = "bad-parameter") -> InputError:
        """Build an error about a parameter."""
        return self.bound.refuse([Problem(code, message, hint)], self.name)

    def shaped(self, options: Mapping[str, Any], call: Call) -> tuple[tuple[str, Any], ...]:
        """Move the features' call options into the call; return those that shape SQL, for the plan key."""
        if not self.call_options:
            return self.surrounded(call) if self.bound.core.keyed else ()
        given = {name: options[name] for name in self.call_options if options.get(name) is not None}
        if given:
            for name in given:
                if self.bound.spec.call_options[name].flag:
                    self.flag(given, name)
            call.options = {**call.options, **given}
        shaping = tuple(
            (name, True if shapes == "given" else given[name])
            for name, shapes in self.call_options.items()
            if shapes and name in given
        )
        return shaping + self.surrounded(call)

    def surrounded(self, call: Call) -> tuple[tuple[str, Any], ...]:
        """Return what depends on the surroundings of a call, for the plan key; related models may have features too."""
        keyed = self.bound.core.keyed if self.bound.relations else self.keyed
        return tuple((f"@{feature.name}", feature.plan_key(call)) for feature in keyed)

    def quick(self, call: Call) -> tuple[Any, ...]:
        """Return the same for a call that gives no options and reaches no other model."""
        return tuple([feature.plan_key(call) for feature in self.keyed]) if self.keyed else ()

    def take_options(self, values: dict[str, Any], options: dict[str, Any]) -> bool:
        """Move values that are options by the name of a field (an expected version) to the options; tell if any."""
        found = [name for name in self.value_options if name in values]
        for name in found:
            value = values.pop(name)
            if options.get(name, value) != value:
                raise self.fault(f"{name} is given twice, with different values", "give it once", "twice")
            options[name] = value
        return bool(found)

    def whole(self, options: Mapping[str, Any], name: str, *, minimum: int = 0) -> int | None:
        """Read an option that is a whole number, or None."""
        value = options.get(name)
        if value is None:
            return None
        if type(value) is not int or value < minimum:
            msg = (
                f"{name} takes a whole number of at least {minimum}, got {value if type(value) is int else kind(value)}"
            )
            raise self.fault(msg)
        return value

    def flag(self, options: Mapping[str, Any], name: str) -> bool:
        """Read an option that is True or False."""
        value = options.get(name, False)
        if not isinstance(value, bool):
            msg = f"{name} takes True or False, got {kind(value)}"
            raise self.fault(msg)
        return value

    def mapping(self, options: Mapping[str, Any], *names: str) -> Mapping[str, Any] | None:
        """Read an option that is a dict, under any one of its names."""
        if not options:
            return None
        given = [name for name in names if options.get(name) is not None]
        if len(given) > 1:
            msg = f"{' and '.join(given)} mean the same; both were given"
            raise self.fault(msg, "give one of them")
        if not given:
            return None
        value = options[given[0]]
        if not isinstance(value, Mapping):
            msg = f"{given[0]} takes a dict, got {kind(value)}"
            raise self.fault(msg, DICT_HINT)
        return value

    def names(self, options: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """Read an option that is a list of field names."""
        value = options.get(name)
        if value is None:
            return ()
        listed = (value,) if isinstance(value, str) else value
        if not isinstance(listed, Sequence) or not all(isinstance(item, str) for item in listed):
            msg = f"{name} takes a list of names, got {kind(value)}"
            raise self.fault(msg)
        return tuple(listed)

    def known_field(self, name: str, what: str) -> Problem | None:
        """Return the fault of a name that is no field."""
        if name in self.bound.fields:
            return None
        close = suggest(str(name), self.bound.fields)
        hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(self.bound.fields)}"
        return Problem("unknown-field", f"{what}: model {self.bound.name} has no field {name!r}", hint)

    def key_filter(self, key: Any) -> dict[str, Any]:
        """Turn a key (scalar, tuple, dict) into an equality filter.

        Raises:
            InputError: it has the wrong form, or a part is None.
        """
        names = self.bound.spec.primary_key
        if type(key) in SCALARS and len(names) == 1:
            return {names[0]: key}
        if isinstance(key, Mapping):
            if set(key) != set(names):
                msg = f"the key of {self.bound.name} is {', '.join(names)}; got {', '.join(map(str, key)) or 'nothing'}"
                raise self.fault(msg)
            parts = {name: key[name] for name in names}
        elif len(names) == 1:
            parts = {names[0]: key}
        elif isinstance(key, (tuple, list)) and len(key) == len(names):
            parts = dict(zip(names, key, strict=True))
        else:
            msg = f"the key of {self.bound.name} has {len(names)} parts: {', '.join(names)}"
            raise self.fault(msg, f"pass a tuple or a dict: {{{', '.join(f'{name!r}: …' for name in names)}}}")
        problems = [
            Problem("missing-key", f"{name} is None; a key has a value", f"give {name}, or connect it", {"field": name})
            for name, value in parts.items()
            if value is None
        ]
        problems += [
            Problem(
                "wrong-value",
                f"{name}: expected {self.bound.fields[name].type}, got {kind(value)}",
                "",
                {"field": name},
            )
            for name, value in parts.items()
            if isinstance(value, Mapping)
        ]
        if problems:
            raise self.bound.refuse(problems, self.name)
        return parts

    def target(self, options: Mapping[str, Any], *names: str) -> tuple[Mapping[str, Any], bool]:
        """Read what a single-record operation acts on: (filter, whether it is by key).

        Raises:
            InputError: neither key nor conditions are given, or both.
        """
        conditions = self.mapping(options, *names)
        if KEY in options:
            key: Any = options[KEY]
            if "id" in options:
                msg = "id and the key fields mean the same; both were given"
                raise self.fault(msg, "give one of them")
        elif "id" in options:
            key = options["id"]
        elif conditions is not None:
            if not conditions:
                msg = f"{names[0]} is empty, which would mean every record"
                many = {"read": "ListNode", "update": "BulkUpdateNode", "delete": "BulkDeleteNode"}.get(self.name, "")
                other = f", or use {self.bound.name}{many}" if many else ""
                raise self.fault(msg, f"give the key{other}")
            return conditions, False
        else:
            hint = f"give id=…, record_id=… or {names[0]}={{…}}"
            raise self.fault(f"{self.name} on {self.bound.name} needs to know which record", hint, "missing-key")
        if conditions is not None:
            msg = f"both a key and {names[0]} were given"
            raise self.fault(msg, "give one of them")
        return self.key_filter(key), True

    def compile_filter(self, builder: PlanBuilder, document: Mapping[str, Any], first: int = 0) -> None:
        """Compile a filter into a builder, raising all its faults together."""
        if not document:
            return
        problems: list[Problem] = []
        compiler = FilterCompiler(builder, problems, first)
        predicate = compiler.compile(document)
        if problems:
            raise self.bound.refuse(problems, self.name)
        operands: list[Any] = []
        shape(document, operands)
        if compiler.next - first != len(operands):  # the contract of filters.py; a plan must never bind other values
            msg = "the filter cannot be compiled safely"
            raise self.fault(msg, "please report this filter's structure", "filter-contract")
        builder.where(predicate)


def run_plan(plan: Plan, values: list[Any], call: Call) -> Program[Any]:
    """Run a plan, in a transaction where it is more than one step."""
    if plan.plain:
        reply = yield plan.command, plan.arguments(values, call)
        if not reply and (plan.unmatched or plan.conflicts):  # no rows, or a count of none
            yield from plan.missed(values, call)
        return reply
    if plan.derivations or not plan.command.writes:  # what derives values has a transaction of its own
        return (yield from plan.run(values, call))
    return (yield from atomic(call, plan.run(values, call)))
