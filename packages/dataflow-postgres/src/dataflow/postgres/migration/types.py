"""What a change of a column's type costs, and how its values are converted. Types as PostgreSQL writes them.

The classes were measured on PostgreSQL 15.18, 16.14 and 18.4; what is not known to be cheap is announced as a rewrite.
"""

import re
from typing import Literal

import attrs

Cost = Literal["catalog", "index", "rewrite"]
_TYPE = re.compile(
    r"(?P<base>[a-z ]+?|\"char\")(?:\((?P<args>[-\d,]+)\))?(?P<zone> with(?:out)? time zone)?(?P<array>(?:\[\])*)"
)
_STRINGS = {"text", "character varying", "character", "citext", "name"}
_NUMBERS = {"smallint", "integer", "bigint", "numeric", "real", "double precision"}
_STAMPS = {"date", "timestamp without time zone", "timestamp with time zone"}
_WIDER = {
    "smallint": {"integer", "bigint", "numeric", "real", "double precision"},
    "integer": {"bigint", "numeric", "double precision", "oid"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "date": {"timestamp without time zone", "timestamp with time zone"},
    "timestamp without time zone": {"timestamp with time zone"},
    "timestamp with time zone": {"timestamp without time zone"},
    "json": {"jsonb"},
    "cidr": {"inet"},
    "boolean": {"smallint", "integer", "bigint", "numeric", "real", "double precision"},
    "uuid": set(),
}
"""Base type -> those that hold all its values."""
_ASSIGNED = {("json", "jsonb"), ("jsonb", "json"), ("cidr", "inet"), ("inet", "cidr"), ("integer", "oid"),
             ("bit", "bit varying"), ("bit varying", "bit"), ("timestamp without time zone", "time without time zone"),
             ("timestamp with time zone", "time without time zone"), ("time without time zone", "interval"),
             ("time without time zone", "time with time zone"), ("time with time zone", "time without time zone"),
             ("numeric", "money")}  # fmt: skip
_EXPLICIT = {("boolean", "integer"), ("integer", "boolean"), ("integer", "bit"), ("bigint", "bit")}


@attrs.frozen
class Kind:
    """A type: name without modifiers, modifiers, and whether it is an array."""

    base: str
    args: tuple[int, ...]
    array: bool


def kind(text: str) -> Kind:
    """Read a type."""
    found = _TYPE.fullmatch(text)
    if found is None:
        return Kind(text.removesuffix("[]"), (), text.endswith("[]"))
    args = tuple(map(int, found["args"].split(","))) if found["args"] else ()
    return Kind(found["base"] + (found["zone"] or ""), args, bool(found["array"]))


def cost(before: str, after: str, *, collation: bool = False) -> Cost:
    """Return what a change costs: entries of the catalogue, the indexes anew, or all rows.

    Args:
        before: the type as it is.
        after: as it shall be.
        collation: whether the collation changes.
    """
    old, new = kind(before), kind(after)
    if old == new:
        return "index" if collation else "catalog"
    if old.array or new.array:
        return "rewrite"
    if old.base == new.base:
        return ("index" if collation else _same(old)) if _widens(old, new) else "rewrite"
    pair = old.base, new.base
    if pair in (("character varying", "text"), ("integer", "oid")) or (
        pair == ("text", "character varying") and not new.args
    ):
        return "index"
    return "catalog" if pair in (("cidr", "inet"), ("xml", "text")) and not collation else "rewrite"


def _same(old: Kind) -> Cost:
    cheap = {"numeric", "bit varying", "interval"}
    if old.base in cheap or old.base.startswith(("time ", "timestamp ")):
        return "catalog"
    return "index" if old.base == "character varying" else "rewrite"


def _widens(old: Kind, new: Kind) -> bool:
    """Tell whether the second holds all that the first does, where both have one name."""
    if not new.args:
        return new.base not in ("character", "bit")
    if not old.args:
        return False
    if old.base == "numeric":
        return new.args[0] >= old.args[0] and (*new.args, 0)[1] == (*old.args, 0)[1]
    return new.args[0] >= old.args[0]


def narrows(before: str, after: str) -> bool:
    """Tell whether a change can lose values, or fail on them."""
    old, new = kind(before), kind(after)
    if old.array != new.array:
        return True
    if old.base == new.base:
        return not _widens(old, new)
    if new.base in ("text", "citext") or (new.base == "character varying" and not new.args):
        return False
    if new.base in _WIDER.get(old.base, ()):
        return bool(new.args)
    return True


def using(column: str, before: str, after: str) -> str:
    """Return the USING clause that converts values where an assignment would not; "" if it would."""
    old, new = kind(before), kind(after)
    if old.array != new.array:
        inner = f"ARRAY[{column}]" if new.array else f"{column}::text"
        return f" USING {inner}::{after}"
    if old.base == new.base == "bit" and _widens(old, new):
        return f" USING {column}::{after}"  # an assignment wants the very length
    if old.base == new.base or new.base in _STRINGS or (old.base, new.base) in _ASSIGNED:
        return ""
    if {old.base, new.base} <= _NUMBERS or {old.base, new.base} <= _STAMPS:
        return ""
    if old.base == "boolean" and new.base in _NUMBERS:
        return f" USING {column}::integer{'[]' if old.array else ''}::{after}"
    direct = old.base in _STRINGS or (old.base, new.base) in _EXPLICIT
    return f" USING {column}::{after}" if direct else f" USING {column}::text{'[]' if old.array else ''}::{after}"
