"""The feature: a unique field ``slug`` that is derived from other fields when a record is created, and then stays.

Which numbers are free is asked in the transaction that inserts the record, through the model's own list: so tenants
and deleted records are respected, whoever provides them. A number that another call takes at the same time is refused
by the unique index, and DataFlow derives again. Nothing is locked.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.dialect import Program
from dataflow.errors import ModelError, suggest
from dataflow.fields import FieldSpec
from dataflow.model import IndexSpec, ModelDraft
from dataflow.plan.stages import Stage
from dataflow.session import Call
from dataflow.types import StrType, ValueRefused

from dataflow_slugs.words import is_slug, slugify

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel
    from dataflow.plan.builder import PlanBuilder

SLUG = "slug"
HINT = "write __dataflow__ = {'slug': {'from': 'title'}}"
AT_ONCE = 500
"""Names that are asked for together."""


class SlugType(StrType):
    """Text that is a slug."""

    name = "slug"

    def accept(self, value: Any) -> str:
        text: str = super().accept(value)
        if not is_slug(text):
            msg = "not a slug"
            raise ValueRefused(msg, "lower-case letters, digits and single hyphens; dataflow_slugs.words.slugify(text)")
        return text


class Slugs:
    """Gives records a slug, and those that would have the same one a number behind it, from -2 on.

    Args:
        sources: the text fields it comes from.
        longest: characters, the number aside.
        otherwise: the slug of a record that has no text in ASCII.
    """

    name = "slugs"
    stage = Stage.EXECUTE
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    capability = "slug"

    def __init__(self, sources: Sequence[str], longest: int, otherwise: str) -> None:
        self.sources = sources
        self.longest = longest
        self.otherwise = otherwise

    @classmethod
    def asked_for(cls, draft: ModelDraft) -> "Slugs":
        """Read the option of a model.

        Raises:
            ModelError: it is not as it should be.
        """
        asked = draft.options[SLUG]
        where: dict[str, str | int] = {"model": draft.name}
        if not isinstance(asked, Mapping) or not asked.keys() <= {"from", "longest"} or "from" not in asked:
            msg = "the option 'slug' is a dict of 'from' and, if need be, 'longest'"
            raise ModelError(msg, hint=HINT, where=where)
        sources = (asked["from"],) if isinstance(asked["from"], str) else tuple(asked["from"])
        for name in sources:
            if name not in draft.fields or not isinstance(draft.fields[name].type, StrType):
                texts = [field.name for field in draft.fields.values() if isinstance(field.type, StrType)]
                close = suggest(str(name), texts)
                hint = f"did you mean {close!r}?" if close else f"text fields: {', '.join(texts) or 'none'}"
                raise ModelError(f"the slug comes from {name!r}, which is no text field", hint=hint, where=where)
        longest = asked.get("longest", 80)
        if type(longest) is not int or longest < 1 or not sources:
            msg = "the option 'slug' names at least one field, and 'longest' is a whole number of characters"
            raise ModelError(msg, hint=HINT, where=where)
        return cls(sources, longest, slugify(draft.table) or "record")

    # -- what DataFlow asks ----------------------------------------------------------------------------------------
    def extend_model(self, draft: ModelDraft) -> None:
        """Add the field and its unique index."""
        draft.add_field(FieldSpec(SLUG, SlugType(), origin=self.name))
        draft.add_index(IndexSpec(f"uq_{draft.table}_{SLUG}", (SLUG,), unique=True))

    def extend_plan(self, plan: "PlanBuilder") -> None:
        """Derive the slugs of new records."""
        plan.derive(SLUG, partial(self.derive, plan.model))

    def derive(self, model: "BoundModel", call: Call, records: list[dict[str, Any]]) -> Program[list[str]]:
        """Return a free slug for each record; one that the caller gives is the caller's choice."""
        slugs = [record.get(SLUG, "") for record in records]
        bases: dict[str, list[int]] = {}
        for place, slug in enumerate(slugs):
            if not slug:
                bases.setdefault(self.base(records[place]), []).append(place)
        used = {slug for slug in slugs if slug} | (yield from taken(model, call, bases))
        for base, places in bases.items():
            found = yield from free(model, call, base, count=len(places), used=used)
            for place, slug in zip(places, found, strict=True):
                slugs[place] = slug
        return slugs

    def base(self, record: Mapping[str, Any]) -> str:
        """Return the slug of a record as it would be if it were the only one."""
        text = " ".join(record[name] for name in self.sources if record.get(name))
        return slugify(text, self.longest) or self.otherwise


def taken(model: "BoundModel", call: Call, names: Iterable[str]) -> Program[set[str]]:
    """Return which of these slugs records have, as the call sees them."""
    asked = sorted(names)
    found: set[str] = set()
    for start in range(0, len(asked), AT_ONCE):
        params = {"_filter": {SLUG: {"$in": asked[start : start + AT_ONCE]}}, "_fields": [SLUG]}
        page = yield from model.operation("list").program(params, call)
        found |= {record[SLUG] for record in page["records"]}
    return found


def free(model: "BoundModel", call: Call, base: str, *, count: int, used: set[str]) -> Program[list[str]]:
    """Return slugs that nobody has, and add them to `used`: the base itself, then the base with numbers."""
    found = [] if base in used else [base]
    number = (yield from _first_free(model, call, base)) if len(found) < count else 0
    while len(found) < count:
        names = [f"{base}-{n}" for n in range(number, number + min(count, AT_ONCE))]
        used |= yield from taken(model, call, names)
        found += [name for name in names if name not in used][: count - len(found)]
        number += len(names)
    used.update(found)
    return found


def _first_free(model: "BoundModel", call: Call, base: str) -> Program[int]:
    """Return a number that is free while the one before is not: by doubling, then by halving, in few questions."""
    numbers: Collection[int] = [2**power for power in range(1, 48)]
    low, high = 1, 0
    while numbers:
        there = yield from taken(model, call, [f"{base}-{n}" for n in numbers])
        high = next((n for n in numbers if f"{base}-{n}" not in there), high)
        low = max([low, *[n for n in numbers if n < high]])
        step = max(1, (high - low) // 32)
        numbers = range(low + step, high, step)
    return high
