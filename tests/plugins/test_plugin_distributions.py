"""Plugins as strangers ship them: wheels built from ``distributions/``, installed, and found by their entry points.

One environment holds all of them, the faulty ones too; each test lets in those it is about.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.packaging
FOLDERS = sorted((Path(__file__).parent / "distributions").iterdir())
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """Build every throw-away distribution."""
    target = tmp_path_factory.mktemp("plugins")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", target, *FOLDERS)
    return {path.name.split("-")[0]: path for path in target.glob("*.whl")}


class Installation:
    """An environment in which DataFlow and the throw-away distributions are installed."""

    def __init__(self, folder):
        self.folder = folder
        self.python = folder / "bin/python"

    def start(self, *arguments, **variables):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATAFLOW_", "DATABASE_"))}
        command = [self.python, "-W", "error", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env={**clean, **variables}
        )

    def run(self, code, *, only="", **variables):
        """Run code, in which the plugins named in `only` are active besides SQLite; return what it prints."""
        done = self.start("-c", code, DATAFLOW_PLUGINS=f"sqlite,{only}", **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def error(self, only, code='DataFlow(":memory:")', **variables):
        """Return the error that code ends in, as a dict."""
        return json.loads(self.run(CATCH.replace("ACT", code), only=only, **variables))


CATCH = """
import json
from dataflow import DataFlow
from dataflow.errors import DataFlowError
try:
    ACT
except DataFlowError as error:
    print(json.dumps(error.to_dict()))
"""


@pytest.fixture(scope="session")
def installation(tmp_path_factory, wheels):
    """Install all wheels beside what the tests themselves run on."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    outer = sysconfig.get_path("purelib")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n", encoding="utf-8")
    run(*PIP, "--python", folder / "bin/python", "install", "--quiet", "--no-deps", "--no-index", *wheels.values())
    return Installation(folder)


# -- a good plugin ----------------------------------------------------------------------------------------------------
GOOD = """
import json
from dataflow import DataFlow
from dataflow.runtime import LocalRuntime
from acme_labels.colours import Colour

with DataFlow(default_label="draft") as db:
    @db.model
    class Note:
        text: str
        colour: Colour
        __dataflow__ = {"labels": True}

    workflow = db.workflow()
    workflow.add_node("ShoutNode", "shout", {"text": "ahoy"})
    workflow.add_node("NoteCreateNode", "note", {"colour": Colour("ff0000")})
    workflow.add_node("NoteRelabelNode", "relabel", {"label": "done"})
    workflow.add_node("NoteListNode", "done", {"with_label": "done"})
    workflow.add_connection("shout", "text", "note", "text")
    workflow.add_connection("note", "id", "relabel", "id")
    workflow.add_connection("relabel", "label", "done", "input")
    results, _ = LocalRuntime().execute(workflow.build())
    call = db.express_sync
    call.bulk_create("Note", [{"text": "b", "colour": Colour("00ff00")}])
    print(json.dumps({
        "created": results["note"]["label"],
        "relabelled": results["relabel"]["label"],
        "listed": [note["text"] for note in results["done"]["records"]],
        "stored": call.list("Note", with_label="draft")["records"][0]["colour"].code,
        "found": call.count("Note", {"colour": Colour("ff0000")})["count"],
        "relabel": call.call("relabel", "Note", id=2, label="done")["label"],
        "index": "ix_notes_label" in db.core.ask(db.core.dialect.list_indexes("notes")),
        "health": db.health()["checks"]["labels"],
        "setting": db.config["default_label"],
    }))
"""


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_everything_a_good_plugin_brings_works(installation, dialect, request):
    url = ":memory:" if dialect == "sqlite" else request.getfixturevalue("postgres_database")
    assert json.loads(installation.run(GOOD, only=f"{dialect},labels", DATABASE_URL=url)) == {
        "created": "draft",
        "relabelled": "done",
        "listed": ["AHOY"],
        "stored": "00ff00",
        "found": 1,
        "relabel": "done",
        "index": True,
        "health": {"ok": True, "default": "draft"},
        "setting": "draft",
    }


