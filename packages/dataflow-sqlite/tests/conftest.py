"""What tests of migrations share: a database file, a small difference of catalogs, and a run of the steps."""

import sqlite3

import attrs
import pytest

from dataflow import DataFlow
from dataflow.changes import Change
from dataflow.dialect import COUNT, Command
from dataflow.sqlite.migration.editor import SQLiteEditor


def built(*statements):
    """Return a program that creates a schema."""

    def program():
        for sql in statements:
            yield Command(sql, COUNT, writes=True), ()

    return program()


def differences(found, wanted, tables=(), columns=(), values=()):
    """Return the changes between two catalogs, plainly; renames are given as {new: old}."""
    tables, values = dict(tables), dict(values)
    changes = [Change("rename_table", new, new, before=old, after=new) for new, old in tables.items()]
    back = {old: new for new, old in tables.items()}
    changes += [
        Change("drop_table", name, name, before=table)
        for name, table in found.tables.items()
        if back.get(name, name) not in wanted.tables
    ]
    for name, after in wanted.tables.items():
        before = found.tables.get(tables.get(name, name))
        if before is None:
            changes.append(Change("create_table", name, name, after=after))
        else:
            changes += _table(before, after, dict(columns).get(name, {}), values)
    for name, view in {**found.views, **wanted.views}.items():
        before, after = found.views.get(name), wanted.views.get(name)
        if before != after:
            kind = "drop_view" if after is None else "create_view" if before is None else "alter_view"
            changes.append(Change(kind, "", view.name, before=before, after=after))
    return changes


def _table(before, after, renames, values):
    name = after.name
    changes = [Change("rename_column", name, new, before=old, after=new) for new, old in renames.items()]
    back = {old: new for new, old in renames.items()}
    columns = {
        back.get(c.name, c.name): attrs.evolve(c, name=back.get(c.name, c.name)) for c in before.columns.values()
    }
    changes += [Change("drop_column", name, c, before=columns[c]) for c in columns if c not in after.columns]
    for column, new in after.columns.items():
        old, value = columns.get(column), values.get((name, column))
        if old is None:
            changes.append(Change("add_column", name, column, after=new, value=value))
        elif old != new:
            changes.append(Change("alter_column", name, column, before=old, after=new, value=value))
    changes += _keys(name, before.constraints, after.constraints)
    if before.options != after.options:
        changes.append(Change("alter_table", name, name, before=before, after=after))
    for what in ("index", "trigger"):
        olds, news = (getattr(t, {"index": "indexes", "trigger": "triggers"}[what]) for t in (before, after))
        for each in {**olds, **news}:
            if olds.get(each) != news.get(each):
                if each in olds:
                    changes.append(Change(f"drop_{what}", name, each, before=olds[each]))
                if each in news:
                    changes.append(Change(f"create_{what}", name, each, after=news[each]))
    return changes


def _keys(name, olds, news):
    dropped = [Change("drop_constraint", name, key.name, before=key) for key in olds if key not in news]
    return dropped + [Change("add_constraint", name, key.name, after=key) for key in news if key not in olds]


class Migration:
    """A database file that is migrated from one schema to another."""

    def __init__(self, path):
        self.path = path
        self.db = DataFlow(f"sqlite:///{path}", sqlite_synchronous="OFF")
        self.editor = SQLiteEditor(self.db.core.dialect)

    def sql(self, *statements):
        """Run statements on a connection of their own; return the rows of the last."""
        raw = sqlite3.connect(self.path, isolation_level=None)
        raw.execute("PRAGMA synchronous = OFF")
        try:
            for sql in statements:
                rows = raw.execute(sql).fetchall()
            return rows
        finally:
            raw.close()

    def ask(self, program):
        return self.db.core.ask(program, write=True)

    def inspect(self):
        return self.ask(self.editor.inspect())

    def desired(self, *statements):
        return self.ask(self.editor.desired(built(*statements)))

    def plan(self, *statements, **more):
        found, wanted = self.inspect(), self.desired(*statements)
        return self.editor.steps(found, wanted, differences(found, wanted, **more))

    def execute(self, steps):
        def body():
            yield from self.editor.clear(steps)
            for step in steps:
                yield from self.editor.attempt(built(*step.sql), lock_timeout=1, statement_timeout=0, transaction=True)

        self.ask(self.editor.locked(body(), timeout=5))

    def to(self, *statements, **more):
        """Migrate to a schema, check that it is that schema and sound, and return the steps."""
        steps = self.plan(*statements, **more)
        self.execute(steps)
        assert self.inspect() == self.desired(*statements)
        assert self.sql("PRAGMA integrity_check") == [("ok",)]
        assert self.sql("PRAGMA foreign_key_check") == []
        return steps

    def back(self, steps):
        """Undo steps by their inverses."""
        statements = [sql for step in reversed(steps) for sql in step.inverse]
        self.ask(self.editor.locked(built(*statements), timeout=5))


@pytest.fixture
def migration(tmp_path):
    found = Migration(tmp_path / "app.db")
    yield found
    found.db.close()
