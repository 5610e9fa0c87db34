"""Models and a live schema -> the schema that shall be: what models say, and all that is none of their business.

Nothing goes on a difference alone. What no model mentions stays, unless DataFlow itself made it for a model that has
dropped it since (the registry knows), or the caller names it.
"""

from collections.abc import Collection, Mapping

import attrs

from dataflow.catalog import Catalog, Column, Constraint, EnumType, Index, Table


@attrs.frozen
class Owned:
    """What DataFlow has made of a table.

    Attributes:
        columns: names.
        objects: names of constraints and indexes.
    """

    columns: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()

    def __or__(self, other: "Owned") -> "Owned":
        return Owned(self.columns | other.columns, self.objects | other.objects)

    def holds(self, constraint: Constraint) -> bool:
        """Tell whether it has made a constraint: one it named, or one that the database named, or not, for it."""
        if constraint.name in self.objects:
            return True
        given = not constraint.name or (constraint.kind == "check" and constraint.name.endswith("_check"))
        return given and self.columns >= {*constraint.columns}


def target(
    found: Catalog,
    desired: Catalog,
    owned: Mapping[str, Owned],
    *,
    made: Collection[str] | None = None,
    drop: Collection[str] = (),
) -> tuple[Catalog, list[str]]:
    """Return the wanted catalog, and notes on what was left alone.

    Args:
        found: the live schema, with renames applied.
        desired: what the models describe, read from a fresh build.
        owned: table -> what DataFlow has made of it.
        made: tables that DataFlow has made; all when left out.
        drop: "table", "table.column" or "table.index", that may go though DataFlow has not made it.
    """
    notes: list[str] = []
    tables = {name: table for name, table in found.tables.items() if name not in drop}
    for name, table in desired.tables.items():
        if name in found.tables and found.tables[name] == table and name not in drop:
            tables[name] = found.tables[name]
        elif name in found.tables and name not in drop:
            theirs = made is not None and name not in made
            merge = _Merge(found.tables[name], table, owned.get(name), drop, notes, theirs=theirs)
            tables[name] = merge.table()
        else:
            tables[name] = table
    views = {name: view for name, view in found.views.items() if name not in drop}
    wanted = attrs.evolve(
        found,
        tables=tables,
        views={**views, **desired.views},
        functions={**found.functions, **desired.functions},
        sequences={**found.sequences, **desired.sequences},
        enums={**found.enums, **{n: _labels(found.enums.get(n), enum) for n, enum in desired.enums.items()}},
    )
    return wanted, notes


def _labels(found: EnumType | None, desired: EnumType) -> EnumType:
    """Keep labels that no model has any more: rows may hold them."""
    if found is None:
        return desired
    new = tuple(label for label in desired.labels if label not in found.labels)
    return attrs.evolve(found, labels=found.labels + new)


class _Merge:
    """One table, as it shall be."""

    def __init__(
        self,
        found: Table,
        desired: Table,
        owned: Owned | None,
        drop: Collection[str],
        notes: list[str],
        *,
        theirs: bool = False,
    ) -> None:
        self.found = found
        self.desired = desired
        self.owned = owned
        self.drop = drop
        self.notes = notes
        self.theirs = theirs

    def table(self) -> Table:
        columns = self._columns()
        return attrs.evolve(
            self.desired,
            columns=columns,
            constraints=self._constraints(columns),
            indexes=self._indexes(columns),
            triggers={**self.found.triggers, **self.desired.triggers},
            policies={**self.found.policies, **self.desired.policies},
            options=self._options(),
            comment=self.found.comment,
            empty=self.found.empty,
            bytes=self.found.bytes,
        )

    def _goes(self, name: str, *, own: bool, what: str) -> bool:
        listed = f"{self.desired.name}.{name}"
        if listed in self.drop or own:
            return True
        said = f"{what} that no model has and DataFlow has not made; kept"
        listed = f"{listed}: {said} (--drop {listed})" if name else f"{self.desired.name}: {said}"
        self.notes.append(listed)
        return False

    def _options(self) -> tuple[str, ...]:
        """Return options; a table that others have made may hold what none that is strict may."""
        desired = [option for option in self.desired.options if option != "strict" or not self.theirs]
        return tuple(sorted({*self.found.options, *desired}))

    def _columns(self) -> dict[str, Column]:
        columns = {}
        for name, column in self.found.columns.items():
            if name in self.desired.columns:
                columns[name] = attrs.evolve(self.desired.columns[name], comment=column.comment)
            elif not self._goes(name, own=self.owned is not None and name in self.owned.columns, what="a column"):
                columns[name] = column
        return {**columns, **{n: c for n, c in self.desired.columns.items() if n not in columns}}

    def _constraints(self, columns: Mapping[str, Column]) -> tuple[Constraint, ...]:
        kept: list[Constraint] = []
        named = {constraint.name for constraint in self.desired.constraints if constraint.name}
        contents = [attrs.evolve(constraint, name="") for constraint in self.desired.constraints]
        for constraint in self.found.constraints:
            content = attrs.evolve(constraint, name="", valid=True)
            if content in contents and constraint.name not in named:
                index = contents.index(content)
                if self.owned is None:  # another's name for the same
                    kept.append(constraint)
                    contents[index] = attrs.evolve(content, kind="check", definition="")
                continue
            if constraint.name in named or constraint.kind == "primary key":
                continue
            if not columns.keys() >= {*constraint.columns}:
                continue  # it cannot stay
            own = self.owned is not None and (self.owned.holds(constraint) or not (self.theirs or constraint.name))
            on = "" if constraint.name else f" on ({', '.join(constraint.columns)})"
            article = "an" if constraint.kind == "exclude" else "a"
            if not self._goes(constraint.name, own=own, what=f"{article} {constraint.kind} constraint{on}"):
                kept.append(constraint)
        wanted = [c for c, content in zip(self.desired.constraints, contents, strict=True) if content.definition]
        return (*wanted, *kept)

    def _indexes(self, columns: Mapping[str, Column]) -> dict[str, Index]:
        kept = dict(self.desired.indexes)
        for name, index in self.found.indexes.items():
            if name in kept or not columns.keys() >= {*index.columns}:
                continue
            own = self.owned is not None and name in self.owned.objects
            if not self._goes(name, own=own, what="an index"):
                kept[name] = index
        return kept
