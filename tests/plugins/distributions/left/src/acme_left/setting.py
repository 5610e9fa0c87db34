"""A setting."""

from dataflow.plugins import SettingSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_settings():
    return [SettingSpec("mail_host", str, "localhost", "Where mail goes.")]
