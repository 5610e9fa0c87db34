"""Which renaming is to be done: what models declare, what the caller says, and what the registry knows to be done.

A declaration stays on the model when it is done. Mostly the names that are there tell; where names swap, they are the
same before and after, and only the registry knows: it keeps what models declared when their tables were last made so.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow.catalog import Catalog
from dataflow.errors import InputError
from dataflow.migrations.journal import Registered
from dataflow.migrations.plan import Question
from dataflow.migrations.renames import Renames, pending

if TYPE_CHECKING:
    from dataflow.plan.bound import BoundModel


def declared(
    models: Sequence["BoundModel"],
    found: Catalog,
    said: Mapping[str, str | None],
    registered: Mapping[str, Registered],
) -> tuple[Renames, list[Question]]:
    """Return what is renamed, and what only the caller knows.

    Args:
        models: all of them.
        found: the live schema.
        said: "table" or "table.column" as it is called now -> its name before; None: it is not renamed.
        registered: table -> what the registry knows of it.

    Raises:
        InputError: two say that they were the same.
    """
    asked: list[Question] = []
    wanted = {model.spec.table: said.get(model.spec.table, model.spec.options.get("renamed_from")) for model in models}
    options = {name: options_of(entry) for name, entry in registered.items()}
    tables = _Names("", wanted, said, {name: found_.get("renamed_from") for name, found_ in options.items()})
    renamed = tables.renamed(found.tables, asked)
    before = {new: old for old, new in renamed.items()}
    columns: dict[str, dict[str, str]] = {}
    for model in models:
        name = model.spec.table
        old = before.get(name, name)
        if old not in found.tables:
            continue
        fields = {
            field.name: said.get(f"{name}.{field.name}", field.renamed_from) for field in model.spec.fields.values()
        }
        own = _Names(name, fields, said, fields_of(registered.get(old))).renamed(found.tables[old].columns, asked)
        if own:
            columns[name] = own
    return Renames(renamed, columns), asked


def fields_of(entry: Registered | None) -> dict[str, str]:
    """Return the fields of a model that the registry knows, with the names that it declared them to have had."""
    listed: Iterable[Mapping[str, Any]] = entry.definition.get("fields", ()) if entry is not None else ()
    return {field["name"]: field.get("renamed_from", "") for field in listed}


def options_of(entry: Registered) -> Mapping[str, Any]:
    """Return the options of a model that the registry knows."""
    options: Mapping[str, Any] = entry.definition.get("options", {})
    return options


def is_renamed(declared: str | None, known: str | None) -> bool:
    """Tell whether what has a name now is what was renamed to it: it is not what others were renamed from."""
    return bool(declared) and declared == known


class _Names:
    """The names of all tables, or of the columns of one.

    Args:
        table: of the columns; "" for tables.
        wanted: name -> name before, as far as one is declared or said.
        said: what the caller says.
        known: name -> the name before that the registry knows to be declared; nothing of what it does not know.
    """

    def __init__(
        self,
        table: str,
        wanted: Mapping[str, str | None],
        said: Mapping[str, str | None],
        known: Mapping[str, str | None],
    ) -> None:
        self.table = table
        self.wanted = {new: old for new, old in wanted.items() if old}
        self.said = said
        self.known = known

    def _full(self, name: str) -> str:
        return f"{self.table}.{name}" if self.table else name

    def renamed(self, there: Mapping[str, Any], asked: list[Question]) -> dict[str, str]:
        """Return old name -> new name of what is to be renamed; questions are added to `asked`."""
        self._refuse_splits(there)
        names = {old: new for new, old in self.wanted.items()}
        left, rings = pending(names, there.keys())
        swapped = {old for ring in rings for old in ring}
        stay = {old for old in left if old not in swapped and is_renamed(self.wanted.get(old), self.known.get(old))}
        if stay:
            left, rings = pending({old: new for old, new in names.items() if old not in stay}, there.keys())
        for ring in rings:
            if all(self._full(left[old]) in self.said for old in ring):
                continue
            done = {self.known.get(left[old]) == old for old in ring}
            if done == {False} and all(old in self.known for old in ring):
                continue
            if done != {True}:
                asked += [self._question(old, left[old]) for old in ring]
            for old in ring:
                del left[old]
        return left

    def _question(self, old: str, new: str) -> Question:
        name = self._full(new)
        hint = f"names swap, and no registry tells whether that is done: --rename {name}={old} if it is to be done"
        return Question("rename", self.table or new, new if self.table else "", (old,), f"{hint}, --new {name} if not")

    def _refuse_splits(self, there: Mapping[str, Any]) -> None:
        seen: dict[str, str] = {}
        for new, old in self.wanted.items():
            if old in there and new not in there and seen.setdefault(old, new) != new:
                msg = f"{self._full(seen[old])} and {self._full(new)} both say that they were {old!r}"
                raise InputError(msg, hint="let one of them be new", code="renamed-twice")
