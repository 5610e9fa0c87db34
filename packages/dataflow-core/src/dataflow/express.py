"""Direct calls without a workflow, with the same meanings and results as the nodes."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow import streams

if TYPE_CHECKING:
    from dataflow.engine import DataFlow

Key = Any
Row = Mapping[str, Any]


def _with(fixed: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Join the parameters that the method names with those passed on, under names that no field can take."""
    return {**{f"_{name}": value for name, value in fixed.items() if value is not None}, **options}


class _Calls:
    """The calls, as parameters of operations; subclasses say how they run. Results are dicts, as the nodes' are."""

    def __init__(self, db: "DataFlow") -> None:
        self._db = db

    def call(self, operation: str, model: str, **params: Any) -> Any:
        """Carry out any operation of a model by name, for example one that a plugin adds."""
        raise NotImplementedError

    def create(self, model: str, record: Row, **options: Any) -> Any:
        """Insert a record and return it as stored."""
        return self.call(
            "create", model, **_with({"values": dict(record) if isinstance(record, Mapping) else record}, options)
        )

    def read(self, model: str, key: Key = None, **options: Any) -> Any:
        """Return the record with that key, or the first that matches ``conditions``; ``found`` tells whether any."""
        if key is None and options:
            return self.call("read", model, **options)
        return self.call("read", model, _id=key, **options)

    def update(self, model: str, key: Key, values: Row, **options: Any) -> Any:
        """Change fields of a record, by values or update operators; return it as stored with ``updated``."""
        return self.call("update", model, _id=key, **_with({"values": values}, options))

    def delete(self, model: str, key: Key, **options: Any) -> Any:
        """Remove a record: ``{"deleted": n, key}``."""
        return self.call("delete", model, _id=key, **options)

    def list(self, model: str, filter: Row | None = None, **options: Any) -> Any:
        """Return ``{"records": […], "count": n, …}``; options: sort, limit, offset, cursor, fields, include."""
        return self.call("list", model, **_with({"filter": filter}, options))

    def count(self, model: str, filter: Row | None = None, **options: Any) -> Any:
        """Return ``{"count": n}``."""
        return self.call("count", model, **_with({"filter": filter}, options))

    def aggregate(self, model: str, **options: Any) -> Any:
        """Return ``{"groups": […]}``; options: filter, group_by, aggregate, having, sort, limit."""
        return self.call("aggregate", model, **options)

    def upsert(
        self, model: str, where: Row, create: Row | None = None, update: Row | None = None, **options: Any
    ) -> Any:
        """Update the record with that unique key, or create it; ``created`` tells which."""
        return self.call("upsert", model, **_with({"where": where, "create": create, "update": update}, options))

    def bulk_create(self, model: str, data: Iterable[Row], **options: Any) -> Any:
        """Insert many records in one transaction: ``{"created": n, …}``.

        Args:
            model: name of the model.
            data: the rows; of an iterator, some thousand are held at a time.
            options: of the node.
        """
        return self.call("bulk_create", model, **_with({"data": data}, options))

    def bulk_update(
        self,
        model: str,
        *,
        filter: Row | None = None,
        update: Row | None = None,
        data: Sequence[Row] | None = None,
        **options: Any,
    ) -> Any:
        """Change all records that match, or the records of `data` by key: ``{"updated": n}``."""
        return self.call("bulk_update", model, **_with({"filter": filter, "update": update, "data": data}, options))

    def bulk_delete(
        self, model: str, *, filter: Row | None = None, ids: Sequence[Key] | None = None, **options: Any
    ) -> Any:
        """Remove all records that match, or those with these keys: ``{"deleted": n}``."""
        return self.call("bulk_delete", model, **_with({"filter": filter, "ids": ids}, options))

    def bulk_upsert(
        self, model: str, data: Sequence[Row], key_fields: Sequence[str] | None = None, **options: Any
    ) -> Any:
        """Create or update many records by a unique key: ``{"created": n, "updated": m, …}``."""
        return self.call("bulk_upsert", model, **_with({"data": data, "key_fields": key_fields}, options))


class Express(_Calls):
    """The calls as awaitables. Cancelling one interrupts its statement and rolls its work back."""

    async def call(self, operation: str, model: str, **params: Any) -> Any:
        """Carry out any operation of a model by name, for example one that a plugin adds."""
        core = self._db.core
        return await core.execute(core.model(model), operation, params)

    async def bulk_create(self, model: str, data: Iterable[Row] | AsyncIterable[Row], **options: Any) -> Any:
        """Insert many records in one transaction; `data` may be an async iterator as well."""
        if not isinstance(data, AsyncIterable):
            return await super().bulk_create(model, data, **options)
        core = self._db.core
        return await streams.bulk_create(core, core.model(model), data, options)

    def stream(
        self, model: str, filter: Row | None = None, *, batch_size: int = streams.PAGE, **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Iterate over all records that match, reading `batch_size` at a time; for ``async for``.

        No connection is held between the pages, so records that others write meanwhile may be among them or not; none
        comes twice. Options: sort, fields, include.

        Raises:
            InputError: an option is wrong.
        """
        paging = streams.pages(_with({"filter": filter}, options), batch_size)
        return streams.stream_async(self.call, model, paging)


class ExpressSync(_Calls):
    """The same for synchronous code, in the calling thread where the database allows it."""

    def call(self, operation: str, model: str, **params: Any) -> Any:
        """Carry out any operation of a model by name, for example one that a plugin adds."""
        core = self._db.core
        return core.execute_blocking(core.model(model), operation, params)

    def stream(
        self, model: str, filter: Row | None = None, *, batch_size: int = streams.PAGE, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Iterate over all records that match, `batch_size` read at a time; see `Express.stream`."""
        return streams.stream(self.call, model, streams.pages(_with({"filter": filter}, options), batch_size))
