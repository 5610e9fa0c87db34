"""One lease of a connection: programs run on it step by step, are cancelled and undone, and leave it clean.

A session belongs to the event loop of its connection; work from other loops is sent there.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.dialect import COPY, COUNT, MANY, Command, Program
from dataflow.errors import DatabaseUnavailable, DataFlowError, UsageError
from dataflow.postgres.errors import is_lost, translate, without_values
from dataflow.postgres.parameters import fitted, with_casts
from dataflow.postgres.pool import cut
from dataflow.session import standing_still

if TYPE_CHECKING:
    from dataflow.postgres.pool import Link, Pool

T = TypeVar("T")
MOST_PARAMETERS = 32767
"""The protocol counts a statement's parameters in 16 bits."""
_UNDO = ("ROLLBACK", "RELEASE")
_INTERRUPTING = 10.0
"""Seconds that the server gets to stop a cancelled statement; after that the connection is cut."""


class PostgresSession:
    """A leased connection.

    Attributes:
        depth: open transaction (1) plus savepoints.
        max_parameters: most bound parameters of one statement.
    """

    __slots__ = ("_link", "_lost", "_over", "_pool", "_turn", "depth", "max_parameters")

    def __init__(self, pool: "Pool", link: "Link") -> None:
        self._pool = pool
        self._link = link
        self._turn = asyncio.Lock()
        self._over = False
        self._lost = False
        self.depth = 0
        self.max_parameters = MOST_PARAMETERS

    @property
    def contended(self) -> bool:
        """Whether somebody waits for this connection: never, for others have their own."""
        return False

    # -- running --------------------------------------------------------------------------------------------------
    async def run(self, program: Program[T]) -> T:
        """Drive a program to its end, one round trip a step.

        Cancelling it stops the statement under way on the server, and waits until it has stopped; the program then
        undoes what it began.
        """
        loop = asyncio.get_running_loop()
        if loop is self._pool.loop:
            return await self._run(program)
        if self._pool.loop in standing_still():
            program.close()
            msg = "the open transaction belongs to an event loop which this blocking call stops"
            hint = "await the async form there: await self.query(…), db.express"
            raise UsageError(msg, hint=hint, code="would-deadlock")
        sent = asyncio.run_coroutine_threadsafe(self._run(program), self._pool.loop)
        return await asyncio.wrap_future(sent)

    async def _run(self, program: Program[T]) -> T:
        async with self._turn:  # tasks that share a transaction take turns
            if self._over:
                program.close()
                msg = "the call belongs to a run that is over"
                hint = "the run was cancelled or timed out; nothing more is written"
                raise UsageError(msg, hint=hint, code="run-over")
            return await self._steps(program)

    async def _steps(self, program: Program[T]) -> T:
        try:
            command, arguments = next(program)
            while True:
                try:
                    reply = await self._execute(command, arguments)
                except asyncio.CancelledError as cancelled:
                    await self._stopped()
                    command, arguments = program.throw(cancelled)
                except Exception as error:  # noqa: BLE001  # the driver's, or of the network: the program decides
                    command, arguments = program.throw(self._explained(error, command))
                else:
                    command, arguments = program.send(reply)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException:
            program.close()
            raise

    async def _execute(self, command: Command, arguments: Sequence[Any]) -> Any:
        if self._lost and command.sql.startswith(_UNDO):
            return 0  # the server has undone it
        try:
            return await self._send(command, arguments)
        except Exception as error:
            if not is_lost(error):
                raise
            again = self.depth == 0 and not self._lost and _harmless(command)
            self._lost = True
            if not again:
                raise
        await self._pool.fresh(self._link)  # nothing was open and nothing can have been written: ask again
        self._lost = False
        try:
            return await self._send(command, arguments)
        except Exception as error:
            self._lost = is_lost(error)
            raise

    async def _send(self, command: Command, arguments: Sequence[Any]) -> Any:
        raw = self._link.raw
        if command.named:
            self._link.dirty = True
            statement = await raw.prepare(command.sql)
            wanted = [parameter.name for parameter in statement.get_parameters()]
            sql = with_casts(command.sql, wanted, arguments)
            if sql != command.sql:
                statement = await raw.prepare(sql)
                wanted = [parameter.name for parameter in statement.get_parameters()]
            rows = await statement.fetch(*fitted(wanted, arguments))
            names = [attribute.name for attribute in statement.get_attributes()]
            return names, [tuple(row) for row in rows], _count(statement.get_statusmsg())
        if command.returns is COUNT:
            return _count(await raw.execute(command.sql, *arguments))
        if command.returns is MANY:
            return len(await raw.fetchmany(f"{command.sql} RETURNING 1", arguments))
        if command.returns is COPY:
            assert command.target is not None
            table, columns = command.target
            return _count(await raw.copy_records_to_table(table, records=arguments, columns=columns))
        return await raw.fetch(command.sql, *arguments)

    def _explained(self, error: Exception, command: Command) -> DataFlowError:
        known = translate(error)
        if command.sql == "COMMIT" and is_lost(error):
            msg = "the connection was lost during COMMIT: whether the transaction was kept is not known"
            known = DatabaseUnavailable(msg, hint="look whether its records are there", code="commit-unknown")
        known.__cause__ = without_values(error)
        return known

    async def _stopped(self) -> None:
        """Wait until the server has stopped a cancelled statement; cancelling again does not shorten this."""
        waiting = asyncio.ensure_future(self._settle())
        while not waiting.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(waiting)

    async def _settle(self) -> None:
        raw = self._link.raw
        try:
            async with asyncio.timeout(_INTERRUPTING):
                await raw.execute("")  # the driver sends it when the server has answered the request to cancel
        except Exception:  # noqa: BLE001  # it is cut below
            self._lost = True
            raw.terminate()

    def run_blocking(self, program: Program[T]) -> T:
        """Not for this database: synchronous callers go through the background loop."""
        program.close()
        msg = "a PostgreSQL session cannot be driven in the calling thread"
        raise UsageError(msg, hint="use db.express_sync or LocalRuntime, which know")

    # -- giving back ----------------------------------------------------------------------------------------------
    async def release(self) -> None:
        """Roll back what is open, and give the connection back; cancelling does not interrupt this."""
        if self._pool.loop.is_closed():
            self.abandon()
            return
        if asyncio.get_running_loop() is not self._pool.loop:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.release(), self._pool.loop))
            return
        if not self._over and not self._turn.locked() and self._is_clean():
            self._over = True
            self._pool.give_back(self._link)
            return
        task = asyncio.ensure_future(self._release())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _is_clean(self) -> bool:
        raw = self._link.raw
        return not (self.depth or self._lost or self._link.dirty or raw.is_closed() or raw.is_in_transaction())

    async def _release(self) -> None:
        if self._over:
            return
        self._over = True
        raw = self._link.raw
        try:
            if self._turn.locked():  # a task that a cancelled run left behind is in a statement
                raw.terminate()
            async with self._turn:
                pass
            if not raw.is_closed() and raw.is_in_transaction():
                async with asyncio.timeout(_INTERRUPTING):
                    await raw.execute("ROLLBACK")
        except Exception:  # noqa: BLE001  # it is of no use any more
            self._lost = True
        self.depth = 0
        if self._lost or raw.is_closed():
            self._pool.lose(self._link)
            return
        if self._link.dirty:
            await self._pool.clean(self._link)
            if self._link.dirty:
                return
        self._pool.give_back(self._link)

    def abandon(self) -> None:
        """Give the connection back from wherever this is; where its loop was closed, cut it."""
        if not self._pool.loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._release(), self._pool.loop)
            return
        self._over = True
        self._pool.lent.discard(self._link)
        cut(self._link.raw)

    def release_blocking(self) -> None:
        """Not for this database."""
        raise UsageError("a PostgreSQL session cannot be released in the calling thread", hint="await release()")


def _harmless(command: Command) -> bool:
    """Tell whether a statement may be sent again: it cannot have changed anything before the connection was lost."""
    return not command.named and (command.sql.startswith("BEGIN") or (not command.writes and command.returns == "rows"))


def _count(tag: str) -> int:
    """Read the number of rows from a command tag: ``INSERT 0 5``, ``UPDATE 5``, ``COPY 5``."""
    last = tag.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
