"""The distribution as it is installed."""

import os
import subprocess
import sys


def test_finding_the_plugin_loads_no_driver_and_no_sqlalchemy():
    code = (
        "import sys; from importlib.metadata import distribution\n"
        "(point,) = distribution('workflow-dataflow-sqlite').entry_points\n"
        "assert (point.group, point.name) == ('dataflow.plugins', 'sqlite')\n"
        "point.load()\n"
        "print(*sys.modules)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # it has sqlite3
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout
    assert "dataflow.sqlite" in loaded.split()
    assert {"aiosqlite", "sqlite3", "sqlalchemy"} & set(loaded.split()) == set()
