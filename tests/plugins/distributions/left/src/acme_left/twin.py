"""A plugin that does nothing, under a name that another distribution uses too."""

dataflow_api = "1.0"
