"""How models and results look in a notebook: ``%load_ext dataflow.notebook`` shows them as tables.

Workflows, DataFlows and the results of a run show themselves without it. Results of single calls are plain dicts and
models plain classes, so that only the extension can tell the notebook about them; other dicts and classes stay as they
are.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final, Protocol

from dataflow.instances import live_instances
from dataflow.runtime.results import RunResults

MOST_ROWS: Final = 20
_LONGEST: Final = 80
_LISTS: Final = ("records", "groups", "entries")


class _Formatter(Protocol):
    def for_type(self, kind: type, show: Any) -> Any: ...


def load_ipython_extension(ipython: Any) -> None:
    """Show models and results as tables: what ``%load_ext dataflow.notebook`` calls."""
    formatter: _Formatter = ipython.display_formatter.formatters["text/html"]
    formatter.for_type(dict, result_html)
    formatter.for_type(RunResults, run_html)  # a dict, too
    formatter.for_type(type, model_html)


def unload_ipython_extension(ipython: Any) -> None:
    """Show them as text again: what ``%unload_ext dataflow.notebook`` calls."""
    formatter = ipython.display_formatter.formatters["text/html"]
    for kind in (dict, RunResults, type):
        formatter.pop(kind, None)


def result_html(result: Mapping[str, Any]) -> str | None:
    """Return the table of an operation's result; None: it is no list of records or groups."""
    for name in _LISTS:
        rows = result.get(name)
        if isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows):
            facts = {key: value for key, value in result.items() if key != name and value is not None}
            return f"{table_html(rows)}<div>{_facts(facts)}</div>"
    return None


def model_html(cls: type) -> str | None:
    """Return the picture of a model; None: the class is no model of a live DataFlow."""
    from dataflow.pictures import models

    for db in live_instances():
        if db.models.get(cls.__name__) is cls:
            name = cls.__name__
            boxes, relations = models.drawn(db.core.models)
            near = {name}.union(*({r.parent, r.child} for r in relations if name in (r.parent, r.child)))
            own = [relation for relation in relations if name in (relation.parent, relation.child)]
            return models.to_svg([box for box in boxes if box.name in near], own)
    return None


def run_html(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of a run's results: a row per node."""
    left = "style='text-align:left'"
    rows = "".join(
        f"<tr><th {left}>{escape(str(node))}</th><td {left}>{_outputs(outputs)}</td></tr>"
        for node, outputs in results.items()
    )
    return f"<table><thead><tr><th>node</th><th>result</th></tr></thead><tbody>{rows}</tbody></table>"


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return records as a table; at most 20 rows, and how many more there are."""
    columns = list(dict.fromkeys(key for row in rows[:MOST_ROWS] for key in row if not key.startswith("_")))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(column)) for column in columns)}</tr>" for row in rows[:MOST_ROWS])
    more = f"<div>… {len(rows) - MOST_ROWS} more</div>" if len(rows) > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _outputs(outputs: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in outputs.items() if not key.startswith("_")}
    return result_html(shown) or _facts(shown)


def _facts(facts: Mapping[str, Any]) -> str:
    return " · ".join(f"{escape(str(name))}: {_text(value)}" for name, value in facts.items())


def _cell(value: Any) -> str:
    return f"<td style='text-align:{'right' if _is_number(value) else 'left'}'>{_text(value)}</td>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "<i>NULL</i>"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = " · ".join(f"{name}: {item}" for name, item in value.items()) if isinstance(value, Mapping) else str(value)
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
