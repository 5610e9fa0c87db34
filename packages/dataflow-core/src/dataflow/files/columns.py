"""Whether the columns of a file are those that a model takes: told all at once, before anything is written."""

from collections.abc import Container, Sequence
from typing import Any

from dataflow.errors import Problem, suggest
from dataflow.files.parts import NOTES, Part, Reader
from dataflow.plan.bound import BoundModel


def required(bound: BoundModel) -> list[str]:
    """Return the fields that every row has to give."""
    return [name for name, field in bound.fields.items() if field.spec.required]


def check_columns(operation: Any, reader: Reader, *, skipped: Sequence[str], key: Sequence[str]) -> None:
    """Refuse columns that are unknown, twice there, or not to be written, and the lack of required ones.

    Args:
        operation: the bulk operation that writes the rows.
        reader: of the file.
        skipped: columns to leave out.
        key: fields by which records are found.

    Raises:
        InputError: naming all of them.
    """
    bound: BoundModel = operation.bound
    problems = []
    if reader.columns is not None:
        used = [name for name in reader.columns if name not in skipped and name not in NOTES]
        problems += _of_columns(bound, used, operation.row_options)
        for name in dict.fromkeys((*required(bound), *key)):
            if name not in used:
                message = f"there is no column {name!r} ({bound.fields[name].type})"
                problems.append(Problem("missing-column", message, "add it to the file"))
        for name in skipped:
            if name not in reader.columns:
                close = suggest(name, reader.columns)
                hint = f"did you mean {close!r}?" if close else f"columns: {', '.join(reader.columns)}"
                problems.append(Problem("unknown-column", f"skip: the file has no column {name!r}", hint))
    if problems:
        raise bound.refuse(problems, "load")


def _of_columns(bound: BoundModel, used: Sequence[str], may: Container[str]) -> list[Problem]:
    problems = []
    for name in dict.fromkeys(used):
        if name not in bound.fields:
            problems.append(_unknown(bound, name, used))
            continue
        if used.count(name) > 1:
            problems.append(Problem("duplicate-column", f"the column {name!r} is there twice", "rename one"))
        spec = bound.fields[name].spec
        if spec.kept and not spec.nullable and name not in may:
            message = f"{name} is set by {spec.kept}, not by callers"
            problems.append(Problem("kept-column", message, f"leave it out: {_skip(name)}"))
    return problems


def _unknown(bound: BoundModel, name: str, used: Container[str]) -> Problem:
    close = suggest(name, [field for field in bound.fields if field not in used])
    other = f"did you mean {close!r}? If not, leave" if close else "leave"
    return Problem("unknown-column", f"{bound.name} has no field {name!r}", f"{other} it out: {_skip(name)}")


def _skip(name: str) -> str:
    return f"--skip {name}, or skip=[{name!r}]"


def check_members(bound: BoundModel, part: Part) -> None:
    """Refuse a file of JSON lines whose first rows have unknown members, before anything is written.

    Raises:
        InputError: naming all of them.
    """
    unknown = {fault.field for fault in part.faults if fault.field and fault.field not in bound.fields}
    if unknown:
        raise bound.refuse([_unknown(bound, name, ()) for name in sorted(unknown)], "load")
