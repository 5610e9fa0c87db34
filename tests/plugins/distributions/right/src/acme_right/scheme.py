"""A dialect; its name is its own, one of its URL schemes is not."""

from dataflow.plugins import DialectSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_dialects():
    return [DialectSpec("right", ("right", "mail"), "acme_right.dialect:Dialect")]
