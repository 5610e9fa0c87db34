"""One lease of a connection: programs run on it step by step, are cancelled and undone, and leave it clean.

A session belongs to the event loop of its connection; work from other loops is sent there.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from dataflow.dialect import COPY, COUNT, MANY, ROWS, STANDING, Command, Program
from dataflow.errors import ConfigurationError, DatabaseUnavailable, DataFlowError, QueryError, UsageError
from dataflow.postgres.confinement import CONTEXT
from dataflow.postgres.confinement_sql import BACKEND, ENTER
from dataflow.postgres.ending import farewell, quiet
from dataflow.postgres.errors import is_lost, translate, without_values
from dataflow.postgres.own_sql import refuse_beyond_tenant
from dataflow.postgres.parameters import fitted, with_casts
from dataflow.postgres.pool import reset
from dataflow.postgres.proof import Key
from dataflow.postgres.standing import KEPT, WAITING
from dataflow.session import standing_still

if TYPE_CHECKING:
    from dataflow.postgres.pool import Link, Pool

T = TypeVar("T")
MOST_PARAMETERS = 32767
"""The protocol counts a statement's parameters in 16 bits."""
_UNDO = ("ROLLBACK", "RELEASE")
_WHOLE = ("COMMIT", "SAVEPOINT", *_UNDO)
"""Statements that a cancellation does not interrupt: where it hits one, nobody would know what is undone."""
_ENDS = ("COMMIT", "ROLLBACK")
_BESIDES = (CONTEXT, KEPT, STANDING, WAITING)
_SPOILING = re.compile(r"\b(prepare|deallocate|discard|load)\b", re.IGNORECASE)
"""SQL of the user's own after which a connection is not used again: it may change prepared statements, or the server
process itself."""
_INTERRUPTING = 10.0
"""Seconds that the server gets to stop a cancelled statement; after that the connection is cut."""
_REPLACED = "SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql"
"""Prepared statements that SQL has made: one may stand where the driver thinks that its own does."""


