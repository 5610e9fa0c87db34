"""What surrounds calls: ``with db.tenant("acme"):`` and the like, for tasks and threads alike.

Values live in a context variable, so that each task and thread has its own; inner blocks win over outer ones. What a
value means, features and guards know.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dataflow.errors import InputError, MissingCapability
from dataflow.plugins.hints import extra_for
from dataflow.session import AMBIENT, ITSELF, Call, surroundings

if TYPE_CHECKING:
    from dataflow.core import Core

_ENTERED: ContextVar[tuple[tuple["Surrounding", Mapping[Any, Any]], ...]] = ContextVar("dataflow_entered", default=())
"""The blocks that this task or thread is in, each with what surrounded it."""


class Surrounding:
    """A block that gives the calls inside it a tenant, an actor, or the right to pass a guard.

    Works with ``with`` and ``async with``; one block may be entered by several tasks and threads at a time, and again
    inside itself. A block that passes a guard is recorded when it is entered, so that entering it writes to the
    database.
    """

    def __init__(self, core: "Core", values: Mapping[str, Any], *, escape: str = "", reason: str = "") -> None:
        self._core = core
        self._values = {(name, core.number): value for name, value in values.items()}
        self._escape = escape
        self._reason = reason

    def _programs(self) -> list[Any]:
        if not self._escape:
            return []
        asked = (guard.escape(self._core, self._escape, self._reason) for guard in self._core.all_guards)
        return [program for program in asked if program is not None]

    def _call(self) -> Call:
        return Call(self._core, ambient={**surroundings(), **self._values, **ITSELF})

    def __enter__(self) -> Self:
        for program in self._programs():
            self._core.run_sync(program, self._call(), write=True, holder=self._escape)
        self._enter()
        return self

    async def __aenter__(self) -> Self:
        for program in self._programs():
            await self._core.run(program, self._call(), write=True, holder=self._escape)
        self._enter()
        return self

    def _enter(self) -> None:
        outer = surroundings()
        _ENTERED.set((*_ENTERED.get(), (self, outer)))
        AMBIENT.set({**outer, **self._values})

    def _leave(self) -> None:
        """Be outside again; a task that only closes a generator which is inside stays where it is."""
        entered = list(_ENTERED.get())
        while entered:
            block, outer = entered.pop()
            if block is self:
                _ENTERED.set(tuple(entered))
                AMBIENT.set(outer)
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()


def named(value: Any, what: str, example: str) -> str:
    """Check a name or reason that a block is given.

    Raises:
        InputError: it is no text, or an empty one.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        msg = f"{what} is a text that is not empty"
        raise InputError(msg, hint=f"write {example}", code="bad-parameter")
    return value


def require(core: "Core", hook: str, capability: str) -> None:
    """Raise unless an active plugin provides what gives a block its meaning.

    Raises:
        MissingCapability: none does; the block would promise what nobody keeps.
    """
    if not core.plugins.provides(hook):
        msg = f"no active plugin provides {capability}"
        raise MissingCapability(msg, hint=extra_for("capability", capability) or "install one")
