"""A plugin with a misspelt hook."""

from dataflow.plugins import hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_setings():
    return []