class PostgresSession:
    """A leased connection.

    Attributes:
        depth: open transaction (1) plus savepoints.
        max_parameters: most bound parameters of one statement.
        privileged: whether the database trusts it.
        place: whose schema or database it is in, where each tenant has its own.
    """

    __slots__ = (
        "_begun", "_key", "_link", "_lost", "_over", "_pool", "_turn", "depth", "max_parameters", "place",
        "privileged",
    )  # fmt: skip

    def __init__(self, pool: "Pool", link: "Link", *, privileged: bool = True, key: Key | None = None) -> None:
        self._pool = pool
        self._link = link
        self._key = key  # of the proofs that a confined connection needs
        self._turn = asyncio.Lock()
        self._over = False
        self._lost = False
        self._begun = False  # a program's own transaction, which `depth` does not count
        self.depth = 0
        self.max_parameters = MOST_PARAMETERS
        self.privileged = privileged
        self.place: str | None = None

    @property
    def context(self) -> Mapping[str, str]:
        """What the connection knows of the call it serves."""
        return self._link.context

    @context.setter
    def context(self, known: Mapping[str, str]) -> None:
        self._link.context = known

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
        if self._pool.inherited:
            program.close()
            msg = "the process was forked while a transaction was open; it belongs to the parent"
            raise UsageError(msg, hint="fork before transactions begin, or after they end", code="forked-in-use")
        if self._pool.loop in standing_still() or not self._pool.loop.is_running():
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
        stop: asyncio.CancelledError | None = None  # came at a bad moment, and is thrown at the next good one
        try:
            command, arguments = next(program)
            while True:
                if stop is not None and not command.sql.startswith(_UNDO):
                    command, arguments = program.throw(stop)
                    continue
                try:
                    if command.sql.startswith(_WHOLE):
                        task, late = await self._unbroken(command, arguments)
                        stop = stop or late
                        reply = task.result()
                    else:
                        reply = await self._execute(command, arguments)
                except asyncio.CancelledError as cancelled:
                    await self._stopped()
                    command, arguments = program.throw(cancelled)
                except Exception as error:  # noqa: BLE001  # the driver's, or of the network: the program decides
                    command, arguments = program.throw(self._explained(error))
                else:
                    command, arguments = program.send(reply)
        except StopIteration as end:
            if stop is not None:
                raise stop from None
            return end.value  # type: ignore[no-any-return]
        except BaseException as error:
            program.close()
            if stop is not None and not isinstance(error, asyncio.CancelledError):
                raise stop from error
            raise

    async def _unbroken(
        self, command: Command, arguments: Sequence[Any]
    ) -> "tuple[asyncio.Task[Any], asyncio.CancelledError | None]":
        """Send a statement and wait for its end; return it, and the cancellation that came meanwhile."""
        task = self._pool.loop.create_task(self._execute(command, arguments))
        ended = self._pool.loop.create_future()  # cheaper than shield() or wait()
        task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
        late: asyncio.CancelledError | None = None
        try:
            await ended
        except asyncio.CancelledError as cancelled:
            late = cancelled
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=_INTERRUPTING)
                self._give_up(task)
        return task, late

    def _give_up(self, task: "asyncio.Task[Any]") -> None:
        if not task.done():
            self._lost = True
            self._link.raw.terminate()

    async def _execute(self, command: Command, arguments: Sequence[Any]) -> Any:
        if self._lost and command.sql.startswith(_UNDO):
            return 0  # the server has undone it
        known = self._link.context
        try:
            return await self._sent(command, arguments, known)
        except BaseException:
            self._link.context = {}  # what a transaction has set goes with it
            raise

    async def _sent(self, command: Command, arguments: Sequence[Any], known: Mapping[str, str]) -> Any:
        raw = self._link.raw
        if raw.is_closed() and self._may_start_anew():
            await self._start_anew(command, known)  # nothing was sent yet
            raw = self._link.raw
        sent = not raw.is_closed()
        try:
            if command.returns is ROWS and not command.named:
                return await raw.fetch(command.sql, *arguments)
            return await self._send(command, arguments)
        except Exception as error:
            if not is_lost(error):
                self._note(error)
                raise
            anew = self._may_start_anew() and _harmless(command)
            self._lost = True
            if not anew:
                raise self._lost_at(command, error, sent=sent) from without_values(error)
        try:
            await self._start_anew(command, known)  # nothing was open and nothing can have been written: ask again
            self._lost = False
            return await self._send(command, arguments)
        except Exception as error:
            self._lost = self._lost or is_lost(error)
            raise

    async def _start_anew(self, command: Command, known: Mapping[str, str]) -> None:
        """Take a new connection, and let it know what the lost one knew."""
        await self._pool.fresh(self._link)
        if known and command.returns is not CONTEXT:
            await self._enter(known)

    def _note(self, error: Exception) -> None:
        """Note what an error of the driver leaves behind: a statement half sent, with its locks, or worse."""
        if not getattr(error, "severity", None):  # the server did not say it
            self._link.dirty = True
        if isinstance(error, asyncpg.InternalClientError) or "another operation" in str(error):
            self._link.spoiled = True

    def _may_start_anew(self) -> bool:
        """Tell whether nothing would be missed on another connection: no transaction, nothing set by the user's SQL."""
        return self.depth == 0 and not (self._begun or self._lost or self._over or self._link.dirty)

    def _lost_at(self, command: Command, error: Exception, *, sent: bool) -> DataFlowError:
        known = translate(error)
        if command.sql == "COMMIT" and sent:
            msg = "the connection was lost during COMMIT: whether the transaction was kept is not known"
        elif command.writes and self.depth == 0 and sent and not isinstance(error.__cause__, asyncpg.PostgresError):
            msg = "the connection was lost during a statement that commits by itself: whether it was kept is not known"
        else:
            return known
        return DatabaseUnavailable(msg, hint="look whether its records are there", code="commit-unknown")

    async def _send(self, command: Command, arguments: Sequence[Any]) -> Any:
        raw = self._link.raw
        if command.named:
            return await self._send_named(command, arguments)
        if command.returns is COUNT:
            return await self._send_counted(command, arguments)
        if command.returns in _BESIDES:
            return await self._besides(command, arguments)
        if command.returns is MANY:
            return len(await raw.fetchmany(f"{command.sql} RETURNING 1", arguments))
        if command.returns is COPY:
            assert command.target is not None
            table, columns = command.target
            try:
                return _count(await raw.copy_records_to_table(table, records=arguments, columns=columns))
            except Exception:
                if not raw.is_closed():
                    await raw.reload_schema_state()  # the driver keeps the types of columns: they may have changed
                raise
        return await raw.fetch(command.sql, *arguments)

    async def _besides(self, command: Command, arguments: Sequence[Any]) -> Any:
        """Carry out what is not only a statement."""
        raw = self._link.raw
        if command.returns is CONTEXT:
            return await self._enter(*arguments)
        if command.returns is STANDING:
            return raw.is_in_transaction()
        if command.returns is WAITING:
            return await asyncio.sleep(*arguments)
        if self._pool.pooled:
            msg = "behind a pooler in transaction mode, a connection keeps no lock and no setting"
            raise ConfigurationError(msg, hint="name the server itself in the URL", code="pooler")
        self._link.dirty = True
        return await raw.fetch(command.sql, *arguments)

    async def _send_counted(self, command: Command, arguments: Sequence[Any]) -> int:
        sql = command.sql
        if self._pool.pooled and sql.startswith("BEGIN"):
            sql += self._pool.prelude
        tag = await self._link.raw.execute(sql, *arguments)
        if sql.startswith("BEGIN") or sql in _ENDS:
            self._begun = sql not in _ENDS
        if sql.startswith("ROLLBACK") or (self._pool.pooled and sql == "COMMIT"):
            self._link.context = {}
        if sql == "COMMIT" and tag != sql:
            msg = "the database rolled the transaction back after an earlier error"
            raise QueryError(msg, hint="let that error end the transaction, then run it again", code="rolled-back")
        return _count(tag)

    async def _enter(self, wanted: Mapping[str, str]) -> None:
        """Let the server know of the call that the connection serves: names that are not given are empty."""
        link, pooled = self._link, bool(self._pool.pooled)
        if pooled and not link.raw.is_in_transaction():
            if not any(wanted.values()):
                return  # nothing is known there anyway
            msg = "behind a pooler in transaction mode, a connection keeps nothing of a call but in a transaction"
            hint = "put a TransactionScopeNode before the nodes, or name the server itself in the URL"
            raise ConfigurationError(msg, hint=hint, code="pooler")
        tenant, proof, backend = wanted.get("tenant", ""), "", ""
        if self._key is not None:
            if link.dirty and link.tenant != tenant:
                await self._part_from(link)
            if link.backend is None:
                link.backend = tuple(await link.raw.fetchrow(BACKEND))
            backend, process = link.backend
            proof = self._key.proof(process, tenant)
        others = (wanted.get(name, "") for name in ("actor", "run", "node"))
        await link.raw.fetch(ENTER, tenant, *others, proof, backend, pooled)
        link.context = wanted

    async def _part_from(self, link: "Link") -> None:
        """Leave nothing to a tenant of what another one's SQL has done in the session."""
        if link.raw.is_in_transaction():
            msg = "SQL of another tenant's own has run in the open transaction"
            raise UsageError(msg, hint="give each tenant a transaction of its own", code="other-tenant")
        if link.spoiled:
            await self._pool.fresh(link)
        else:
            await reset(link, pooled=False)

    async def _send_named(self, command: Command, arguments: Sequence[Any]) -> Any:
        if self._key is not None:
            refuse_beyond_tenant(command.sql)
            self._link.tenant = self._link.context.get("tenant", "")
        try:
            return await self._send_own(command, arguments)
        finally:
            self._link.context = {}  # it may have set anything

    async def _send_own(self, command: Command, arguments: Sequence[Any]) -> Any:
        raw = self._link.raw
        self._link.dirty = True
        self._link.spoiled = self._link.spoiled or _SPOILING.search(command.sql) is not None
        name = "" if self._pool.pooled else None  # behind a pooler, a name may be another client's
        statement = await raw.prepare(command.sql, name=name)
        wanted = [parameter.name for parameter in statement.get_parameters()]
        sql = with_casts(command.sql, wanted, arguments)
        if sql != command.sql:
            statement = await raw.prepare(sql, name=name)
            wanted = [parameter.name for parameter in statement.get_parameters()]
        rows = await statement.fetch(*fitted(wanted, arguments))
        names = [attribute.name for attribute in statement.get_attributes()]
        return names, [tuple(row) for row in rows], _count(statement.get_statusmsg())

    def _explained(self, error: Exception) -> DataFlowError:
        known = translate(error)
        if known is not error:
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
                await quiet(raw)
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
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:  # the run was closed by hand, outside its loop
            self.abandon()
            return
        if here is not self._pool.loop:
            self.abandon()
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
        try:
            clean = await self._cleaned()
        except BaseException:
            self._pool.lose(self._link)
            raise
        if clean:
            self._pool.give_back(self._link)
        else:
            self._pool.lose(self._link)

    async def _cleaned(self) -> bool:
        """Leave nothing open or set; return whether the connection may be used again."""
        if self._turn.locked():  # a task that a cancelled run left behind is in a statement
            await farewell(self._link.raw)
        async with self._turn:
            pass
        self.depth = 0
        raw = self._link.raw
        if self._lost or raw.is_closed() or self._link.spoiled:
            return False
        try:
            async with asyncio.timeout(_INTERRUPTING):
                if raw.is_in_transaction():
                    self._link.context = {}
                    await raw.execute("ROLLBACK")
                if self._link.dirty:
                    await reset(self._link, pooled=bool(self._pool.pooled))
                    if self._key is not None and _count(await raw.execute(_REPLACED)):
                        return False
        except Exception:  # noqa: BLE001  # it is of no use any more
            return False
        return True

    def abandon(self) -> None:
        """Give the connection back from wherever this is; where its loop does not run, cut it."""
        loop = self._pool.loop
        if loop.is_running():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._release_soon)
        elif not self._over:
            self._over = True
            self._pool.forget(self._link)

    def _release_soon(self) -> None:
        self._pool.keep(self._pool.loop.create_task(self._release()))

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
