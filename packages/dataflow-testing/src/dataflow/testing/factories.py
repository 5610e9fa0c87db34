"""Factories: records with made-up values for tests, from what a model says of its fields.

``users = factory_for(db, "User")``, then ``users.create(name="Ada")``. The values are drawn by polyfactory, which is
imported on first use; what is drawn for each field type is in `_draws`. Knows models and express calls, no dialect.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict
from zlib import crc32

from dataflow.errors import ConfigurationError, InputError, UniqueError, suggest
from dataflow.fields import UNSET
from dataflow.testing._draws import draw_of, drawable
from dataflow.types import ArrayType, EnumType, FieldType

if TYPE_CHECKING:
    from dataflow import DataFlow

INSTALL = (
    "install the extra 'factories': pip install 'workflow-dataflow-testing[factories]' (not on the public index yet:"
    " pip install './packages/dataflow-testing[factories]' in a checkout of the project)"
)
_DRAWS = 1000
"""Rows that are drawn at most until one differs from those before."""
_ATTEMPTS = 20
"""Times that rows are drawn anew because the database holds their keys already."""
_PAGE = 5000
"""Records that are read at once."""

Row = dict[str, Any]
Calls = Generator[Callable[[Any], Any], Any, Any]
"""Yields functions that make a call of ``db.express`` or ``db.express_sync``; is sent its result or `UniqueError`."""


def factory_for(
    db: "DataFlow", model: str | type, *, seed: int = 0, nulls: bool = True, defaults: bool = True
) -> "Factory":
    """Return a factory of records of a model.

    Args:
        db: where the model is registered, and where records are created.
        model: its name, or its class.
        seed: equal seeds give equal values, in every process and whatever other factories do.
        nulls: whether fields that take None sometimes are None.
        defaults: whether fields with a default are left to it; else they are drawn like others.

    Raises:
        InputError: there is no such model.
        ConfigurationError: polyfactory is not installed.
    """
    name = model.__name__ if isinstance(model, type) else model
    return Factory(db, name, seed=seed, nulls=nulls, defaults=defaults)


class Factory:
    """Makes records of one model; see `factory_for`. What `fixed` names is taken as it is, the rest is drawn.

    Attributes:
        spec: the model.
    """

    def __init__(
        self,
        db: "DataFlow",
        model: str,
        *,
        seed: int,
        nulls: bool = True,
        defaults: bool = True,
        above: tuple[str, ...] = (),
    ) -> None:
        bound = db.core.model(model)
        self._db = db
        self.spec = bound.spec
        self._seed = seed
        self._defaults = defaults
        self._above = (*above, model)
        relations = [relation for relation in bound.relations.values() if not relation.many]
        self._relations = {relation.local: relation for relation in relations if self._made(relation.local)}
        self._parents: dict[str, Factory] = {}
        self._seen: dict[tuple[str, ...], set[Any]] = {key: set() for key in self.spec.unique_keys}
        self._unknown: list[str] = []
        self._source = self._drawing(nulls=nulls)
        self._source.seed_random(seed)

    def __repr__(self) -> str:
        return f"<factory of {self.spec.name}, seed {self._seed}>"

    # -- for users ----------------------------------------------------------------------------------------------------
    def build(self, /, **fixed: Any) -> Row:
        """Return values for a record, ready for a create node; nothing is written.

        Raises:
            InputError: a field does not exist, or a parent or value must be given; or all distinct values are used up.
        """
        self._check(fixed)
        for name in self._needed(fixed):
            msg = f"{self.spec.name}.{name} refers to a {self._relations[name].target}, which build() does not create"
            raise self._error(msg, f"give {name}=…, or call create(), which creates it too", name)
        return self._row(fixed)

    def batch(self, n: int, /, **fixed: Any) -> list[Row]:
        """Return `n` times what `build` returns."""
        return [self.build(**fixed) for _ in range(self._number(n))]

    def create(self, /, **fixed: Any) -> Row:
        """Create a record, and the parents it needs; return it as stored.

        Raises:
            InputError: as of `build`; or models need each other as parents.
        """
        return self._run(self._creating(1, fixed))[0]

    def create_batch(self, n: int, /, **fixed: Any) -> list[Row]:
        """Create `n` records with one bulk operation; they share the parents, unless those must differ."""
        return self._run(self._creating(n, fixed))

    async def acreate(self, /, **fixed: Any) -> Row:
        """Do as `create`, awaited."""
        return (await self._arun(self._creating(1, fixed)))[0]

    async def acreate_batch(self, n: int, /, **fixed: Any) -> list[Row]:
        """Do as `create_batch`, awaited."""
        return await self._arun(self._creating(n, fixed))

    # -- values -------------------------------------------------------------------------------------------------------
    def _made(self, name: str) -> bool:
        field = self.spec.fields[name]
        if field.origin != "user" or field.generated or field.write or field.kept:
            return False
        return not (self._defaults and (field.factory or field.default is not UNSET))

    @cached_property
    def _distinct(self) -> set[str]:
        return {name for key in self._seen for name in key}

    def _drawing(self, *, nulls: bool) -> Any:
        """Build the polyfactory class: each field has an annotation of its own, and a provider for it."""
        base = _polyfactory()
        fake = type(base.__faker__)()  # the common one is seeded by whoever uses it
        providers: dict[Any, Callable[[], Any]] = {}
        annotations: dict[str, Any] = {}

        def annotate(kind: FieldType, name: str) -> Any:
            if isinstance(kind, EnumType):
                return kind.enum
            if isinstance(kind, ArrayType):
                return list[annotate(kind.item, name)]  # type: ignore[misc]
            draw = draw_of(kind, name, distinct=name in self._distinct)
            own = type(name, (), {})
            providers[own] = lambda: draw(source.__random__, fake)
            return own

        for name, field in self.spec.fields.items():
            if not self._made(name) or name in self._relations:
                continue
            if not drawable(field.type, fake):
                self._unknown.append(name)
                continue
            bare = annotate(field.type, name)
            annotations[name] = bare | None if field.nullable else bare
        source = base.create_factory(
            TypedDict(self.spec.name, annotations),  # type: ignore[operator]
            __faker__=fake,
            __allow_none_optionals__=nulls,
            __randomize_collection_length__=True,
            __min_collection_length__=1,
            __max_collection_length__=3,
            get_provider_map=classmethod(lambda _: providers),
        )
        return source

    def _row(self, fixed: Mapping[str, Any]) -> Row:
        """Draw until no unique key has values that came before."""
        for name in self._unknown:
            if name not in fixed and not self.spec.fields[name].nullable:
                field = self.spec.fields[name]
                msg = f"no values are known for {self.spec.name}.{name}, which is {field.type}"
                raise self._error(msg, f"give {name}=…", name)
        empty = dict.fromkeys([*self._relations, *self._unknown])
        for _ in range(_DRAWS):
            row = {**empty, **self._source.build(), **fixed}
            keys = self._keys(row, fixed)
            if not any(values in self._seen[key] for key, values in keys):
                for key, values in keys:
                    self._seen[key].add(values)
                return {name: row[name] for name in self.spec.fields if name in row}
        msg = f"the values of a unique key of {self.spec.name} are used up"
        raise self._error(msg, "make fewer records, or give the values")

    def _keys(self, row: Row, fixed: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any]]:
        """Return the values of unique keys that can clash, and that were drawn at least in part."""
        return [
            (key, tuple(_hashable(row[name]) for name in key))
            for key in self._seen
            if all(row.get(name) is not None for name in key) and not set(key) <= fixed.keys()
        ]

    def _forget(self, rows: Sequence[Row], fixed: Mapping[str, Any]) -> None:
        for row in rows:
            for key, values in self._keys(row, fixed):
                self._seen[key].discard(values)

    # -- records ------------------------------------------------------------------------------------------------------
    def _creating(self, n: int, fixed: Mapping[str, Any]) -> Calls:
        """Create parents, then `n` records; rows whose keys the database holds already are drawn anew."""
        self._check(fixed)
        if not self._number(n):
            return []
        parents: dict[str, list[Any]] = {}
        for name in self._needed(fixed):
            parents[name] = yield from self._creating_parents(name, n, fixed)
        for attempt in range(1, _ATTEMPTS + 1):
            rows = [
                self._row({**fixed, **{name: ids[i % len(ids)] for name, ids in parents.items()}}) for i in range(n)
            ]
            try:
                return (yield from self._writing(rows, fixed))
            except UniqueError as error:
                self._forget(rows, fixed)
                named = str(error.where.get("columns", "")).split(", ")
                if attempt == _ATTEMPTS or fixed.keys() >= set(named):
                    raise
            count = (yield from _answer(lambda calls: calls.count(self.spec.name, **self._scope(fixed))))["count"]
            self._source.seed_random(_derived(self._seed, count, attempt))
        raise AssertionError  # the last attempt returns or raises

    def _writing(self, rows: list[Row], fixed: Mapping[str, Any]) -> Calls:
        model, key, scope = self.spec.name, self.spec.primary_key, self._scope(fixed)
        rows = [{name: value for name, value in row.items() if name not in scope} for row in rows]
        if len(rows) == 1:
            return [(yield from _answer(lambda calls: calls.create(model, rows[0], **scope)))]
        done = yield from _answer(lambda calls: calls.bulk_create(model, rows, return_ids=True, **scope))
        ids = [one if isinstance(one, tuple) else (one,) for one in done["ids"]]
        records = {}
        for start in range(0, len(ids), _PAGE):
            part = ids[start : start + _PAGE]
            wanted = {name: {"$in": list({values[i]: None for values in part})} for i, name in enumerate(key)}
            found = yield from _answer(lambda calls, wanted=wanted: calls.list(model, wanted, **scope))  # type: ignore[misc]
            records.update({tuple(record[name] for name in key): record for record in found["records"]})
        return [records[values] for values in ids]

    def _needed(self, fixed: Mapping[str, Any]) -> list[str]:
        return [name for name in self._relations if name not in fixed and not self.spec.fields[name].nullable]

    def _creating_parents(self, name: str, n: int, fixed: Mapping[str, Any]) -> Calls:
        """Create what a field refers to: one record, or `n` where only that keeps the rows' keys distinct."""
        relation = self._relations[name]
        if relation.target in self._above:
            path = " → ".join([*self._above[self._above.index(relation.target) :], relation.target])
            msg = f"{self.spec.name}.{name} needs a {relation.target}, which needs one in turn: {path}"
            raise self._error(msg, f"give {name}=…, or let the field take None", name)
        if name not in self._parents:
            seed = _derived(self._seed, self.spec.name, name)
            self._parents[name] = Factory(self._db, relation.target, seed=seed, nulls=False, above=self._above)
        parent = self._parents[name]
        own_each = any(self._distinguishes(name, key, fixed) for key in self._seen)
        shared = {field: value for field, value in self._scope(fixed).items() if field in parent.spec.scope}
        made = yield from parent._creating(n if own_each else 1, shared)  # noqa: SLF001  # its own kind
        return [record[relation.remote] for record in made]

    def _distinguishes(self, name: str, key: tuple[str, ...], fixed: Mapping[str, Any]) -> bool:
        """Tell whether it is up to this relation that the rows differ in a key."""
        free = [one for one in key if one not in fixed]
        return free[:1] == [name] and self._relations.keys() >= set(free)

    def _scope(self, fixed: Mapping[str, Any]) -> Row:
        """Return what is given of the fields that confine calls, such as a tenant: they are options of each call."""
        return {name: fixed[name] for name in self.spec.scope if name in fixed}

    def _run(self, calls: Calls) -> list[Row]:
        answer: Any = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as stop:
                return list(stop.value)
            try:
                answer = call(self._db.express_sync)
            except UniqueError as error:
                answer = error

    async def _arun(self, calls: Calls) -> list[Row]:
        answer: Any = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as stop:
                return list(stop.value)
            try:
                answer = await call(self._db.express)
            except UniqueError as error:
                answer = error

    # -- faults -------------------------------------------------------------------------------------------------------
    def _check(self, fixed: Mapping[str, Any]) -> None:
        for name in fixed:
            if name not in self.spec.fields:
                close = suggest(name, self.spec.fields)
                hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(self.spec.fields)}"
                raise self._error(f"{self.spec.name} has no field {name!r}", hint, name)

    def _number(self, n: int) -> int:
        if isinstance(n, int) and not isinstance(n, bool) and n >= 0:
            return n
        msg = "the number of records is an integer from 0 on"
        raise self._error(msg, "write batch(3)")

    def _error(self, message: str, hint: str, field: str = "") -> InputError:
        return InputError(message, hint=hint, where={"model": self.spec.name, **({"field": field} if field else {})})


def _polyfactory() -> Any:
    try:
        from polyfactory.factories import TypedDictFactory
    except ImportError as error:
        msg = "factories need polyfactory, which is not installed"
        raise ConfigurationError(msg, hint=INSTALL) from error
    return TypedDictFactory


def _answer(call: Callable[[Any], Any]) -> Calls:
    answer = yield call
    if isinstance(answer, UniqueError):
        raise answer
    return answer


def _derived(*parts: object) -> int:
    return crc32(":".join(map(str, parts)).encode())


def _hashable(value: Any) -> Any:
    return value if value.__hash__ else repr(value)
