"""The entry point: what this package offers, without importing it."""

from dataflow.plugins import (
    CommandSpec,
    FieldTypeSpec,
    HealthCheck,
    NodeSpec,
    Parameter,
    SettingSpec,
    hookimpl,
)

dataflow_api = "1.0"


@hookimpl
def dataflow_settings():
    return [
        SettingSpec("default_label", str, "none", "Label of records that are given none."),
        SettingSpec("labels", bool, scope="model", doc="Give every record a label."),
    ]


@hookimpl
def dataflow_features(model, config):
    if not model.options.get("labels"):
        return None
    from acme_labels.feature import Labels

    return [Labels(config["default_label"])]


@hookimpl
def dataflow_nodes(model):
    if not model.options.get("labels"):
        return None
    parameters = (Parameter("id", "key", required=True), Parameter("label", "str", required=True))
    implementation = "acme_labels.nodes:Relabel"
    return [
        NodeSpec(f"{model.name}RelabelNode", "relabel", implementation, model.name, parameters, ("label",), writes=True)
    ]


@hookimpl
def dataflow_workflow_nodes():
    return [NodeSpec("ShoutNode", "shout", "acme_labels.nodes:ShoutNode", outputs=("text",))]


@hookimpl
def dataflow_field_types():
    return [FieldTypeSpec("Colour", "acme_labels.colours:Colour", "acme_labels.colours:ColourType")]


@hookimpl
def dataflow_health(db):
    async def check():
        return {"ok": True, "default": db.config["default_label"]}

    return [HealthCheck("labels", check)]


@hookimpl
def dataflow_commands():
    return [CommandSpec("labels", "List colours.", "acme_labels.cli:labels")]
