"""A plugin that asks its hook for an argument that the hook does not have."""

from dataflow.plugins import hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_features(model, database):
    return []
