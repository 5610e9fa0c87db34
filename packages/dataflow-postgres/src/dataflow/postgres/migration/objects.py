"""Steps for what stands beside tables: views, triggers, policies, functions, sequences, enum types."""

import re

import attrs

from dataflow.catalog import Column, EnumType, Function, Sequence, View
from dataflow.changes import Change
from dataflow.errors import SchemaError
from dataflow.postgres.migration.catalog import setting
from dataflow.postgres.migration.draft import Draft, commented, named
from dataflow.postgres.migration.names import counter_aside
from dataflow.postgres.migration.rights import firing
from dataflow.postgres.migration.texts import literal

_WORDS = re.compile(r"\w+")
_HEAD = re.compile(r"\A(.*?\n RETURNS [^\n]*|.*?\n)", re.DOTALL)


# -- views ------------------------------------------------------------------------------------------------------------
def create_view(draft: Draft, change: Change) -> None:
    """Create a view, with its triggers, or the indexes of a materialized one."""
    view: View = change.after
    operation = "create_materialized_view" if view.materialized else "create_view"
    _refuse_rules(draft, view)
    sql, inverse = _creation(draft, view), (_removal(draft, view),)
    summary = f"create view {view.name}{draft.server.rights.loses('view', view.name)}"
    draft.add(operation, summary, "", sql, inverse=inverse, far=_read(draft, view))


def _refuse_rules(draft: Draft, view: View) -> None:
    """Raise where a rule of a view that is made anew names what is renamed: the text of the rule is the old one."""
    rules = [sql for _, sql in draft.server.rights.of("view", view.name).more if sql.startswith("CREATE RULE ")]
    name = next((name for name in draft.gone if any(name in _WORDS.findall(sql) for sql in rules)), None)
    if name is not None:
        msg = f"view {view.name} is made anew, and a rule of it names {name}, which is renamed"
        hint = "drop the rule before, and make it again afterwards"
        raise SchemaError(msg, hint=hint, where={"view": view.name}, code="cannot-alter")


def drop_view(draft: Draft, change: Change) -> None:
    """Drop a view."""
    view: View = change.before
    sql, inverse = (_removal(draft, view),), _creation(draft, view)
    draft.add("drop_view", f"drop view {view.name}", "", sql, inverse=inverse, locked=view.name)


def alter_view(draft: Draft, change: Change) -> None:
    """Change the comment of a view; anything else makes it anew."""
    before: View = change.before
    after: View = change.after
    if attrs.evolve(before, comment=after.comment) == after:
        word = _word(after)
        sql, inverse = (commented(word, draft.quote(each.name), each.comment) for each in (after, before))
        draft.add("alter_view", f"comment on {after.name}", "", (sql,), inverse=(inverse,), locked=after.name)
        return
    drop_view(draft, change)
    create_view(draft, change)


def _word(view: View) -> str:
    return "MATERIALIZED VIEW" if view.materialized else "VIEW"


def _removal(draft: Draft, view: View) -> str:
    return f"DROP {_word(view)} {draft.quote(view.name)}"


def _creation(draft: Draft, view: View) -> list[str]:
    options = f" WITH ({', '.join(map(setting, view.options))})" if view.options else ""
    columns = (
        f" ({', '.join(map(draft.quote, view.columns))})" if view.columns else ""
    )  # of others, called otherwise now
    sql = [f"CREATE {_word(view)} {draft.quote(view.name)}{columns}{options} AS {view.definition}"]
    sql += [index.definition for index in view.indexes.values()]
    sql += [trigger.definition for trigger in view.triggers.values()]
    called = _word(view), draft.quote(view.name)
    sql += [commented(*called, view.comment)] if view.comment is not None else []
    return sql + draft.server.rights.again("view", view.name, called, columns=view.columns)


def _read(draft: Draft, view: View) -> list[str]:
    """Return the tables and views that are read, also through other views."""
    views = {**draft.found.views, **draft.wanted.views}
    found: list[str] = []
    todo = list(view.reads)
    while todo:
        name = todo.pop()
        if name not in found:
            found.append(name)
            todo += views[name].reads if name in views else ()
    return found


# -- triggers and policies --------------------------------------------------------------------------------------------
def _attach(draft: Draft, change: Change, kind: str) -> None:
    summary = f"create {kind} {change.name} of {change.table}"
    made = (change.after.definition, *_kept(draft, change, kind))
    draft.add(f"create_{kind}", summary, change.table, made, inverse=(_drop_of(draft, change, kind),))


def _detach(draft: Draft, change: Change, kind: str) -> None:
    summary = f"drop {kind} {change.name} of {change.table}"
    drop = (_drop_of(draft, change, kind),)
    back = (change.before.definition, *_kept(draft, change, kind))
    draft.add(f"drop_{kind}", summary, change.table, drop, inverse=back)


