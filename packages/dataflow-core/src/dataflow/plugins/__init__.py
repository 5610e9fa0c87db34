"""What a plugin author imports: the hook marker and the descriptors.

A plugin is a module (or object) found under the entry-point group ``dataflow.plugins``, with ``dataflow_api = "1.0"``
and functions marked ``@hookimpl`` that are named after the hooks in `dataflow.plugins.hookspecs`.
"""

import pluggy

from dataflow.plugins.specs import (
    API_VERSION,
    BackendSpec,
    CommandSpec,
    DialectSpec,
    Feature,
    FieldTypeSpec,
    HealthCheck,
    MigrationEngineSpec,
    NodeSpec,
    Parameter,
    RuntimeSpec,
    SchemaRuleSpec,
    SettingSpec,
)

hookimpl = pluggy.HookimplMarker("dataflow")

__all__ = [
    "API_VERSION",
    "BackendSpec",
    "CommandSpec",
    "DialectSpec",
    "Feature",
    "FieldTypeSpec",
    "HealthCheck",
    "MigrationEngineSpec",
    "NodeSpec",
    "Parameter",
    "RuntimeSpec",
    "SchemaRuleSpec",
    "SettingSpec",
    "hookimpl",
]
