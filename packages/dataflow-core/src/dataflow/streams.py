"""Many records without holding them all: rows out of an async iterator into one transaction, and a list page by page.

Sits beside `express`: it knows operations and sessions, and no SQL.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from dataflow.errors import DataFlowError, InputError
from dataflow.session import AMBIENT, COMMIT, CURRENT_RUN, Call, notify, savepoint, surroundings

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.dialect import Command, Program, Session
    from dataflow.plan.bound import BoundModel
    from dataflow.plan.bulk_create import Feed

PAGE = 1000
"""Records that a stream reads at once."""
_NAME = "df_stream"


def _send(command: "Command") -> "Program[None]":
    yield command, ()


async def bulk_create(core: "Core", bound: "BoundModel", rows: AsyncIterable[Any], params: Mapping[str, Any]) -> Any:
    """Create records out of an async iterator, some thousand at a time, in one transaction (or as `commit_every` says).

    Raises:
        InputError: an option or a row is wrong; nothing was written (but what `commit_every` had committed).
    """
    if not bound.ready:
        await core.ensure([bound])
    operation = bound.operation("bulk_create")
    call = Call(core)
    core.count(bound, "bulk_create")
    try:
        feed = operation.feed(params, call)
        if feed.every:
            await _in_parts(core, feed, rows)
        else:
            await _together(core, feed, rows, f"{bound.name}.bulk_create")
    except DataFlowError as error:
        error.at(model=bound.name, operation="bulk_create")
        raise
    return feed.result()


async def _in_parts(core: "Core", feed: "Feed", rows: AsyncIterable[Any]) -> None:
    """Write each part in a transaction of its own."""
    async for part in _chunks(rows, feed.size):
        bodies = iter([feed.write(part)])
        program = feed.op.in_transactions(feed.call, bodies, feed.tally, feed.every)
        await core.run(program, feed.call, write=True, holder=f"{feed.op.bound.name}.bulk_create")
        feed.call.after_commit = []


async def _together(core: "Core", feed: "Feed", rows: AsyncIterable[Any], holder: str) -> None:
    """Write all parts in one transaction, or in a savepoint of the one that is open."""
    call = feed.call
    run = CURRENT_RUN.get()
    outer = core.joined(run, call.ambient)
    if run is not None and outer is not None:
        await _inside(core, feed, rows, outer)
        run.remember(core, call.after_commit)
        return
    session = await core.lease(write=True, holder=holder, ambient=call.ambient)
    committed = False
    try:
        call.session = session
        await session.run(core.observe(_send(core.dialect.begin(None, write=True))))
        session.depth = 1
        async for part in _chunks(rows, feed.size):
            await session.run(core.observe(core.supervise(feed.write(part), feed.call)))
        await session.run(core.observe(_send(COMMIT)))
        session.depth, committed = 0, True
    finally:
        try:
            await session.release()  # rolls back what is open
        finally:  # what was committed is, even where the release is interrupted
            if committed:
                notify(call.after_commit)


async def _inside(core: "Core", feed: "Feed", rows: AsyncIterable[Any], session: "Session") -> None:
    begin, rollback, release = savepoint(_NAME)
    feed.call.session = session
    await session.run(core.observe(_send(begin)))
    async with AsyncExitStack() as undo:
        undo.push_async_callback(session.run, core.observe(_send(release)))
        undo.push_async_callback(session.run, core.observe(_send(rollback)))
        async for part in _chunks(rows, feed.size):
            await session.run(core.observe(core.supervise(feed.write(part), feed.call)))
        undo.pop_all()
    await session.run(core.observe(_send(release)))


async def _chunks(rows: AsyncIterable[Any], size: int) -> AsyncIterator[list[Any]]:
    part: list[Any] = []
    async for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def pages(params: Mapping[str, Any], size: int) -> "Paging":
    """Return the parameters of the list calls that read a whole list.

    Raises:
        InputError: an option does not go with reading all.
    """
    for name in ("limit", "offset", "cursor", "count_only", "include_total"):
        if name in params or f"_{name}" in params:
            msg = f"a stream reads all records, so it takes no {name}"
            raise InputError(msg, hint="use list(…) for a page", code="bad-parameter")
    if type(size) is not int or size < 1:
        msg = "batch_size takes a whole number of at least 1"
        raise InputError(msg, hint="write batch_size=1000", code="bad-parameter")
    return Paging(params, size)


class Paging:
    """The pages of a stream: parameters of the next call, until there is none.

    All pages are read in what surrounded the stream when it was made: a tenant's records stay those of that tenant,
    wherever they are taken out.
    """

    def __init__(self, params: Mapping[str, Any], size: int) -> None:
        self.params: dict[str, Any] | None = {**params, "_limit": size}
        self._around = surroundings()

    @contextmanager
    def around(self) -> Iterator[dict[str, Any]]:
        """Return the parameters of the next call, which is made inside."""
        assert self.params is not None
        token = AMBIENT.set(self._around)
        try:
            yield self.params
        finally:
            AMBIENT.reset(token)

    def take(self, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Return the records of a page, and be ready for the next."""
        assert self.params is not None
        self.params = {**self.params, "_cursor": found["next_cursor"]} if found["has_more"] else None
        return iter(found["records"])


def stream(call: Callable[..., Any], model: str, paging: Paging) -> Iterator[dict[str, Any]]:
    """Read a list page by page; `call` is that of express_sync."""
    while paging.params is not None:
        with paging.around() as params:
            found = call("list", model, **params)
        yield from paging.take(found)


async def stream_async(call: Callable[..., Any], model: str, paging: Paging) -> AsyncIterator[dict[str, Any]]:
    """Read a list page by page; `call` is that of express."""
    while paging.params is not None:
        with paging.around() as params:
            found = await call("list", model, **params)
        for record in paging.take(found):
            yield record
