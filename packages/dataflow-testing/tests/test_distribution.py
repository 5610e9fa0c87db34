"""The distribution as it is installed."""

from importlib.metadata import version

import dataflow.testing


def test_the_version_of_the_module_is_that_of_the_distribution():
    assert dataflow.testing.__version__ == version("workflow-dataflow-testing")
