"""How guards watch over the calls of one DataFlow: what connections know, which they get, what the database refuses.

A part of `Core`. A DataFlow whose guards have nothing to watch over pays nothing for them.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from dataflow.config import Config
from dataflow.dialect import COUNT, Command, Database, Dialect, Program, Session, Step
from dataflow.errors import DatabaseError, NotYetAvailable, UsageError
from dataflow.plan.bound import BoundModel
from dataflow.plugins import specs
from dataflow.session import ITSELF, Call, Run, through

T = TypeVar("T")


class Watched:
    """The guards of a DataFlow, and what they ask of its calls.

    Attributes:
        all_guards: what plugins offer to watch over every call.
        guards: those of them that have something to watch over.
        confined: whether connections have no privileges, unless a guard grants them.
        placed: the guard that gives each tenant a database or schema of its own, or None.
    """

    config: Config
    dialect: Dialect
    database: Database
    models: dict[str, BoundModel]
    number: int

    def _post(self, guards: tuple[specs.Guard, ...]) -> None:
        """Take on the guards, before the first connection is leased."""
        self.all_guards = guards
        self.guards: tuple[specs.Guard, ...] = ()
        self._awakened: list[specs.Guard] = []
        self._sealing: list[Any] = []
        self._shielding: list[Any] = []
        self.confined = any(guard.confines for guard in guards)
        if self.confined:
            self.database.confine(lambda: [model.spec for model in list(self.models.values())])
        placers: list[Any] = [guard for guard in guards if hasattr(guard, "place")]
        self.placed = placers[0] if placers else None
        if self.placed is not None:
            if self.config["tdd_mode"]:
                msg = "tdd mode keeps one database, and here each tenant has a database or schema of its own"
                raise NotYetAvailable(msg, hint="test with the default isolation of tenants", code="unsupported")
            self.database = self.placed.route(self)

    def _wake(self) -> None:
        """Let those guards watch that have something to watch over."""
        awake = [
            guard
            for guard in self.all_guards
            if guard in self._awakened or not hasattr(guard, "active") or guard.active(self)
        ]
        self.guards = tuple(awake)
        self._sealing = [guard for guard in awake if hasattr(guard, "seal")]
        self._shielding = [guard for guard in awake if hasattr(guard, "shield")]

    def awaken(self, guard: specs.Guard) -> None:
        """Let a guard watch from now on, whatever it has to watch over."""
        if guard not in self.guards:
            self._awakened.append(guard)
            self._wake()

    def around(self, ambient: Mapping[Any, Any], name: str) -> Any:
        """Return what surrounds calls on this DataFlow under a name (tenant, actor …), or None."""
        return ambient.get((name, self.number))

    def supervise(self, program: Program[T], call: Call) -> Program[T]:
        """Wrap the program of one call where guards want its connection to know something of it."""
        return through(program, partial(self._guarded, call)) if self.guards else program

    def _guarded(self, call: Call, step: Step) -> Program[Any]:
        if step[0].returns == COUNT and not step[0].writes:  # BEGIN, COMMIT and the like
            return (yield step)
        yield from self._entered(step[0], call)
        return (yield from self._sent(step, call))

    def _sent(self, step: Step, call: Call) -> Program[Any]:
        """Send one statement; where a guard wants it, so that the database refuses it if it writes."""
        for guard in self._sealing:
            refused = guard.seal(call, step[0])
            if refused is not None:
                try:
                    return (yield from self.dialect.sealed(call.session, step))
                except DatabaseError as error:
                    if error.code != "read-only":
                        raise
                    raise refused() from error
        for guard in self._shielding:
            shield = guard.shield(call, step[0])
            if shield is not None:
                try:
                    return (yield from self.dialect.shielded(call.session, step, shield.denies))
                except DatabaseError as error:
                    if error.code != "denied":
                        raise
                    raise shield.error() from error
        return (yield step)

    def _entered(self, command: Command, call: Call) -> Program[None]:
        wanted: dict[str, str] = {}
        for guard in self.guards:
            wanted.update(guard.context(call, writes=command.writes or command.named))
        if self.confined:
            wanted.setdefault("tenant", "")  # the connection still has that of the call before
        if not wanted.items() <= call.session.context.items():
            yield from self.dialect.enter(call.session, wanted)

    def privileged(self, ambient: Mapping[Any, Any]) -> bool:
        """Tell whether calls in these surroundings get a connection with all privileges."""
        return ITSELF.items() <= ambient.items() or any(guard.privileged(self, ambient) for guard in self.guards)

    async def lease(self, *, write: bool, holder: str, ambient: Mapping[Any, Any]) -> Session:
        """Wait for a connection that fits what surrounds the call."""
        if self.placed is not None:
            return await self.database.lease(write=write, holder=holder, place=self.placed.place(self, ambient))  # type: ignore[call-arg]
        if self.confined:
            return await self.database.lease(write=write, holder=holder, privileged=self.privileged(ambient))
        return await self.database.lease(write=write, holder=holder)

    def lease_blocking(self, *, write: bool, holder: str, ambient: Mapping[Any, Any]) -> Session:
        """`lease` for the calling thread."""
        if self.placed is not None:
            there = self.placed.place(self, ambient)
            return self.database.lease_blocking(write=write, holder=holder, place=there)  # type: ignore[call-arg]
        if self.confined:
            return self.database.lease_blocking(write=write, holder=holder, privileged=self.privileged(ambient))
        return self.database.lease_blocking(write=write, holder=holder)

    def joined(self, run: Run | None, ambient: Mapping[Any, Any]) -> Session | None:
        """Return the session of a run's open transaction, or None.

        Raises:
            UsageError: the transaction was begun with other privileges, or in another tenant's place, than the call
                has.
        """
        session = None if run is None else run.joined(self)
        if session is not None and self.placed is not None and session.place != self.placed.place(self, ambient):
            msg = "the open transaction belongs to another tenant's database"
            raise UsageError(msg, hint="begin it inside the `with db.tenant(…)` block", code="other-place")
        if session is not None and self.confined and session.privileged != self.privileged(ambient):
            msg = "the open transaction was begun with other privileges than this call has"
            raise UsageError(msg, hint="begin the transaction inside the same `with` block", code="other-privileges")
        return session
