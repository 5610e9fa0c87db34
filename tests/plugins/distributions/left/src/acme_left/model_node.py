"""A node type of every model."""

from dataflow.plugins import NodeSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_nodes(model):
    return [NodeSpec(f"{model.name}MailNode", "mail", "acme_mail.nodes:Mail", model.name)]
