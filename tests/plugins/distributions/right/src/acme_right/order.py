"""A plugin that tells when it is asked."""

from dataflow.plugins import hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_configure():
    print("right", end=" ")
