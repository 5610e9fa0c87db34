"""A node type without model."""

from dataflow.plugins import NodeSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_workflow_nodes():
    return [NodeSpec("MailNode", "mail", "acme_mail.nodes:MailNode")]