def test_a_setting_of_an_installed_plugin_is_read_from_the_environment(installation):
    code = 'from dataflow import DataFlow\nwith DataFlow(":memory:") as db: print(db.config["default_label"])'
    assert installation.run(code, only="labels", DATAFLOW_DEFAULT_LABEL="new") == "new\n"
    assert installation.run(code, only="labels") == "none\n"


def test_the_command_of_an_installed_plugin_runs(installation):
    program = "from dataflow.cli import main; main()"
    done = installation.start("-c", program, "labels", "3", DATAFLOW_PLUGINS="sqlite,labels")
    assert (done.stdout, done.returncode) == ("000000\n111111\n222222\n", 0)


def test_without_the_plugin_nothing_of_it_exists(installation):
    error = installation.error("", 'DataFlow(":memory:", default_label="draft")')
    assert error["code"] == "unknown-setting"
    listing = (
        "from dataflow.plugins.manager import plugin_set as s; print('labels' in s().commands, s().settings.keys())"
    )
    assert installation.run(listing).startswith("False")
    assert "default_label" not in installation.run(listing)


def test_knowing_what_a_plugin_offers_imports_none_of_it(installation):
    code = """
import sys
from dataflow.plugins.manager import plugin_set
plugins = plugin_set()
assert "labels" in plugins.commands and "ShoutNode" in plugins.workflow_nodes
assert ("model", "labels") in plugins.settings
assert plugins.dialects["sqlite"].name == "sqlite"
print(sorted(name for name in sys.modules if name.startswith(("acme_labels", "sqlalchemy", "aiosqlite", "click"))))
"""
    assert installation.run(code, only="labels") == "['acme_labels', 'acme_labels._plugin']\n"


