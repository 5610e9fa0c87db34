"""Steps for whole tables, and how columns are written."""

from dataflow.catalog import Column, Table
from dataflow.changes import SWAPPED, Change
from dataflow.errors import SchemaError
from dataflow.postgres.migration.catalog import setting
from dataflow.postgres.migration.draft import Draft, commented, named, swapping

_SHAPES = ("partition by ", "partition of ", "inherits ")
_SECURITY = {
    "row security": ("ENABLE ROW LEVEL SECURITY", "DISABLE ROW LEVEL SECURITY"),
    "force row security": ("FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"),
}


def create_table(draft: Draft, change: Change) -> None:
    """Create a table with its columns and constraints; indexes, triggers and policies come by themselves."""
    table: Table = change.after
    name = draft.quote(table.name)
    sql = [_creation(draft, table)]
    sql += [
        draft.alter(table.name, f"ADD CONSTRAINT {draft.quote(key.name)} {key.definition} NOT VALID")
        for key in table.constraints
        if not key.valid
    ]
    sql += [draft.alter(table.name, _SECURITY[option][0]) for option in table.options if option in _SECURITY]
    sql += [commented("TABLE", name, table.comment)] if table.comment is not None else []
    for column in table.columns.values():
        if column.comment is not None:
            sql.append(commented("COLUMN", f"{name}.{draft.quote(column.name)}", column.comment))
    operation, far = _kin(draft, table)
    draft.add(
        operation,
        f"create table {table.name}",
        table.name,
        sql,
        inverse=(f"DROP TABLE {name}",),
        far=sorted(far - {table.name}),
        scans=operation == "partition_create",  # of a default partition, whose rows may belong to the new one
    )


def _kin(draft: Draft, table: Table) -> tuple[str, set[str]]:
    """Return the class of operation that creates a table, and the tables it touches."""
    far = {key.target for key in table.constraints if key.kind == "foreign key"} - {table.name}
    for option in table.options:
        words = option.split(" ")
        if option.startswith("partition of "):
            parent = words[2].strip('"')
            return "partition_create", {*far, parent, *draft.parts(parent)}
        if option.startswith("inherits "):
            return "create_table_inheriting", {*far, words[1].strip('"')}
    return "create_table_with_fk" if far else "create_table", far


def _creation(draft: Draft, table: Table) -> str:
    inner = [column(draft, each) for each in table.columns.values()]
    keys = [f"CONSTRAINT {draft.quote(key.name)} {key.definition}" for key in table.constraints if key.valid]
    unlogged = "UNLOGGED " if "unlogged" in table.options else ""
    start = f"CREATE {unlogged}TABLE {draft.quote(table.name)}"
    shapes = {word: [o.removeprefix(word) for o in table.options if o.startswith(word)] for word in _SHAPES}
    storage = [setting(option) for option in table.options if "=" in option and not option.startswith(_SHAPES)]
    ends = [f"INHERITS ({', '.join(shapes['inherits '])})"] if shapes["inherits "] else []
    ends += [f"PARTITION BY {shapes['partition by '][0]}"] if shapes["partition by "] else []
    ends += [f"WITH ({', '.join(storage)})"] if storage else []
    if shapes["partition of "]:
        parent, _, bound = shapes["partition of "][0].partition(" ")
        own = f" ({', '.join(keys)})" if keys else ""
        return " ".join([f"{start} PARTITION OF {parent}{own} {bound}", *ends])
    return " ".join([f"{start} ({', '.join(inner + keys)})", *ends])


def column(draft: Draft, what: Column) -> str:
    """Write a column as CREATE TABLE and ADD COLUMN take it."""
    parts = [draft.quote(what.name), what.type]
    parts += [f"COLLATE {what.collation}"] if what.collation else []
    if what.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({what.generated}) {'STORED' if what.stored else 'VIRTUAL'}")
    if what.identity:
        parts.append(f"GENERATED {what.identity.upper()} AS IDENTITY")
    if what.default is not None:
        parts.append(f"DEFAULT {what.default}")
    parts += [] if what.nullable else ["NOT NULL"]
    return " ".join(parts)


