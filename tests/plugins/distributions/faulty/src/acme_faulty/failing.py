"""A plugin that loads, and fails when it is asked."""

from dataflow.plugins import hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_settings():
    raise LookupError("no settings today")
