"""Random edits, each by a seed of its own: a schema -> another one that keeps most of it."""

from collections.abc import Sequence
from random import Random

import attrs

from dataflow.migrations.proof.drawing import Drawer
from dataflow.migrations.proof.schema import Column, Part, Schema

_WEIGHTS = {"add": 6, "drop": 5, "rename": 4, "redraw": 3, "retype": 4, "column": 7, "table": 1, "comment": 1}


def edited(kind: type[Drawer], schema: Schema, seed: int, first: int) -> Schema:
    """Return a schema after one edit.

    Args:
        kind: how parts are drawn.
        schema: the schema before.
        seed: of the edit.
        first: the lowest number of new parts.
    """
    rng = Random(seed)  # noqa: S311  # a seed, not a secret
    edit = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    return getattr(_Edit(kind(rng, schema, first)), edit)()  # type: ignore[no-any-return]


class _Edit:
    """The edits, by name.

    Args:
        drawer: draws what is new, for the schema that is edited.
    """

    def __init__(self, drawer: Drawer) -> None:
        self.drawer = drawer
        self.rng = drawer.rng
        self.schema = drawer.schema

    def _some(self, parts: Sequence[Part]) -> Part | None:
        return self.drawer.pick(parts) if parts else None

    def add(self) -> Schema:
        """Add something; a new column may have the name of one that was dropped."""
        self.drawer.draw(self.drawer.pick_kind())
        return self.drawer.schema

    def drop(self) -> Schema:
        """Drop something, and what hangs on it; whole tables more seldom."""
        parts = [p for p in self.schema.parts.values() if p.kind != "table" or self.drawer.chance(0.1)]
        part = self._some(parts)
        return self.schema.without(part.id) if part else self.schema

    def rename(self) -> Schema:
        """Give something another name."""
        part = self._some([part for part in self.schema.parts.values() if part.name])
        if part is None:
            return self.schema
        if part.kind == "enum":
            return self.schema.with_(attrs.evolve(part, name=self.drawer.fresh("temper")))
        return self.schema.with_(attrs.evolve(part, name=self.drawer.fresh()))

    def redraw(self) -> Schema:
        """Let something that has a text of its own mean something else, under the same name."""
        kinds = ("index", "check", "unique", "view", "trigger", "policy", "function", "sequence", "enum")
        part = self._some(self.schema.of(*kinds))
        if part is None or (part.kind == "unique" and self.schema.users(part.id)):
            return self.schema
        if part.kind == "enum":
            return self.schema.with_(attrs.evolve(part, options=self._labels(part.options)))
        drawer = type(self.drawer)(self.rng, self.schema, self.drawer.first)
        new = drawer.draw(part.kind)
        if new is None or any(user.id > new.id for user in drawer.schema.users(new.id)):
            return self.schema
        if part.kind in ("view", "function", "sequence") and max(new.uses - {part.id}, default=0) > part.id:
            return self.schema  # it would read what is made after it
        if part.id in new.uses or (new.options != part.options and part.kind in ("view", "function")):
            return self.schema
        text = new.text.replace(f"«{new.id}»", f"«{part.id}»")
        fresh = {number: p for number, p in drawer.schema.parts.items() if number != new.id}
        return Schema(fresh).with_(attrs.evolve(new, id=part.id, name=part.name, text=text))

    def _labels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        new = list(labels)
        if len(new) > 1 and self.drawer.chance(0.3):
            new.pop(self.rng.randrange(len(new)))
        else:
            new.insert(self.rng.randint(0, len(new)), f"new{self.rng.randrange(100)}")
        return tuple(dict.fromkeys(new))

    # -- columns ------------------------------------------------------------------------------------------------------
    def _column(self) -> Column | None:
        columns = [part for part in self.schema.parts.values() if isinstance(part, Column)]
        return self.drawer.pick(columns) if columns else None

    def retype(self) -> Schema:
        """Give a column, and what refers to it, another type."""
        column = self._column()
        if column is None or column.generated is not None:
            return self.schema
        types = self.drawer.retypes.get(column.type, ())
        if not types:
            return self.schema
        type_ = self.drawer.pick(types)
        kept = attrs.evolve(column, type=type_, default=None, collation=None)
        if column.default is not None and column.default.startswith("'") and self.drawer.chance(0.5):
            kept = attrs.evolve(kept, default=column.default)
        return self.schema.with_(kept)

    def column(self) -> Schema:
        """Change one trait of a column."""
        column = self._column()
        if column is None:
            return self.schema
        traits = ["nullable", "default", "collation", "comment", "identity", "computed"]
        trait = self.rng.choices(traits, (4, 4, 1, 1, 1, 3))[0]
        return self.schema.with_(getattr(self, f"_{trait}")(column))

    def _nullable(self, column: Column) -> Column:
        return attrs.evolve(column, nullable=not column.nullable)

    def _default(self, column: Column) -> Column:
        if column.generated is not None or column.identity:
            return column
        new = None if column.default is not None and self.drawer.chance(0.5) else self.drawer.default(column.type)
        return attrs.evolve(column, default=new)

    def _collation(self, column: Column) -> Column:
        new = None if column.collation else self.drawer.collation(column.type)
        return attrs.evolve(column, collation=new)

    def _comment(self, column: Column) -> Column:
        return attrs.evolve(column, comment=None if column.comment else self.drawer.comment())

    def _identity(self, column: Column) -> Column:
        if self.drawer.name == "sqlite":
            return column
        if column.type not in ("integer", "bigint", "smallint") or column.nullable or column.generated is not None:
            return column
        words = [word for word in ("", "always", "by default") if word != column.identity]
        return attrs.evolve(column, identity=self.drawer.pick(words), default=None)

    def _computed(self, column: Column) -> Column:
        """Change how a column is computed, let it be plain, or let a plain one be computed."""
        others = [
            c for c in self.schema.columns(column.owner) if c.id != column.id and c.generated is None and not c.identity
        ]
        if column.generated is not None and self.drawer.chance(0.4):
            return attrs.evolve(column, generated=None, stored=False)
        if column.generated is not None and self.drawer.chance(0.3):
            return attrs.evolve(column, stored=not column.stored or "+ 1" in column.generated)
        stored = self.drawer.stored()
        made = self.drawer.computed(others, stored=stored) if others and not column.identity else None
        if made is None:
            return column
        return attrs.evolve(column, type=made[0], generated=made[1], stored=stored, default=None, collation=None)

    # -- tables -------------------------------------------------------------------------------------------------------
    def table(self) -> Schema:
        """Change the options of a table."""
        table = self._some(self.schema.of("table"))
        if table is None:
            return self.schema
        return self.schema.with_(attrs.evolve(table, options=self.drawer.table_options(table)))

    def comment(self) -> Schema:
        """Change a comment."""
        part = self._some(self.schema.of("table", "view"))
        if part is None:
            return self.schema
        return self.schema.with_(attrs.evolve(part, comment=None if part.comment else self.drawer.comment()))