def drop_table(draft: Draft, change: Change) -> None:
    """Drop a table."""
    table: Table = change.before
    far = sorted(draft.references(change.name))
    draft.add(
        "drop_table",
        f"drop table {change.name}",
        change.name,
        (f"DROP TABLE {draft.quote(change.name)}",),
        far=far,
        data_loss="possible" if table.empty else "certain",
    )


def rename_table(draft: Draft, change: Change) -> None:
    """Rename a table, with what PostgreSQL has named after it and its columns."""
    moves = draft.moves(named(change.before))
    sql: list[str] = []
    inverse: list[str] = []
    back = {new: old for old, new in moves}
    for old, new in moves:
        table = draft.found.tables[back[old] if old == SWAPPED else old]
        more, less = draft.follow(((old, column), (new, column)) for column in table.columns)
        sql += [draft.alter(old, f"RENAME TO {draft.quote(new)}"), *more]
        inverse[:0] = [*less, draft.alter(new, f"RENAME TO {draft.quote(old)}")]
    names = [old for old, _ in moves if old != SWAPPED]
    if names:
        said = f"rename table {names[0]} to {change.name}" if len(moves) == 1 else swapping("tables", names)
        draft.add("rename_table", said, change.name, sql, inverse=inverse, locked=names[0], also=names[1:])


def alter_table(draft: Draft, change: Change) -> None:
    """Change options and comment of a table."""
    before: Table = change.before
    after: Table = change.after
    gone, new = set(before.options) - set(after.options), set(after.options) - set(before.options)
    for option in sorted(gone | new):
        if option.startswith(_SHAPES):
            msg = f"table {after.name} cannot be altered: {option}"
            hint = "create a table of that shape under another name, and move the rows"
            raise SchemaError(msg, hint=hint, where={"table": after.name}, code="cannot-alter")
    _storage(draft, after.name, gone, new)
    for option, (on, off) in _SECURITY.items():
        if option in gone | new:
            words = (on, off) if option in new else (off, on)
            what = f"{'switch' if option in new else 'switch off'} {option} of {after.name}"
            sql, inverse = (draft.alter(after.name, word) for word in words)
            draft.add("enable_rls", what, after.name, (sql,), inverse=(inverse,))
    if "unlogged" in gone | new:
        words = ("SET UNLOGGED", "SET LOGGED") if "unlogged" in new else ("SET LOGGED", "SET UNLOGGED")
        sql, inverse = (draft.alter(after.name, word) for word in words)
        operation = "set_unlogged" if "unlogged" in new else "set_logged"
        draft.add(operation, f"{words[0].lower()}: {after.name}", after.name, (sql,), inverse=(inverse,))
    if before.comment != after.comment:
        sql, inverse = (commented("TABLE", draft.quote(after.name), each.comment) for each in (after, before))
        draft.add("comment", f"comment on {after.name}", after.name, (sql,), inverse=(inverse,))


def _storage(draft: Draft, table: str, gone: set[str], new: set[str]) -> None:
    old, now = (sorted(option for option in options if "=" in option) for options in (gone, new))
    if old or now:
        sql, inverse = _settings(draft, table, old, now), _settings(draft, table, now, old)
        draft.add("set_table_options", f"set options of {table}", table, sql, inverse=inverse)


def _settings(draft: Draft, table: str, before: list[str], after: list[str]) -> list[str]:
    names = [option.partition("=")[0] for option in after]
    lost = [name for name in (option.partition("=")[0] for option in before) if name not in names]
    sql = [draft.alter(table, f"SET ({', '.join(map(setting, after))})")] if after else []
    return sql + ([draft.alter(table, f"RESET ({', '.join(lost)})")] if lost else [])
