"""The policy as privileges: what the role of an application may do with each table, and which rules that enforces.

A privilege is withheld exactly where the policy refuses, at all times and for any number of rows, everything that needs
it; what a rule refuses only sometimes, only the framework can refuse. Reading is always granted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from dataflow.changelog import change_log
from dataflow.dialect import COUNT, Command, Program, RolePrivileges, TablePrivileges, refuse_unsupported, support
from dataflow.enterprise.protection.decision import Request
from dataflow.enterprise.protection.feature import labels_of
from dataflow.enterprise.protection.policy import Protection, Rule
from dataflow.enterprise.protection.setting import policy_of
from dataflow.enterprise.protection.uses import DELETE, Need, Use, uses_of
from dataflow.errors import ConfigurationError, NotYetAvailable
from dataflow.files.journal import Journal
from dataflow.privileges import ALL
from dataflow.session import atomic

if TYPE_CHECKING:
    from dataflow.core import Core
    from dataflow.engine import DataFlow
    from dataflow.plan.bound import BoundModel


def lasting(policy: Protection) -> Protection:
    """Return the policy as it is at its most permissive: what it refuses, the given one refuses at all times."""
    always = [rule for rule in policy.rules if rule.effect == "allow" or not _sometimes(rule)]
    return Protection(policy.default, [attrs.evolve(rule, window=None) for rule in always])


def _sometimes(rule: Rule) -> bool:
    return rule.window is not None or rule.max_rows is not None


def _permits(policy: Protection, requests: "tuple[Request, ...]") -> bool:
    return all(policy.decide(request, _any_time).permitted for request in requests)


def _any_time() -> datetime:
    return datetime.now(UTC)


def wanted(core: "Core", policy: Protection, role: str) -> RolePrivileges:
    """Return what a role may do under a policy, with the tables of all registered models.

    Args:
        core: the inside of the DataFlow that logs in as the role.
        policy: its policy.
        role: the name.
    """
    always = lasting(policy)
    tables = {model.spec.table: _granted(model, always) for model in core.models.values()}
    return RolePrivileges(role, tables, creates=_permits(always, (_ddl(core),)))


def _ddl(core: "Core") -> Request:
    return Request("ddl", "ddl", None, (), labels_of(core))


def _granted(model: "BoundModel", policy: Protection) -> TablePrivileges:
    needs: set[Need] = set()
    for use in uses_of(model):
        if not use.needs <= needs and _permits(policy, use.requests):
            needs |= use.needs
    return TablePrivileges(_columns(model, needs, "insert"), _columns(model, needs, "update"), DELETE in needs)


def _columns(model: "BoundModel", needs: set[Need], privilege: str) -> frozenset[str]:
    granted = frozenset(column for kind, column in needs if kind == privilege)
    every = {*model.spec.fields, *(hidden.name for hidden in model.spec.hidden)}
    return frozenset({ALL}) if granted == every else granted


async def found_privileges(core: "Core") -> RolePrivileges | None:
    """Look up what the connected role may do with the tables of models; None where that means nothing.

    It does not where the database has no roles, and where tenants are kept apart by roles or places of their own.
    """
    if core.confined or core.placed is not None or support(core.dialect, "grants").level == "unsupported":
        return None
    tables = [model.spec.table for model in core.models.values()]
    try:
        return await core.run(core.dialect.privileges(tables), core.own_call(), write=False, holder="doctor")
    except NotYetAvailable:
        return None


def grant(db: "DataFlow", role: str, *, apply: bool = False) -> list[str]:
    """Return the statements that leave a role what the policy of a DataFlow permits.

    Args:
        db: it; connected as the owner of the tables.
        role: its name; it has to exist, and to own nothing.
        apply: carry them out, in one transaction.

    Raises:
        ConfigurationError: the DataFlow has no policy; there is no such role, or nothing can be kept from it.
        NotYetAvailable: the database has no roles, or keeps tenants apart by some of its own.
    """
    core, policy = db.core, policy_of(db)
    if policy is None:
        msg = "this DataFlow has no write protection, so that there is nothing to withhold"
        raise ConfigurationError(msg, hint="write DataFlow(protection='protection.toml')", code="no-policy")
    refuse_unsupported(core.dialect, "grants")
    if core.confined or core.placed is not None:
        msg = f"tenant_isolation={db.config['tenant_isolation']!r} has roles or places of its own for tenants"
        hint = "leave writing to the framework there, or keep tenants apart by rows: tenant_isolation='shared'"
        raise NotYetAvailable(msg, hint=hint, code="unsupported")
    call = core.own_call()
    program = _carried_out(core, wanted(core, policy, role), apply=apply)
    return core.run_sync(atomic(call, program), call, write=apply, holder="grants")


def _carried_out(core: "Core", granted: RolePrivileges, *, apply: bool) -> Program[list[str]]:
    """Return the statements; with `apply`, carry them out, all or none.

    Tables of the framework's own are made then where they are missing, for the role could not: the audit log, where it
    is noted who passes the protection, and how far loads are.

    Raises:
        ConfigurationError: the role has more by other ways, which these statements cannot close; nothing is done.
    """
    statements = yield from core.dialect.grants(granted)
    if not apply:
        return statements
    if support(core.dialect, "change_log").level != "unsupported":
        yield from change_log(core.dialect).log_create()
    if granted.creates:  # else loads do without
        yield from Journal(core.dialect).make()
    statements = yield from core.dialect.grants(granted)
    for sql in statements:
        yield Command(sql, COUNT, writes=True), ()
    more = beyond(core, granted, (yield from core.dialect.privileges(list(granted.tables), granted.role)))
    if more:
        msg = f"the role {granted.role!r} has privileges by other ways: {'; '.join(more)}"
        hint = "REVOKE them from PUBLIC, or from the roles that it is a member of; nothing was changed"
        raise ConfigurationError(msg, hint=hint, code="unsafe-role")
    return statements


def _has(found: TablePrivileges, needs: "frozenset[Need]") -> bool:
    """Tell whether a role has all that a use needs."""
    checks = {"insert": found.inserts, "update": found.updates}
    return all(found.delete if need == DELETE else checks[need[0]](need[1]) for need in needs)


def beyond(core: "Core", granted: RolePrivileges, found: RolePrivileges) -> list[str]:
    """List what a role may do that it was not granted, in words: "invoices: DELETE"."""
    listed = ["the schema: CREATE"] if found.creates and not granted.creates else []
    for model in core.models.values():
        table = model.spec.table
        own, has = granted.tables[table], found.tables.get(table, TablePrivileges())
        words = list(_surplus(own, has))
        listed += [f"{table}: {', '.join(words)}"] if words else []
    return listed


def _surplus(own: TablePrivileges, has: TablePrivileges) -> Iterator[str]:
    if has.more:
        yield "all that its owner may do, or TRUNCATE, REFERENCES or TRIGGER"
        return
    for word, columns, granted in (("INSERT", has.insert, own.inserts), ("UPDATE", has.update, own.updates)):
        more = sorted(column for column in columns if not granted(column))
        if more:
            yield f"{word} ({', '.join(more)})"
    if has.delete and not own.delete:
        yield "DELETE"


class Enforced:
    """Tells which rules of a policy the privileges of a role enforce by themselves.

    Args:
        core: the inside of the DataFlow.
        found: what the role may do.
    """

    def __init__(self, core: "Core", found: RolePrivileges) -> None:
        self._core = core
        self._found = found
        self._uses: dict[str, list[Use]] = {}

    def rule(self, rule: Rule) -> bool:
        """Tell whether the database refuses all that a rule refuses."""
        if rule.effect == "allow" or _sometimes(rule):
            return False
        return self._holds(Protection("allow", [rule]), rule.models or tuple(self._core.models))

    def default(self, policy: Protection) -> bool:
        """Tell whether the database refuses what no rule of a policy allows."""
        allows = [rule for rule in lasting(policy).rules if rule.effect == "allow"]
        return self._holds(Protection("deny", allows), tuple(self._core.models))

    def _holds(self, policy: Protection, models: tuple[str, ...]) -> bool:
        known = [name for name in models if name in self._core.models]
        ddl = not _permits(policy, (_ddl(self._core),))
        if (ddl and self._found.creates) or len(known) < len(models):
            return False
        refused = ddl
        for name in known:
            table = self._found.tables.get(self._core.models[name].spec.table)
            if table is None:
                return False
            if name not in self._uses:
                self._uses[name] = uses_of(self._core.models[name])
            for use in self._uses[name]:
                if not _permits(policy, use.done):
                    if _has(table, use.needs):
                        return False
                    refused = True
        return refused