def _kept(draft: Draft, change: Change, kind: str) -> list[str]:
    """Return the statements that give a trigger or policy back what it had besides its definition."""
    sql = draft.remark(kind, change.table, change.name)
    before = draft.server.rights.of(kind, change.name, draft.before(change.table))
    if before.state and (f"drop_{kind}", change.table, change.name) in draft.changed:
        sql.append(draft.alter(change.table, f"{firing(before.state)} TRIGGER {draft.quote(change.name)}"))
    return sql


def _drop_of(draft: Draft, change: Change, kind: str) -> str:
    return f"DROP {kind.upper()} {draft.quote(change.name)} ON {draft.quote(change.table)}"


def create_trigger(draft: Draft, change: Change) -> None:
    """Create a trigger."""
    _attach(draft, change, "trigger")


def drop_trigger(draft: Draft, change: Change) -> None:
    """Drop a trigger."""
    _detach(draft, change, "trigger")


def create_policy(draft: Draft, change: Change) -> None:
    """Create a policy."""
    _attach(draft, change, "policy")


def drop_policy(draft: Draft, change: Change) -> None:
    """Drop a policy."""
    _detach(draft, change, "policy")


def alter_trigger(draft: Draft, change: Change) -> None:
    """Make a trigger anew."""
    drop_trigger(draft, change)
    create_trigger(draft, change)


def alter_policy(draft: Draft, change: Change) -> None:
    """Make a policy anew."""
    drop_policy(draft, change)
    create_policy(draft, change)


# -- functions --------------------------------------------------------------------------------------------------------
def create_function(draft: Draft, change: Change) -> None:
    """Create a function or procedure."""
    function: Function = change.after
    rights = draft.server.rights
    summary = f"create {function.kind} {function.name}{rights.loses('function', function.name)}"
    sql = (function.definition, *rights.again("function", function.name, (_kind(function), function.name)))
    draft.add("create_function", summary, "", sql, inverse=(f"DROP {_called(function)}",))


def drop_function(draft: Draft, change: Change) -> None:
    """Drop a function or procedure."""
    function: Function = change.before
    summary = f"drop {function.kind} {function.name}"
    called = _kind(function), function.name
    back = (function.definition, *draft.server.rights.again("function", function.name, called))
    draft.add("drop_function", summary, "", (f"DROP {_called(function)}",), inverse=back)


def alter_function(draft: Draft, change: Change) -> None:
    """Replace a function; where its parameters' names or its result differ, make it anew."""
    before: Function = change.before
    after: Function = change.after
    heads = [_HEAD.match(each.definition) for each in (before, after)]
    if before.kind != after.kind or [head and head[0] for head in heads[:1]] != [
        head and head[0] for head in heads[1:]
    ]:
        drop_function(draft, change)
        create_function(draft, change)
        return
    summary = f"replace {after.kind} {after.name}"
    draft.add("create_function", summary, "", (after.definition,), inverse=(before.definition,))


def _called(function: Function) -> str:
    return f"{_kind(function)} {function.name}"


def _kind(function: Function) -> str:
    return "PROCEDURE" if function.kind == "procedure" else "FUNCTION"


# -- sequences --------------------------------------------------------------------------------------------------------
def create_sequence(draft: Draft, change: Change) -> None:
    """Create a sequence."""
    sequence: Sequence = change.after
    name = draft.quote(sequence.name)
    sql, inverse = [f"CREATE SEQUENCE {name} {sequence.definition}"], [f"DROP SEQUENCE {name}"]
    if draft.is_given(sequence.name):  # an identity column counts by one of that name, and will not
        aside = draft.quote(counter_aside(sequence.name))
        sql.insert(0, f"ALTER SEQUENCE {name} RENAME TO {aside}")
        inverse.append(f"ALTER SEQUENCE {aside} RENAME TO {name}")
    draft.add("create_sequence", f"create sequence {sequence.name}", "", sql, inverse=inverse)
    _own(draft, Sequence(sequence.name, sequence.definition), sequence)


def alter_sequence(draft: Draft, change: Change) -> None:
    """Change how a sequence counts, and which column it belongs to."""
    before: Sequence = change.before
    after: Sequence = change.after
    if before.definition != after.definition:
        sql, inverse = (f"ALTER SEQUENCE {draft.quote(each.name)} {each.definition}" for each in (after, before))
        draft.add("alter_sequence", f"alter sequence {after.name}", "", (sql,), inverse=(inverse,))
    _own(draft, before, after)


def _own(draft: Draft, before: Sequence, after: Sequence) -> None:
    if before.owner == after.owner:
        return
    sql, inverse = (
        f"ALTER SEQUENCE {draft.quote(after.name)} OWNED BY {_owner(draft, each.owner)}" for each in (after, before)
    )
    table = (after.owner or before.owner).rpartition(".")[0]
    draft.add(
        "sequence_owner", f"sequence {after.name} of {after.owner or 'nobody'}", table, (sql,), inverse=(inverse,)
    )


def _owner(draft: Draft, owner: str) -> str:
    table, _, column = owner.rpartition(".")
    return f"{draft.quote(table)}.{draft.quote(column)}" if table else "NONE"


