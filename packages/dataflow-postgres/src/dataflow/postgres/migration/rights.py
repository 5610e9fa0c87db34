"""What objects have besides their definitions: owners, privileges, remarks. One that is made anew gets them back.

No catalog tells of them (`dataflow.catalog`): models say nothing about them, so they are no difference between two
schemas. They are read with the live schema, and written behind the statements that make an object again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs

from dataflow.dialect import Command, Program
from dataflow.postgres.migration import queries
from dataflow.postgres.migration.texts import literal, settled

Key = tuple[str, str, str]
"""(kind, table or "", name), by the names before all renaming."""
PUBLIC = "PUBLIC"
_WORDS = {"view": "TABLE", "function": "ROUTINE", "enum": "TYPE"}
_STATES = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@attrs.frozen
class Grant:
    """A privilege that somebody has.

    Attributes:
        column: of a column, else "".
        grantee: the role, quoted, or PUBLIC.
        privilege: "SELECT" …
        grantable: whether it may be granted on.
    """

    column: str
    grantee: str
    privilege: str
    grantable: bool


@attrs.frozen
class Beside:
    """What one object has besides its definition.

    Attributes:
        owner: the role that owns it, quoted; "" for the user who migrates.
        returns: whether that role can be given a new object.
        grants: its privileges; None where they are those that any object has.
        parts: privileges of its columns.
        more: (column or "", statement) of what hangs on a view: remarks on columns, their defaults, rules.
        remark: the comment on it, where the catalog has none.
        state: "D", "R" or "A" of a trigger that does not fire as usual.
    """

    owner: str = ""
    returns: bool = True
    grants: tuple[Grant, ...] | None = None
    parts: tuple[Grant, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    remark: str | None = None
    state: str = ""


@attrs.frozen
class Rights:
    """What all objects of a schema have besides their definitions.

    Attributes:
        user: the user who migrates, quoted.
        known: object -> what it has; nothing for most.
        usual: kind -> the roles to which new objects of that kind are granted by themselves.
    """

    user: str = ""
    known: Mapping[Key, Beside] = attrs.field(factory=dict)
    usual: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)

    def of(self, kind: str, name: str, table: str = "") -> Beside:
        """Return what an object has."""
        return self.known.get((kind, table, name), _NOTHING)

    def again(self, kind: str, name: str, called: tuple[str, str], *, columns: Collection[str] = ()) -> list[str]:
        """Return the statements that give an object back what it had, once it is made anew.

        Args:
            kind: "view", "function" or "enum".
            name: of the object.
            called: how ALTER calls it: ("MATERIALIZED VIEW", '"sums"').
            columns: of a view: those that it has now.
        """
        found = self.of(kind, name)
        said = " ".join(called)
        sql = [statement for column, statement in found.more if not column or column in columns]
        sql += [f"COMMENT ON {said} IS {literal(found.remark)}"] if found.remark is not None else []
        sql += [f"ALTER {said} OWNER TO {found.owner}"] if found.owner and found.returns else []
        return sql + self._granted(kind, found, f"{_WORDS[kind]} {called[1]}", columns)

    def loses(self, kind: str, name: str) -> str:
        """Say what an object that is made anew does not get back, or ""."""
        found = self.of(kind, name)
        return "" if found.returns else f" (it will belong to {self.user}: it cannot be given to {found.owner})"

    def _granted(self, kind: str, found: Beside, what: str, columns: Collection[str]) -> list[str]:
        parts = _grants(what, [grant for grant in found.parts if grant.column in columns])
        if found.grants is None:
            return parts
        owner = found.owner if found.owner and found.returns else self.user
        gone = {*self.usual.get(kind, ()), *([PUBLIC] if kind in ("function", "enum") else [])}
        sql = [f"REVOKE ALL ON {what} FROM {role}" for role in [*sorted(gone - {owner}), owner]]
        return sql + _grants(what, found.grants) + parts


_NOTHING = Beside()


def _grants(what: str, grants: Iterable[Grant]) -> list[str]:
    by: dict[tuple[str, bool], list[str]] = {}
    for grant in grants:
        column = f' ("{grant.column.replace(chr(34), 2 * chr(34))}")' if grant.column else ""
        by.setdefault((grant.grantee, grant.grantable), []).append(f"{grant.privilege}{column}")
    return [
        f"GRANT {', '.join(privileges)} ON {what} TO {grantee}{' WITH GRANT OPTION' if grantable else ''}"
        for (grantee, grantable), privileges in by.items()
    ]


def column_grants(rights: Rights, place: tuple[str, str], table: str, column: str) -> list[str]:
    """Return the statements that grant a column what it was granted before it was made anew.

    Args:
        rights: of the schema.
        place: the table and the column, by their names before.
        table: the table, quoted, as it is called now.
        column: the column now.
    """
    found = rights.of("column", place[1], place[0]).parts
    return _grants(f"TABLE {table}", [attrs.evolve(grant, column=column) for grant in found])


def firing(state: str) -> str:
    """Return the words of ALTER TABLE … TRIGGER that let a trigger fire as it did; "" where that is as usual."""
    return _STATES.get(state, "")


def read() -> Program[Rights]:
    """Read what objects of the schema at hand have besides their definitions."""
    found: defaultdict[Key, dict[str, Any]] = defaultdict(dict)
    ((user,),) = yield Command("SELECT quote_ident(current_user)"), ()
    for kind, name, owner, returns in (yield Command(queries.OWNERS), ()):
        found[kind, "", name].update(owner=owner, returns=returns)
    usual: defaultdict[str, list[str]] = defaultdict(list)
    for kind, role in (yield Command(queries.USUAL), ()):
        usual[kind].append(role)
    for kind, table, name, column, *what in (yield Command(queries.GRANTS), (sorted(usual),)):
        own, part = found[kind, table, name], "parts" if column else "grants"
        own[part] = (*own.get(part, ()), *([Grant(column, *what)] if what[1] is not None else []))
    for kind, table, name, remark, state in (yield Command(queries.REMARKS), ()):
        found[kind, table, name].update({"remark": remark} if remark is not None else {"state": state})
    for name, column, sql in (yield Command(queries.HANGING), ()):
        own = found["view", "", name]
        own["more"] = (*own.get("more", ()), (column, settled(sql)))
    known = {key: Beside(**what) for key, what in found.items()}
    return Rights(user, known, {kind: tuple(roles) for kind, roles in usual.items()})
