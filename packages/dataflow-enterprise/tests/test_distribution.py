"""The distribution as it is installed."""

import json

from click.testing import CliRunner

import dataflow.enterprise
from dataflow.cli.program import program


def test_the_plugin_is_found_and_declares_its_settings():
    done = CliRunner().invoke(program, ["plugins", "--json"], prog_name="dataflow")
    assert done.exit_code == 0, done.output
    (found,) = (plugin for plugin in json.loads(done.stdout)["plugins"] if plugin["name"] == "enterprise")
    assert found["distribution"] == f"workflow-dataflow-enterprise {dataflow.enterprise.__version__}"
    assert (found["state"], found["reason"]) == ("active", "")
    declared = {"audit_logging", "multi_tenant", "protection"}
    declared |= {"tenant_database_prefix", "tenant_id_header", "tenant_isolation"}
    assert declared <= set(found["provides"]["settings"])
