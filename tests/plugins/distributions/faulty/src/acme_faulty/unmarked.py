"""A plugin that forgot to mark its hook."""

dataflow_api = "1.0"


def dataflow_settings():
    return []