# -- faulty ones ------------------------------------------------------------------------------------------------------
FAULTS = {
    "broken": "fails on import: ModuleNotFoundError: No module named 'acme_of_another_planet'",
    "exiting": "fails on import: SystemExit: no licence",
    "absent": "fails on import: ModuleNotFoundError: No module named 'acme_faulty.absent'",
    "modern": "needs plugin API 1.9; this workflow-dataflow-core has 1.0",
    "misspelt": "implements dataflow_setings, which is not a hook",
    "unmarked": "has a function dataflow_settings without @hookimpl, so it would never be called",
    "curious": "misuses a hook: Plugin 'curious' for hook 'dataflow_features'",
    "failing": "fails in dataflow_settings: LookupError: no settings today",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_plugin_stops_a_dataflow_and_says_which_distribution_and_how_to_disable_it(installation, name):
    error = installation.error(name)
    assert error["error"] == ("PluginError" if name == "failing" else "PluginLoadError")
    assert error["message"].startswith(f"plugin {name!r} (acme-faulty 0.3.1) {FAULTS[name]}")
    assert f"DATAFLOW_DISABLE_PLUGINS={name} or DataFlow(disable={{{name!r}}})" in error["hint"]


EVERY = "labels,broken,exiting,absent,modern,misspelt,unmarked,curious"


def test_the_way_to_disable_faulty_plugins_works(installation):
    code = 'from dataflow import DataFlow\nDataFlow(":memory:", disable={"broken", "absent"}).close(); print("opened")'
    allowed = "labels,broken,absent,modern"
    assert installation.run(code, only=allowed, DATAFLOW_DISABLE_PLUGINS="modern") == "opened\n"
    assert installation.error(allowed, DATAFLOW_DISABLE_PLUGINS="modern,absent")["message"].startswith(
        "plugin 'broken'"
    )


def test_a_tolerant_plugin_set_lists_what_is_active_broken_and_disabled(installation):
    code = """
import json
from dataflow.plugins.manager import plugin_set
plugins = plugin_set(strict=False)
print(json.dumps([[info.name, info.distribution, info.state, info.reason] for info in plugins.infos]))
assert ("instance", "default_label") in plugins.settings
"""
    infos = json.loads(installation.run(code, only=EVERY, DATAFLOW_DISABLE_PLUGINS="misspelt"))
    states = {name: (distribution, state) for name, distribution, state, _ in infos}
    assert states["core"] == ("workflow-dataflow-core", "active")
    assert states["labels"] == ("acme-labels 1.4.0", "active")
    assert states["sqlite"][1] == "active"
    assert states["misspelt"] == ("acme-faulty 0.3.1", "disabled")
    broken = {name: reason for name, _, state, reason in infos if state == "broken"}
    assert set(broken) == {"broken", "exiting", "absent", "modern", "unmarked", "curious"}
    assert all(FAULTS[name] in reason and "(fix: " in reason for name, reason in broken.items())


def test_the_program_lists_broken_plugins_and_still_runs(installation):
    program = "from dataflow.cli import main; main()"
    done = installation.start("-c", program, "plugins", "--json", DATAFLOW_PLUGINS=f"sqlite,{EVERY}")
    listed = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert listed["broken"]["state"] == "broken"
    assert FAULTS["broken"] in listed["broken"]["reason"]
    assert listed["labels"]["provides"]["commands"] == ["labels"]
    assert done.returncode == 1


# -- two in conflict --------------------------------------------------------------------------------------------------
MODEL = """
    with DataFlow(":memory:") as db:
        @db.model
        class Note:
            text: str
"""
CONFLICTS = {
    "setting": ('DataFlow(":memory:")', "the setting 'mail_host' is provided twice"),
    "scheme": ('DataFlow("mail://host")', "the URL scheme 'mail' is provided twice"),
    "node": (MODEL, "the node type 'MailNode' is provided twice"),
    "model-node": (MODEL, "the node type 'NoteMailNode' is provided twice"),
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_two_distributions_that_provide_the_same_are_both_named(installation, what):
    act, message = CONFLICTS[what]
    left, right = f"{what}-left", f"{what}-right"
    error = installation.error(f"{left},{right}", act.strip())
    assert error["error"] == "PluginConflictError"
    assert error["message"] == f"{message}: by {left!r} (acme-left 1.0) and {right!r} (acme-right 2.0)"
    assert f"DATAFLOW_DISABLE_PLUGINS={left}" in error["hint"]
    code = CATCH.replace("ACT", act.strip())
    survivor = installation.run(code, only=f"{left},{right}", DATAFLOW_DISABLE_PLUGINS=left)
    assert "provided twice" not in survivor


def test_two_distributions_with_a_plugin_of_one_name_are_both_named(installation):
    error = installation.error("twin")
    assert error["error"] == "PluginConflictError"
    assert error["message"] == "two plugins are called 'twin': from acme-left 1.0 and from acme-right 2.0"
    assert error["hint"] == "uninstall one of them, or disable both with DATAFLOW_DISABLE_PLUGINS=twin"
    opened = 'DataFlow(":memory:").close()'
    assert (
        installation.run(f"from dataflow import DataFlow; {opened}", only="twin", DATAFLOW_DISABLE_PLUGINS="twin") == ""
    )


def test_the_order_of_installation_decides_nothing(installation, wheels, tmp_path):
    for side in ("left", "right"):
        with ZipFile(wheels[f"acme_{side}"]) as archive:
            archive.extractall(tmp_path / side)
    (site,) = installation.folder.glob("lib/python*/site-packages")
    told = set()
    for order in (["left", "right"], ["right", "left"]):
        code = f"""
import sys
sys.path[:] = [*{[str(tmp_path / side) for side in order]}, *(path for path in sys.path if path != {str(site)!r})]
from importlib.metadata import entry_points
names = [point.name for point in entry_points(group="dataflow.plugins")]
found = names.index("order-left") < names.index("order-right")
from dataflow import DataFlow
DataFlow(":memory:").close()
print(found)
"""
        told.add(installation.run(code, only="order-left,order-right"))
    assert told == {"left right True\n", "left right False\n"}
