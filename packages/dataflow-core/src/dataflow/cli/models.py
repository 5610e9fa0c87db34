"""``dataflow models``: the models of an application, with their tables, fields and relations."""

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
import click

from dataflow.cli.app import app_option, opened
from dataflow.cli.lookup import pick_model
from dataflow.cli.output import heading, indented, json_option, print_json, show, table
from dataflow.fields import UNSET, FieldSpec, ForeignKey
from dataflow.model import IndexSpec
from dataflow.plan.bound import BoundModel

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.argument("model", required=False)
@app_option
@json_option
def models(model: str | None, app: str | None, *, as_json: bool) -> None:
    """List the models of an application, or everything about one MODEL."""
    with opened(app) as found:
        chosen = [pick_model(found, model)] if model else list(found.db.core.models.values())
        if as_json:
            print_json({"app": found.reference, "models": [describe(bound) for bound in chosen]})
        elif model:
            show(*_details(chosen[0]))
        elif chosen:
            show(table(("model", "table", "key", "fields", "relations"), [_row(bound) for bound in chosen]))
        else:
            click.echo(f"{found.reference} has no models yet: register a class with @db.model")


def describe(bound: BoundModel) -> dict[str, Any]:
    """Return a model as data: the stable shape of ``--json``."""
    spec = bound.spec
    return {
        "name": spec.name,
        "table": spec.table,
        "doc": spec.doc,
        "place": spec.place,
        "primary_key": list(spec.primary_key),
        "fields": [_field(field) for field in spec.fields.values()],
        "relations": [attrs.asdict(relation) for relation in bound.relations.values()],
        "indexes": [attrs.asdict(index) for index in spec.indexes],
        "options": dict(spec.options),
    }


def _field(field: FieldSpec) -> dict[str, Any]:
    factory = None if field.factory is None else getattr(field.factory, "__name__", "a function")
    return {
        "name": field.name,
        "type": str(field.type),
        "nullable": field.nullable,
        "required": field.required,
        "default": None if field.default is UNSET else field.default,
        "factory": factory,
        "generated": field.generated,
        "set_by_dataflow": field.write or None,
        "origin": field.origin,
        "foreign_key": isinstance(field.relation, ForeignKey),
    }


def _row(bound: BoundModel) -> tuple[str, ...]:
    relations = ", ".join(bound.relations)
    return bound.name, bound.spec.table, ", ".join(bound.spec.primary_key), str(len(bound.fields)), relations


def _details(bound: BoundModel) -> "Iterator[RenderableType]":
    spec = bound.spec
    yield heading(f"{spec.name}  (table {spec.table}{f', {spec.place}' if spec.place else ''})")
    if spec.doc:
        yield indented(spec.doc)
    yield ""
    rows = [(f.name, f"{f.type}{' | None' if f.nullable else ''}", _about(f, bound)) for f in spec.fields.values()]
    yield table(("field", "type", ""), rows, indent=2)
    if bound.relations:
        yield ""
        rows = [
            (relation.name, f"list of {relation.target}" if relation.many else relation.target,
             f"{relation.target}.{relation.remote} = {spec.name}.{relation.local}")
            for relation in bound.relations.values()
        ]  # fmt: skip
        yield table(("relation", "leads to", "where"), rows, indent=2)
    if spec.indexes:
        yield ""
        yield table(("index", "fields", ""), [_index(index) for index in spec.indexes], indent=2)
    if spec.options:
        yield ""
        yield table(("option", "value"), [(name, str(value)) for name, value in spec.options.items()], indent=2)


def _about(field: FieldSpec, bound: BoundModel) -> str:
    notes = []
    if field.name in bound.spec.primary_key:
        notes.append("key, generated" if field.generated else "key")
    if field.required:
        notes.append("required")
    if field.default is not UNSET:
        notes.append(f"default {field.default if isinstance(field.default, Enum) else repr(field.default)}")
    if field.factory is not None:
        notes.append(f"default from {getattr(field.factory, '__name__', 'a function')}()")
    if field.write:
        notes.append({"create": "set on create", "update": "set on every write"}.get(field.write, field.write))
    if isinstance(field.relation, ForeignKey):
        notes.append(f"foreign key, on delete {field.relation.on_delete}")
    if field.origin not in ("user", "id", "timestamps"):
        notes.append(f"from {field.origin}")
    return ", ".join(notes)


def _index(index: IndexSpec) -> tuple[str, str, str]:
    notes = ["unique"] if index.unique else []
    notes += [f"where {index.where}"] if index.where else []
    return index.name, ", ".join(index.fields), ", ".join(notes)
