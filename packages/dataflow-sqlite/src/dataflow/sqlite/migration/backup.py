"""A copy of the whole file before it is migrated: `VACUUM INTO`, on a connection of its own, beside the file."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

from dataflow.dialect import Command, Program
from dataflow.sqlite.errors import translate

_FILE = Command("SELECT file FROM pragma_database_list WHERE name = 'main'")


def backup() -> Program[str]:
    """Copy what is committed, while the calling connection holds the write lock; say where to.

    Raises:
        DatabaseError: the copy cannot be written; nothing has changed.
    """
    rows = yield _FILE, ()
    path = rows[0][0]
    if not path:
        return "no backup: the database is in memory"
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    copy = f"{path}.backup-{stamp}"
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("VACUUM INTO ?", (copy,))
    except sqlite3.Error as error:
        if os.path.exists(copy):
            os.remove(copy)
        raise translate(error, path) from error
    return f"backup: {copy}"
