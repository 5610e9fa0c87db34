"""How statements are stopped and connections are ended, so that nothing of them goes on on the server.

Uses a few private parts of the driver: it has no public way to ask twice, nor to work without its event loop.
"""

import asyncio
import contextlib
import socket

import asyncpg

CLOSING = 5.0
"""Seconds that a connection gets to say goodbye."""
_AGAIN = 0.25
"""Seconds until the server is asked for the second time to stop a statement; twice as long each time after that."""
NOTHING = "SELECT"
"""A statement that asks for nothing; the driver stumbles over an empty one."""


async def quiet(raw: asyncpg.Connection) -> None:
    """Wait until the server has stopped a statement that was cancelled.

    The driver sends another one when the server has answered the first.
    """
    ending = asyncio.ensure_future(raw.execute(NOTHING))
    asking = await _insisting(raw, ending)
    if asking is not None and not asking.done():  # on its way, it could hit the next statement
        async with asyncio.timeout(CLOSING):
            await asyncio.wait([asking])
    with contextlib.suppress(asyncpg.InFailedSQLTransactionError, asyncpg.QueryCanceledError):
        ending.result()


async def farewell(raw: asyncpg.Connection) -> None:
    """Close a connection; a statement under way is stopped on the server."""
    ending = asyncio.ensure_future(raw.close(timeout=CLOSING))
    asking = await _insisting(raw, ending)
    if asking is not None:
        asking.cancel()
    with contextlib.suppress(Exception):
        ending.result()


async def _insisting(raw: asyncpg.Connection, ending: "asyncio.Task[object]") -> "asyncio.Task[None] | None":
    """Wait for a task that ends when the server stops a statement; ask the server again meanwhile, and return that.

    A request to cancel that arrives before its statement has begun is lost.
    """
    patience = _AGAIN
    asking: asyncio.Task[None] | None = None
    try:
        while not (await asyncio.wait([ending], timeout=patience))[0]:
            if asking is None or asking.done():
                asking = asyncio.ensure_future(_ask(raw))
            patience *= 2
    except asyncio.CancelledError:
        ending.cancel()
        if asking is not None:
            asking.cancel()
        raise
    return asking


async def _ask(raw: asyncpg.Connection) -> None:
    """Ask the server to stop what a connection does, and return when it has passed that on."""
    asked = asyncio.get_running_loop().create_future()
    await raw._cancel(asked)  # noqa: SLF001
    if asked.done() and not asked.cancelled():
        asked.exception()  # old drivers keep it there


def cut(raw: asyncpg.Connection, loop: asyncio.AbstractEventLoop) -> None:
    """Shut the socket of a connection whose loop does not run, so that the server learns of it at once."""
    transport = raw._transport  # noqa: SLF001
    with contextlib.suppress(Exception):
        raw.terminate()
    with contextlib.suppress(Exception):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    if loop.is_closed():  # what that has asked of the loop will never happen
        inner = getattr(transport, "_ssl_protocol", None)
        with contextlib.suppress(Exception):
            (transport if inner is None else inner._transport)._call_connection_lost(None)  # noqa: SLF001
