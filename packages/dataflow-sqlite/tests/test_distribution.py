"""The distribution as it is installed."""

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
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "dataflow.sqlite" in loaded.split()
    assert {"aiosqlite", "sqlite3", "sqlalchemy"} & set(loaded.split()) == set()