def rename_sequence(draft: Draft, change: Change) -> None:
    """Rename a sequence; defaults that count by it go on doing so."""
    old, new = named(change.before), change.name
    sql, inverse = (f"ALTER SEQUENCE {draft.quote(a)} RENAME TO {draft.quote(b)}" for a, b in ((old, new), (new, old)))
    draft.add("rename_sequence", f"rename sequence {old} to {new}", "", (sql,), inverse=(inverse,))


def drop_sequence(draft: Draft, change: Change) -> None:
    """Drop a sequence; how far it had counted goes with it."""
    sequence: Sequence = change.before
    sql = [f"DROP SEQUENCE {draft.quote(sequence.name)}"]
    aside = draft.quote(counter_aside(sequence.name))
    if any(aside in statement for step in draft.steps for statement in step.sql):  # the one of an identity column
        sql.append(f"ALTER SEQUENCE {aside} RENAME TO {draft.quote(sequence.name)}")
    draft.add("drop_sequence", f"drop sequence {sequence.name}", "", sql)


# -- enum types -------------------------------------------------------------------------------------------------------
def create_enum(draft: Draft, change: Change) -> None:
    """Create an enum type."""
    name = draft.quote(change.name)
    sql, inverse = _enum(draft, change.after), f"DROP TYPE {name}"
    draft.add("create_enum", f"create enum {change.name}", "", (sql,), inverse=(inverse,))


def drop_enum(draft: Draft, change: Change) -> None:
    """Drop an enum type."""
    sql, inverse = f"DROP TYPE {draft.quote(change.name)}", _enum(draft, change.before)
    draft.add("drop_enum", f"drop enum {change.name}", "", (sql,), inverse=(inverse,))


def _enum(draft: Draft, enum: EnumType) -> str:
    return f"CREATE TYPE {draft.quote(enum.name)} AS ENUM ({', '.join(map(literal, enum.labels))})"


def alter_enum(draft: Draft, change: Change) -> None:
    """Add labels, each in a transaction of its own: they cannot be used in it; or make the type anew."""
    before: EnumType = change.before
    after: EnumType = change.after
    kept = [label for label in after.labels if label in before.labels]
    if kept != list(before.labels):
        _replace_enum(draft, before, after)
        return
    known = list(before.labels)
    for place, label in enumerate(after.labels):
        if label in known:
            continue
        where = f"AFTER {literal(after.labels[place - 1])}" if place else f"BEFORE {literal(known[0])}"
        sql = f"ALTER TYPE {draft.quote(after.name)} ADD VALUE IF NOT EXISTS {literal(label)} {where if known else ''}"
        draft.add("enum_add_value", f"add {label} to enum {after.name}", "", (sql.rstrip(),), mode="apart")
        known.append(label)


def _replace_enum(draft: Draft, before: EnumType, after: EnumType) -> None:
    """Move the columns to a new type; rows that hold a label that goes make it fail."""
    name, old = draft.quote(after.name), draft.quote("dataflow_old")
    written = {kind: kind for kind in (after.name, name)}
    sql = [f"ALTER TYPE {name} RENAME TO {old}", _enum(draft, after)]
    tables: dict[str, list[Column]] = {}
    for table in draft.found.tables.values():
        own = [column for column in draft.staying(table) if column.type.removesuffix("[]") in written]
        if own:
            tables[draft.renamed(table.name)] = own
    for table_name, columns in tables.items():
        sql += _moved(draft, table_name, columns)
    sql += [f"DROP TYPE {old}", *draft.server.rights.again("enum", after.name, ("TYPE", name))]
    lost = [label for label in before.labels if label not in after.labels]
    summary = f"make enum {after.name} anew" + (f", without {', '.join(lost)}" if lost else "")
    summary += draft.server.rights.loses("enum", after.name)
    far = sorted(
        {*tables, *(far for table in tables for far in draft.references(table, {c.name for c in tables[table]}))}
    )
    draft.add("enum_replace", summary, "", sql, far=far)


def _moved(draft: Draft, table: str, columns: list[Column]) -> list[str]:
    """Write how columns move to the new type; their defaults are those that are wanted, for an old one may be gone."""
    actions = [f"ALTER COLUMN {draft.quote(c.name)} DROP DEFAULT" for c in columns if c.default is not None]
    for column in columns:
        own, array = draft.quote(column.name), "[]" if column.type.endswith("[]") else ""
        actions.append(f"ALTER COLUMN {own} TYPE {column.type} USING {own}::text{array}::{column.type}")
    sql = [draft.alter(table, action) for action in actions]
    wanted = draft.wanted.tables[table].columns
    after = [wanted[column.name] for column in columns if wanted[column.name].type == column.type]
    return sql + [
        draft.alter(table, f"ALTER COLUMN {draft.quote(c.name)} SET DEFAULT {c.default}")
        for c in after
        if c.default is not None
    ]
