"""The ``dataflow`` program: what it prints, its exit codes, and that nothing broken keeps it from saying so.

Most tests call it in this process; where the process itself matters (imports, terminals, signals, installed files) it
is a real one.
"""

import base64
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

import dataflow
from dataflow import DataFlow
from dataflow.cli.installation import _skew
from dataflow.cli.program import program
from dataflow.cli.values import plain, read_json
from dataflow.instances import live_instances
from dataflow.types import ValueRefused

COMMANDS = ["demo", "plugins", "doctor", "models", "nodes", "graph", "er", "shell", "run", "load", "dump", "stubs"]
SOURCE = Path(dataflow.__file__).parents[1]

SHOP = """
from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID, uuid4

from dataflow import BaseDataFlowNode, DataFlow, Factory, ForeignKey
from dataflow.workflow import WorkflowBuilder

print("noise of the import")
db = DataFlow("sqlite:///shop.db", pool_size=3)


class Colour(Enum):
    RED = "red"


@db.model
class Customer:
    \"\"\"Somebody who buys.\"\"\"

    name: str
    born: date | None = None
    seen: datetime | None = None
    photo: bytes | None = None
    key: UUID = Factory(uuid4)
    colour: Colour = Colour.RED
    meta: dict = {}
    __indexes__ = [{"name": "uq_customer_name", "fields": ["name"], "unique": True}]


@db.model
class Order:
    customer_id: Annotated[int, ForeignKey("Customer", on_delete="cascade")]
    total: Decimal
    tags: list[str] = []


@db.register_node
class Shout(BaseDataFlowNode):
    \"\"\"Say it louder.\"\"\"

    def run(self, text="nothing"):
        print("noise of a node")
        return {"text": text.upper()}


db.register_workflow("make", WorkflowBuilder().add_node("CustomerCreateNode", "ada"))
db.register_workflow("find", db.workflow().add_node("OrderListNode", "orders"))
db.register_workflow("shout", db.workflow().add_node("Shout", "loud").build())
db.register_workflow("broken", db.workflow().add_node("OrderListNode", "orders", {"limmit": 1}))
buying = db.workflow().add_node("CustomerCreateNode", "ada", {"name": "Ada"})
buying.add_node("OrderBulkCreateNode", "orders").add_connection("ada", "id", "orders", "customer_id")
db.register_workflow("buy", buying)
"""

ONE = """
from dataflow import DataFlow

db = DataFlow(":memory:")
"""


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; what a command loads or opens in this process is undone."""
    for name in os.environ:
        if name.startswith("DATAFLOW_") or name in ("DATABASE_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules, live = set(sys.modules), set(live_instances())
    yield folder
    for db in set(live_instances()) - live:
        db.close()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


@pytest.fixture
def shop() -> str:
    return str(write("shop.py", SHOP))


def call(*args: str, **options: Any) -> Result:
    return CliRunner().invoke(program, args, prog_name="dataflow", **options)


def answer(*args: str, code: int = 0) -> Any:
    """Call a command with --json and return what it printed on standard output."""
    result = call(*args, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def refusal(*args: str, code: int = 2) -> dict[str, Any]:
    """Call a command that fails, with --json and without; return the error as data. Text says the same."""
    result = call(*args, "--json")
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    lines = result.stderr.splitlines()
    error: dict[str, Any] = json.loads("\n".join(lines[lines.index("{") :]))
    assert set(error) >= {"error", "code", "message", "hint", "where"}
    spoken = call(*args)
    assert (spoken.exit_code, spoken.stdout) == (code, "")
    assert error["message"] in spoken.stderr
    assert "Traceback" not in spoken.stderr
    return error


def spawn(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program as its script does: without the current folder on the path."""
    code = "from dataflow.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        name: str,
        *,
        files: dict[str, str] | None = None,
        plugins: Sequence[str] = (),
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> None:
        """Install a distribution: its files, and the metadata that installers write.

        Args:
            name: of the distribution.
            files: path -> text.
            plugins: entry points, "name = module".
            version: of the distribution.
            requires: requirement lines.
        """
        for path, text in (files or {}).items():
            write(str(self.folder / path), text)
        metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        write(str(info / "METADATA"), "Metadata-Version: 2.1\n" + "\n".join(metadata) + "\n")
        write(str(info / "entry_points.txt"), "[dataflow.plugins]\n" + "\n".join(plugins) + "\n")
        recorded = [f"{path},{_hash(self.folder / path)},\n" for path in files or {}]
        write(str(info / "RECORD"), "".join(recorded))


def _hash(path: Path) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Site(folder)


PLUGIN = """
from dataflow.plugins import CommandSpec, hookimpl

dataflow_api = "1.0"


@hookimpl
def dataflow_commands():
    return [CommandSpec("{command}", "Greet somebody.", "{module}_cli:{command}")]
"""
GREETING = """
import click


@click.command()
@click.argument("name")
def {command}(name):
    click.echo(f"hello {{name}}")
    return 7
"""


def install_command(site: Site, name: str, command: str = "greet", body: str = GREETING) -> None:
    files = {
        f"{name}.py": PLUGIN.format(command=command, module=name),
        f"{name}_cli.py": body.format(command=command),
    }
    site.add(name, files=files, plugins=[f"{name} = {name}"])


# -- the program ------------------------------------------------------------------------------------------------------
def test_help_lists_every_command_and_the_exit_codes():
    result = call("--help")
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line.startswith("  ")]
    assert [words[0] for words in lines if words[0] in COMMANDS] == COMMANDS
    assert "Exit codes: 0 all is well, 1 a problem was found, 2 the command line is" in result.stdout
    assert "--app" in result.stdout


def test_help_loads_nothing_heavy_and_no_command():
    code = (
        "import sys; from dataflow.cli import main; sys.argv = ['dataflow', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *loaded = done.stderr.split()
    assert status == "0"
    assert "click" in loaded
    commands = {f"dataflow.cli.{name}" for name in COMMANDS}
    assert {"rich", "sqlalchemy", "structlog", "aiosqlite", "dataflow.engine", *commands} & set(loaded) == set()


def test_without_click_one_line_names_the_extra(tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/dataflow").symlink_to(SOURCE / "dataflow")
    bare = {"PYTHONPATH": str(tmp_path / "bare"), "PATH": os.environ["PATH"]}
    code = "from dataflow.cli import main; main()"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dataflow: the command line needs click and rich; install the extra 'cli': pip install")


def test_version_prints_the_version_of_core():
    assert call("--version").stdout == f"dataflow {dataflow.__version__}\n"


def test_no_command_is_a_usage_error_that_shows_the_help():
    result = call()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: dataflow [OPTIONS] COMMAND")


def test_a_misspelt_command_is_answered_with_the_right_one():
    error = refusal("modles")
    assert error["message"] == "there is no command 'modles'; did you mean 'models'?"
    assert "commands: demo, plugins" in refusal("xyz")["message"]


def test_a_misspelt_option_is_a_usage_error_as_json_too():
    error = refusal("run", "--nosuch")
    assert (error["code"], error["hint"]) == ("command-line", "see 'dataflow run --help'")


def test_json_after_two_dashes_is_an_argument():
    result = call("models", "--", "--json", "more")
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage:")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert result.stdout.splitlines()[2].strip()


def test_completion_knows_the_commands_without_importing_them(site):
    install_command(site, "acme", body="raise RuntimeError('imported')")
    complete = ShellComplete(program, {}, "dataflow", "_DATAFLOW_COMPLETE")
    assert [(item.value, item.help) for item in complete.get_completions([], "gr")] == [
        ("graph", "Draw a workflow."),
        ("greet", "Greet somebody."),
    ]
    assert "--version" in [item.value for item in complete.get_completions([], "--")]


def test_output_fits_eighty_columns_and_holds_no_escapes_or_frames(shop):
    texts = [call(*line.split()).stdout for line in (
        "--help", "demo", "plugins", "doctor --settings", f"doctor --app {shop}", "nodes", f"nodes --app {shop}",
        f"nodes Order --app {shop}", f"models --app {shop}", f"models Customer --app {shop}",
    )]  # fmt: skip
    assert all(texts)
    for line in "\n".join(texts).splitlines():
        assert len(line) <= 80
        assert line == line.rstrip()
        assert "\x1b" not in line
        assert not any("─" <= letter <= "╿" for letter in line)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def on_terminal(*args: str, **env: str) -> str:
    """Run the program with a terminal as standard output and return what it received."""
    ours, theirs = pty.openpty()
    code = "from dataflow.cli import main; main()"
    environment = {**os.environ, "TERM": "xterm-256color", **env}
    process = subprocess.Popen([sys.executable, "-P", "-c", code, *args], stdout=theirs, env=environment)
    os.close(theirs)
    received = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    assert process.wait(30) == 0
    return received.decode()


def test_a_terminal_gets_bold_titles_unless_no_color_is_set():
    assert "\x1b[1m" in on_terminal("plugins")
    quiet = on_terminal("plugins", NO_COLOR="1")
    assert "\x1b" not in quiet
    assert quiet.split()[:2] == ["plugin", "state"]


def test_a_pipe_that_cannot_write_unicode_still_gets_text():
    done = spawn("nodes", "AsyncSQLDatabaseNode", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    done = spawn("nodes", "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert any("…" in node["doc"] for node in json.loads(done.stdout)["generated"])


def test_a_reader_that_stops_early_causes_no_traceback():
    code = "from dataflow.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "nodes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert process.returncode == 1


# -- plugins ----------------------------------------------------------------------------------------------------------
def test_plugins_lists_what_is_active_and_what_it_provides():
    data = answer("plugins")
    assert (data["ok"], data["problems"]) == (True, [])
    by_name = {plugin["name"]: plugin for plugin in data["plugins"]}
    assert by_name["core"]["provides"]["commands"] == sorted(COMMANDS)
    assert by_name["sqlite"]["provides"]["dialects"] == ["sqlite"]
    assert (by_name["sqlite"]["state"], by_name["sqlite"]["reason"]) == ("active", "")
    assert set(by_name["sqlite"]) == {"name", "distribution", "state", "reason", "hooks", "provides"}
    text = call("plugins")
    assert text.exit_code == 0
    assert f"{len(COMMANDS)} commands" in text.stdout
    assert "1 dialect," in text.stdout


def test_a_disabled_plugin_is_no_problem(monkeypatch):
    monkeypatch.setenv("DATAFLOW_DISABLE_PLUGINS", "sqlite")
    plugins = {plugin["name"]: plugin for plugin in answer("plugins")["plugins"]}
    assert (plugins["sqlite"]["state"], plugins["sqlite"]["reason"]) == ("disabled", "disabled by name")
    assert "disabled by name" in call("plugins").stdout


HEAD = "from dataflow.plugins import SettingSpec, hookimpl\ndataflow_api = '1.0'\n@hookimpl\n"
BROKEN = {
    "fails_on_import": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "ends_the_program": ("raise SystemExit(3)", "SystemExit: 3"),
    "is_too_new": ("dataflow_api = '9.0'", "needs plugin API 9.0"),
    "misspells": (f"{HEAD}def dataflow_comands(): ...", "implements dataflow_comands, which is not a hook"),
    "fails_in_a_hook": (
        f"{HEAD}def dataflow_commands(): return 1 / 0",
        "fails in dataflow_commands: ZeroDivisionError",
    ),
    "fails_in_another_hook": (
        f"{HEAD}def dataflow_settings(): return 1 / 0",
        "fails in dataflow_settings: ZeroDivisionError",
    ),
    "returns_nonsense": (
        f"{HEAD}def dataflow_commands(): return ['greet']",
        "returns str in dataflow_commands, not CommandSpec",
    ),
    "claims_a_setting": (
        f"{HEAD}def dataflow_settings(): return [SettingSpec('echo')]",
        "setting 'echo' is provided twice",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_stops_nothing(site, name):
    body, fault = BROKEN[name]
    site.add(f"dist-{name}", files={f"{name}.py": body}, plugins=[f"{name} = {name}"])

    assert call("--help").exit_code == 0
    assert call("nodes").exit_code == 0
    for command in ("plugins", "doctor"):
        result = call(command)
        assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
        assert fault in " ".join(result.stdout.split())
        assert name in result.stdout
        assert f"DATAFLOW_DISABLE_PLUGINS={name}" in "".join(result.stdout.split())
    problems = answer("plugins", code=1)["problems"]
    assert any(fault in problem["message"] for problem in problems)


def test_help_points_to_the_plugins_command_when_one_is_broken(site):
    assert "Problems with plugins" not in call("--help").stdout
    site.add("bad", files={"bad_plugin.py": "1 / 0"}, plugins=["bad = bad_plugin"])
    assert "Problems with plugins: 1; see 'dataflow plugins'." in call("--help").stdout


@pytest.mark.parametrize("variable", ["DATAFLOW_PLUGINS", "DATAFLOW_DISABLE_PLUGINS"])
def test_a_variable_that_names_no_plugin_is_reported(monkeypatch, variable):
    monkeypatch.setenv(variable, "sqlit")
    assert call("--help").exit_code == 0
    result = call("plugins")
    assert result.exit_code == 1
    assert "no installed plugin is called 'sqlit'" in result.stdout
    assert "did you mean 'sqlite'?" in result.stdout
    assert call("doctor").exit_code == 1


def test_a_plugins_command_is_in_the_help_and_imported_only_when_it_runs(site):
    install_command(site, "acme")
    assert re.search(r"^  greet +Greet somebody\.$", call("--help").stdout, re.MULTILINE)
    assert "acme_cli" not in sys.modules
    result = call("greet", "Ada")
    assert (result.exit_code, result.stdout) == (0, "hello Ada\n")  # what it returns is not an exit code
    assert "acme_cli" in sys.modules


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = 1", "AttributeError"),
        ("greet = 5", "is a int, not a click command"),
    ],
)
def test_a_command_that_cannot_be_loaded_is_an_error_that_names_its_plugin(site, body, fault):
    install_command(site, "acme", body=body)
    assert call("--help").exit_code == 0
    error = refusal("greet", "Ada", code=1)
    assert error["code"] == "plugin-load"
    assert "the command 'greet' of plugin 'acme'" in error["message"]
    assert fault in error["message"]


def test_two_plugins_with_one_command_are_a_conflict(site):
    install_command(site, "acme")
    install_command(site, "zeta")
    assert call("--help").exit_code == 0
    error = refusal("greet", "Ada", code=1)
    assert error["code"] == "plugin-conflict"
    assert error["message"] == "the command 'greet' is provided twice: by 'acme' (acme 1.0) and 'zeta' (zeta 1.0)"
    assert [problem["message"] for problem in answer("plugins", code=1)["problems"]] == [error["message"]]


def test_a_plugin_cannot_take_a_command_of_core(site):
    install_command(site, "acme", command="doctor")
    result = call("doctor")
    assert result.exit_code == 1
    assert "the command 'doctor' is provided twice: by 'core'" in " ".join(result.stdout.split())


# -- doctor -----------------------------------------------------------------------------------------------------------
def checks(*args: str, code: int = 0) -> dict[str, dict[str, Any]]:
    data = answer("doctor", *args, code=code)
    assert data["ok"] is (code == 0)
    return {check["name"]: check for check in data["checks"]}


def test_doctor_finds_nothing_wrong_here_and_leaves_nothing_behind(desk):
    found = checks()
    assert list(found) == ["packages", "files", "plugins", "settings", "database"]
    assert all(set(check) == {"name", "ok", "summary", "details", "problems"} for check in found.values())
    assert found["packages"]["details"]["sqlite"] == sqlite3.sqlite_version
    assert found["packages"]["details"]["workflow-dataflow-core"] == dataflow.__version__
    assert found["database"]["details"] == {
        "url": "sqlite:///dataflow.db",
        "source": "the default, without DATABASE_URL",
        "file": str(desk / "dataflow.db"),
        "exists": False,
    }
    assert call("doctor").stdout.endswith("no problems\n")
    assert list(desk.iterdir()) == []


def test_doctor_opens_an_existing_database_without_changing_it(desk, monkeypatch):
    with closing(sqlite3.connect("old.db")) as raw:
        raw.execute("CREATE TABLE things (id INTEGER PRIMARY KEY)")
    before = (desk / "old.db").read_bytes()
    monkeypatch.setenv("DATABASE_URL", "sqlite:///old.db")
    details = checks()["database"]["details"]
    assert (details["source"], details["file"], details["tables"]) == ("DATABASE_URL", str(desk / "old.db"), 1)
    assert details["sqlite"] == sqlite3.sqlite_version
    assert (desk / "old.db").read_bytes() == before
    assert [path.name for path in desk.iterdir()] == ["old.db"]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("shop.db", "the database URL is not of the form scheme://…"),
        ("sqlite:///nosuch/shop.db", "does not exist"),
        ("sqlite:///notes.txt", "the database check fails: the file is not a SQLite database"),
        ("postgresql://ada:hunter2@example.com/shop", "no active plugin handles postgresql:// URLs"),
    ],
)
def test_doctor_says_what_is_wrong_with_the_url_without_its_password(monkeypatch, url, fault):
    write("notes.txt", "not a database, but long enough to be taken for one " * 50)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("DATAFLOW_DISABLE_PLUGINS", "postgres")
    result = call("doctor")
    assert result.exit_code == 1
    assert fault in " ".join(result.stdout.split())
    assert "DATABASE_URL" in result.stdout
    assert "hunter2" not in result.stdout + json.dumps(checks(code=1))


def test_doctor_reports_variables_that_nothing_reads_or_that_do_not_fit(monkeypatch):
    monkeypatch.setenv("DATAFLOW_POOLSIZE", "3")
    monkeypatch.setenv("DATAFLOW_DISABLE_PLUGINS", "enterprise")
    monkeypatch.setenv("DATAFLOW_MULTI_TENANT", "1")
    monkeypatch.setenv("DATAFLOW_ECHO", "perhaps")
    problems = checks(code=1)["settings"]["problems"]
    assert [(problem["code"], problem["message"].split()[0]) for problem in problems] == [
        ("unread-variable", "DATAFLOW_MULTI_TENANT"),
        ("unread-variable", "DATAFLOW_POOLSIZE"),
        ("bad-setting", "the"),
    ]
    assert "workflow-dataflow[enterprise]" in problems[0]["hint"]
    assert problems[1]["hint"] == "did you mean DATAFLOW_POOL_SIZE?"
    assert problems[2]["where"] == {"variable": "DATAFLOW_ECHO"}
    assert "where: variable DATAFLOW_ECHO" in call("doctor").stdout


def test_doctor_lists_every_setting_with_its_source(monkeypatch, shop):
    monkeypatch.setenv("DATAFLOW_MONITORING", "yes")
    monkeypatch.setenv("DATAFLOW_POOL_SIZE", "7")
    settings = {setting["name"]: setting for setting in answer("doctor", "--settings")["settings"]}
    with DataFlow(":memory:") as db:
        assert {name for name, setting in settings.items() if setting["scope"] == "instance"} == set(db.config)
    assert settings["monitoring"] == {
        "name": "monitoring",
        "scope": "instance",
        "type": "bool",
        "default": False,
        "value": True,
        "source": "environment",
        "variable": "DATAFLOW_MONITORING",
        "choices": [],
        "minimum": None,
        "doc": "Count and time operations; see db.stats().",
    }
    assert (settings["echo"]["source"], settings["sqlite_synchronous"]["choices"][0]) == ("default", "OFF")

    with_app = {s["name"]: s for s in answer("doctor", "--settings", "--app", shop)["settings"]}
    assert (with_app["pool_size"]["value"], with_app["pool_size"]["source"]) == (3, "app")  # keywords win
    assert with_app["monitoring"]["source"] == "environment"
    assert answer("doctor")["settings"] is None
    assert "pool_size = 7  (int; from the environment, default 20;" in call("doctor", "--settings").stdout


def test_doctor_hides_secret_settings_and_lists_options_of_models_and_variables(site, monkeypatch):
    body = (
        f"{HEAD}def dataflow_settings():\n"
        "    return [SettingSpec('vault_token', str, 'hunter2', 'Opens the vault.'),"
        " SettingSpec('slug', str, None, 'Field to make slugs of.', scope='model'),"
        " SettingSpec('vault_mirror', str, None, 'Where tests look.', scope='process')]"
    )
    site.add("vault", files={"vault_plugin.py": body}, plugins=["vault = vault_plugin"])
    settings = {setting["name"]: setting for setting in answer("doctor", "--settings")["settings"]}
    assert (settings["vault_token"]["value"], settings["vault_token"]["default"]) == ("***", "***")
    assert (settings["slug"]["scope"], settings["slug"]["source"], settings["slug"]["variable"]) == (
        "model",
        None,
        None,
    )
    monkeypatch.setenv("DATAFLOW_VAULT_MIRROR", "https://me:hunter2@host")
    text = call("doctor", "--settings").stdout
    assert "hunter2" not in text
    assert "slug, an option of models  (str; default None)" in text
    assert "DATAFLOW_VAULT_MIRROR  (str; default None)" in text
    assert "no setting is called that" not in text


def test_doctor_looks_at_the_database_of_an_app(desk, shop, monkeypatch):
    before = checks("--app", shop)
    assert before["app"]["details"]["models"] == ["Customer", "Order"]
    assert before["database"]["summary"].endswith("shop.db does not exist yet")
    assert not (desk / "shop.db").exists()
    monkeypatch.setenv("DATABASE_URL", "sqlite:///shop.db")
    assert call("run", "make", "--app", shop, "--param", 'ada.name="Ada"').exit_code == 0
    details = checks("--app", shop)["database"]["details"]
    assert (details["tables"], details["journal_mode"]) == (2, "wal")  # with the related model's
    assert details["source"] == "shop.py:db (the same as DATABASE_URL)"


def test_doctor_takes_an_app_that_has_closed_its_database(monkeypatch):
    write("done.py", ONE + "db.close()\n")
    assert "the app closed it" in checks("--app", "done.py")["database"]["summary"]


def test_a_broken_app_is_a_finding_of_doctor_and_a_missing_one_a_usage_error():
    write("broken.py", "import json\njson.loads('{')\n")
    check = checks("--app", "broken.py", code=1)["app"]
    assert check["problems"][0]["where"] == {"file": "broken.py:2"}
    assert "where: file broken.py:2" in call("doctor", "--app", "broken.py").stdout
    assert refusal("doctor", "--app", "nosuch.py")["code"] == "bad-app"


def test_doctor_reports_health_checks_of_plugins(site):
    body = """
        from dataflow.plugins import HealthCheck, hookimpl

        dataflow_api = "1.0"

        async def queue():
            return {"ok": False, "error": "nobody listens", "waiting": 3}

        @hookimpl
        def dataflow_health(db):
            return [HealthCheck("queue", queue)]
    """
    site.add("queue", files={"queue_plugin.py": dedent(body)}, plugins=["queue = queue_plugin"])
    write("app.py", ONE)
    done = spawn("doctor", "--app", "app.py", "--json")
    assert done.returncode == 1
    check = json.loads(done.stdout)["checks"][-1]
    assert check["problems"][0]["message"] == "the queue check fails: nobody listens"
    assert check["details"]["queue"] == {"error": "nobody listens", "waiting": 3}


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        ("workflow-dataflow-core>=0.1,<1", True),
        ("Workflow_Dataflow.Core [cli] (>=0.1.0rc1)", True),
        ("workflow-dataflow-core==0.1", True),
        ("workflow-dataflow-core", True),
        ("workflow-dataflow-core!=0.1.0", False),
        ("workflow-dataflow-core>=0.1,<0.1.0", False),
        ("workflow-dataflow-core>=0.10", False),
        ("workflow-dataflow-core<=0.0.9", False),
        ("workflow-dataflow-core>0.1", False),
        ("workflow-dataflow-core>=99; extra == 'new'", True),  # asked for by nobody
        ("workflow-dataflow-sqlite>=99", True),  # not our business
    ],
)
def test_version_skew_between_a_part_and_core_is_found(requirement, fits):
    messages = [problem.message for problem in _skew("workflow-dataflow-extra", "2.5", requirement, "0.1.0")]
    assert [message.split(" needs ")[0] for message in messages] == ([] if fits else ["workflow-dataflow-extra 2.5"])


@pytest.mark.parametrize("name", ["workflow-dataflow-extra", "acme"])
def test_doctor_checks_what_parts_and_plugins_need_of_core(site, name):
    plugin = "from dataflow.plugins import hookimpl\ndataflow_api = '1.0'\n"
    site.add(name, files={"acme.py": plugin}, plugins=["acme = acme"], requires=["workflow-dataflow-core>=99"])
    check = checks(code=1)["packages"]
    assert check["details"][name] == "1.0"
    (problem,) = check["problems"]
    expected = f"{name} 1.0 needs workflow-dataflow-core >=99; {dataflow.__version__} is installed"
    assert (problem["code"], problem["message"]) == ("version-skew", expected)


def test_metadata_older_than_the_files_is_version_skew(site):
    site.add("workflow-dataflow-core", version="0.0.1")
    messages = [problem["message"] for problem in checks(code=1)["packages"]["problems"]]
    assert f"workflow-dataflow-core 0.0.1 is installed, but the files in use are of {dataflow.__version__}" in messages


def test_doctor_finds_a_strangers_files_in_the_package(site):
    site.add("dataflow-core", version="3.1", files={f"dataflow/{name}.py": "x = 1\n" for name in "abcde"})
    write(str(site.folder / "dataflow/left_over.py"), "x = 1\n")
    write(str(site.folder / "dataflow/__pycache__/a.cpython-311.pyc"), "cached")
    write(str(site.folder / "dataflow/.hidden"), "an editor's")
    done = spawn("doctor", "--json")  # the package finds its folders when it is imported
    assert (done.returncode, done.stderr) == (1, "")
    check = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "files")
    assert len(check["details"]["foreign"]) == 6
    orphan, claimed = sorted(check["problems"], key=lambda problem: len(problem["where"]))
    assert orphan["message"] == "files of the package dataflow are not DataFlow's own: dataflow/left_over.py"
    assert claimed["message"] == (
        "files of the package dataflow are not DataFlow's own:"
        " dataflow/a.py, dataflow/b.py, dataflow/c.py and 2 more (from dataflow-core 3.1)"
    )
    assert claimed["hint"] == "uninstall dataflow-core, then reinstall DataFlow's packages"


def test_doctor_finds_files_that_were_changed_replaced_or_lost_after_an_installation(site, monkeypatch):
    shutil.copytree(SOURCE / "dataflow", site.folder / "dataflow", ignore=shutil.ignore_patterns("__pycache__"))
    paths = [path.relative_to(site.folder) for path in (site.folder / "dataflow").rglob("*") if path.is_file()]
    files = {path.as_posix(): (site.folder / path).read_text() for path in paths}
    site.add("workflow-dataflow-core", version=dataflow.__version__, files=files)
    monkeypatch.setattr(dataflow, "__path__", [*dataflow.__path__, str(site.folder / "dataflow")])
    assert checks()["files"]["details"]["files"] >= len(files)

    with (site.folder / "dataflow/naming.py").open("a") as file:
        file.write("# patched\n")
    (site.folder / "dataflow/py.typed").unlink()
    site.add("flow-tools", files={"dataflow/types.py": "x = 1\n"})
    check = checks(code=1)["files"]
    assert [Path(path).name for path in check["details"]["changed"]] == ["naming.py", "types.py"]
    assert [Path(path).name for path in check["details"]["missing"]] == ["py.typed"]
    assert [(problem["code"], problem["message"].partition(": ")[2]) for problem in check["problems"]] == [
        ("changed-file", "dataflow/naming.py"),
        ("changed-file", "dataflow/types.py (from flow-tools 1.0)"),
        ("missing-file", "dataflow/py.typed"),
    ]


# -- --app ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reference", ["one.py", "one.py:db", "one:db", "one", "./one.py"])
def test_app_takes_files_and_modules_with_and_without_a_name(reference):
    write("one.py", ONE)
    assert answer("models", "--app", reference)["models"] == []
    assert "has no models yet" in call("models", "--app", reference).stdout


def test_app_comes_from_the_environment_too(monkeypatch, shop):
    monkeypatch.setenv("DATAFLOW_APP", shop)
    assert answer("models")["app"] == "shop.py:db"


def test_app_in_a_package_may_use_relative_imports_and_siblings():
    write("kit/__init__.py", "")
    write("kit/base.py", ONE)
    write("kit/deep/__init__.py", "")
    write("kit/deep/app.py", "from ..base import db\n")
    write("plain/app.py", "from helper import db\n")
    write("plain/helper.py", ONE)
    for reference in ("kit/deep/app.py", "kit.deep.app:db", "kit.base", "kit/base.py:db", "plain/app.py"):
        assert call("models", "--app", reference).exit_code == 0, reference


def test_app_may_be_called_like_something_installed():
    write("dataflow.py", SHOP)
    assert [model["name"] for model in answer("models", "--app", "dataflow.py")["models"]] == ["Customer", "Order"]


def test_what_an_app_prints_while_it_is_imported_goes_to_standard_error(shop):
    result = call("models", "--app", shop, "--json")
    assert json.loads(result.stdout)["app"] == "shop.py:db"
    assert result.stderr == "noise of the import\n"


@pytest.mark.parametrize(
    ("files", "app", "message", "hint"),
    [
        ({}, None, "this command needs to know your DataFlow", "add --app path/to/file.py"),
        ({"shop.py": ONE}, "shpo.py", "there is no file 'shpo.py'", "did you mean shop.py?"),
        ({}, "shop.py", "there is no file 'shop.py'", "give a path relative to the current folder"),
        ({"none.py": "x = 1"}, "none.py", "none.py has no DataFlow among its global names", "db = DataFlow("),
        (
            {"two.py": ONE + "other = DataFlow(':memory:')\n"},
            "two.py",
            "two.py has 2 DataFlow instances",
            "say which: --app two.py:db or --app two.py:other",
        ),
        ({"one.py": ONE}, "one.py:dd", "'dd' in one.py does not exist", "write one.py:db"),
        ({"one.py": ONE}, "one.py:DataFlow", "'DataFlow' in one.py is not a DataFlow", "write one.py:db"),
        ({}, "nosuch.module:db", "there is no module 'nosuch'", "write path/to/file.py"),
        ({"sub/one.py": ONE}, "sub/one", "'sub/one' is neither a file nor a module", "did you mean 'sub/one.py'?"),
    ],
)
def test_an_app_that_is_not_there_is_a_usage_error_that_says_what_to_type(files, app, message, hint):
    for name, text in files.items():
        write(name, text)
    error = refusal("models", *(["--app", app] if app else []))
    assert error["message"] == message
    assert hint in error["hint"]


@pytest.mark.parametrize(
    ("body", "message", "place"),
    [
        ("x = 1\nimport nosuchmodule\n", "ModuleNotFoundError: No module named 'nosuchmodule'", "broken.py:2"),
        ("x = (\n", "SyntaxError: '(' was never closed", "broken.py:1"),
        ("import json\n\n\njson.loads('{')\n", "JSONDecodeError", "broken.py:4"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", "ZeroDivisionError", "broken.py:2"),
        ("import sys\nsys.exit(3)\n", "the app ends the program while it is imported", "broken.py:2"),
        ("import helper\n", "RuntimeError: helpless", "helper.py:1"),
        ("from dataflow import DataFlow\n\ndb = DataFlow('foo://x')\n", "foo:// URLs", "broken.py:3"),
        (ONE + "@db.model\nclass Bad:\n    x: set\n", "set is not a field type", "broken.py:5"),
    ],
)
def test_an_app_that_fails_on_import_is_a_problem_with_its_place(body, message, place):
    write("broken.py", body)
    write("helper.py", "raise RuntimeError('helpless')\n")
    error = refusal("models", "--app", "broken.py", code=1)
    assert message in error["message"]
    assert error["where"]["file"] == place


# -- models and nodes -------------------------------------------------------------------------------------------------
def test_models_lists_tables_keys_and_relations(shop):
    lines = call("models", "--app", shop).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["model", "table", "key", "fields", "relations"],
        ["Customer", "customers", "id", "10", "orders"],
        ["Order", "orders", "id", "6", "customer"],
    ]


def test_models_describes_one_model(shop):
    text = call("models", "Order", "--app", shop).stdout
    for line in (
        "customer_id int required, foreign key, on delete cascade",
        "total Decimal required",
        "tags list[str] default []",
        "id int key, generated",
        "updated_at datetime set on every write",
        "customer Customer Customer.id = Order.customer_id",
    ):
        assert line in [" ".join(found.split()) for found in text.splitlines()]
    text = call("models", "Customer", "--app", shop).stdout
    for part in (
        "Somebody who buys.",
        "default from uuid4()",
        "default Colour.RED",
        "uq_customer_name  name    unique",
    ):
        assert part in text


def test_models_as_json_has_a_stable_shape(shop):
    data = answer("models", "Customer", "--app", shop)
    (model,) = data["models"]
    assert set(model) == {
        "name", "table", "doc", "place", "primary_key", "fields", "relations", "indexes", "options",
    }  # fmt: skip
    fields = {field.pop("name"): field for field in model["fields"]}
    assert fields["colour"] == {
        "type": "Colour",
        "nullable": False,
        "required": False,
        "default": "red",
        "factory": None,
        "generated": False,
        "set_by_dataflow": None,
        "origin": "user",
        "foreign_key": False,
    }
    assert fields["key"]["factory"] == "uuid4"
    assert model["relations"] == [
        {"name": "orders", "target": "Order", "many": True, "local": "id", "remote": "customer_id"}
    ]
    assert model["indexes"][0]["unique"] is True


def test_an_unknown_model_is_a_usage_error(shop):
    assert refusal("models", "Odrer", "--app", shop)["hint"] == "did you mean 'Order'?"
    write("one.py", ONE)
    assert refusal("models", "Order", "--app", "one.py")["hint"] == "one.py:db has no models yet"


def test_nodes_without_an_app_tells_of_free_nodes_and_of_names_to_come():
    data = answer("nodes")
    assert {node["type"] for node in data["nodes"]} == {"AsyncSQLDatabaseNode", "TransactionScopeNode"}
    assert data["app"] is None
    with DataFlow(":memory:") as db:

        @db.model
        class Note:
            text: str

        generated = [node["type"].format(Model="Note") for node in data["generated"]]
        assert generated == list(db.core.model("Note").nodes)
    text = call("nodes").stdout
    assert "UserBulkUpsertNode" in text
    assert "query" in text
    assert "User" not in call("nodes", "TransactionScopeNode").stdout
    error = refusal("nodes", "OrderListNode")
    assert error["hint"].endswith("those of a model need --app path/to/file.py")


def test_nodes_with_an_app_lists_all_and_describes_those_of_a_model(shop):
    data = answer("nodes", "Order", "--app", shop)
    by_type = {node["type"]: node for node in data["nodes"]}
    create = by_type["OrderCreateNode"]
    assert (create["model"], create["operation"], create["writes"]) == ("Order", "create", True)
    parameters = {parameter["name"]: parameter for parameter in create["parameters"]}
    assert (parameters["total"]["type"], parameters["total"]["required"]) == ("Decimal", True)
    assert create["outputs"] == ["id", "customer_id", "total", "tags", "created_at", "updated_at"]
    assert data["generated"] == []

    every = {node["type"] for node in answer("nodes", "--app", shop)["nodes"]}
    assert every > {*by_type, "CustomerReadNode", "Shout", "TransactionScopeNode"}
    overview = call("nodes", "--app", shop).stdout
    assert "Say it louder." in overview
    assert "without a model" in overview


def test_nodes_describes_a_single_node(shop):
    text = call("nodes", "OrderBulkCreateNode", "--app", shop).stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "data list[dict] required The rows." in lines
    assert any(line.startswith("results: created, updated, skipped") for line in lines)
    assert "results: known only when it runs" in call("nodes", "Shout", "--app", shop).stdout
    assert refusal("nodes", "OrderLisNode", "--app", shop)["hint"] == "did you mean 'OrderListNode'?"


# -- graph and run ----------------------------------------------------------------------------------------------------
def test_graph_prints_mermaid(shop):
    text = call("graph", "buy", "--app", shop).stdout
    assert text.startswith("flowchart TD\n")
    assert "OrderBulkCreateNode" in text
    data = answer("graph", "buy", "--app", shop)
    assert data["mermaid"].strip() == text.strip()
    assert data["nodes"][0] == {"id": "ada", "type": "CustomerCreateNode"}
    assert data["connections"] == [{"source": "ada", "output": "id", "target": "orders", "input": "customer_id"}]
    assert (data["svg"], data["svg_file"]) == (None, None)


def test_graph_writes_svg_to_a_file_or_to_standard_output(shop):
    result = call("graph", "buy", "--app", shop, "--svg", "buy.svg")
    assert (result.exit_code, result.stdout) == (0, "")
    picture = Path("buy.svg").read_text()
    assert ET.fromstring(picture).tag.endswith("svg")
    assert call("graph", "buy", "--app", shop, "--svg", "-").stdout.strip() == picture.strip()
    assert answer("graph", "buy", "--app", shop, "--svg", "-")["svg"] == picture
    assert answer("graph", "buy", "--app", shop, "--svg", "b.svg")["svg_file"] == "b.svg"
    assert refusal("graph", "buy", "--app", shop, "--svg", "no/such/folder.svg")["code"] == "bad-file"


def test_er_prints_mermaid_or_writes_svg(shop):
    text = call("er", "--app", shop).stdout
    assert text.startswith("erDiagram\n")
    assert '"Customer" ||--o{ "Order" : "customer / orders"' in text
    data = answer("er", "--app", shop)
    assert data["mermaid"].strip() == text.strip()
    assert [model["name"] for model in data["models"]] == ["Customer", "Order"]
    assert data["relations"][0]["names"] == ["customer", "orders"]
    assert call("er", "--app", shop, "--svg", "er.svg").stdout == ""
    assert call("er", "--app", shop, "--svg", "-").stdout.strip() == Path("er.svg").read_text().strip()
    assert refusal("er", "--app", shop, "--svg", "no/such/folder.svg")["code"] == "bad-file"


@pytest.mark.parametrize("command", ["graph", "run"])
def test_a_workflow_that_is_not_there_is_a_usage_error(shop, command):
    assert refusal(command, "--app", shop)["hint"] == "name one of them: make, find, shout, broken, buy"
    assert refusal(command, "shot", "--app", shop)["hint"] == "did you mean 'shout'?"
    write("one.py", ONE)
    assert "db.register_workflow(" in refusal(command, "--app", "one.py")["hint"]


@pytest.mark.parametrize("command", ["graph", "run"])
def test_a_workflow_with_problems_lists_them(shop, command):
    error = refusal(command, "broken", "--app", shop, code=1)
    assert error["code"] == "workflow-build"
    assert error["problems"][0]["hint"] == "did you mean 'limit'?"
    assert "did you mean 'limit'?" in call(command, "broken", "--app", shop).stderr


def test_run_prints_results_as_plain_json_and_nothing_else(shop):
    result = call("run", "shout", "--app", shop, "--param", 'loud.text="hé"')
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["results"] == {"loud": {"text": "HÉ"}}
    assert (data["workflow"], len(data["run_id"])) == ("shout", 32)
    assert result.stderr == "noise of the import\nnoise of a node\n"
    assert answer("run", "shout", "--app", shop)["results"] == {"loud": {"text": "NOTHING"}}


def test_run_takes_the_only_workflow_without_a_name():
    write("one.py", ONE + "db.register_workflow('it', db.workflow().add_node('TransactionScopeNode', 's')"
          ".add_node('AsyncSQLDatabaseNode', 'q', {'query': 'SELECT 1 AS one'}))\n")  # fmt: skip
    assert answer("run", "--app", "one.py")["results"]["q"]["result"]["data"] == [{"one": 1}]


def test_run_reads_values_by_what_the_field_takes(shop):
    values = {
        "name": '"Ada"',
        "born": '"1815-12-10"',
        "seen": '"2024-01-01T02:00:00+02:00"',
        "photo": '"aGk="',
        "key": '"12345678-1234-5678-1234-567812345678"',
        "meta": '{"total": 1.5, "born": "1815-12-10"}',
    }
    params = [part for name, text in values.items() for part in ("--param", f"ada.{name}={text}")]
    ada = answer("run", "make", "--app", shop, *params)["results"]["ada"]
    assert {name: ada[name] for name in [*values, "colour"]} == {
        "name": "Ada",
        "born": "1815-12-10",
        "seen": "2024-01-01T00:00:00+00:00",
        "photo": "aGk=",
        "key": "12345678-1234-5678-1234-567812345678",
        "meta": {"born": "1815-12-10", "total": 1.5},
        "colour": "red",
    }
    with closing(sqlite3.connect("shop.db")) as raw:
        assert raw.execute("SELECT photo, born FROM customers").fetchall() == [(b"hi", "1815-12-10")]


def test_run_keeps_exact_numbers_in_rows_and_filters(shop):
    rows = '[{"total": 0.10000000000000000555}, {"total": "2.50", "tags": ["x"]}, {"total": 3}]'
    results = answer("run", "buy", "--app", shop, "--param", f"orders.data={rows}")["results"]
    assert results["orders"]["created"] == 3
    filters = {
        '{"total": 0.10000000000000000555}': ["0.10000000000000000555"],
        '{"total": {"$gte": 2.5}, "tags": {"$contains": "x"}}': ["2.5"],
        '{"$or": [{"total": {"$in": ["2.50"]}}, {"customer": {"name": "Nobody"}}]}': ["2.5"],
        '{"customer.name": "Ada", "total": {"$type": "decimal", "value": "3"}}': ["3"],
    }
    for document, totals in filters.items():
        found = answer("run", "find", "--app", shop, "--param", f"orders.filter={document}")["results"]["orders"]
        assert [record["total"] for record in found["records"]] == totals, document


@pytest.mark.parametrize(
    ("param", "message", "hint"),
    [
        ("ada", "--param takes NODE.INPUT=JSON", "write --param create.age=36"),
        ("ada=1", "--param takes NODE.INPUT=JSON", "write --param create.age=36"),
        ("ada.name=Ada", "--param ada.name is not JSON", "--param 'ada.name=\"…\"'"),
        ("ada.meta=NaN", "--param ada.meta is not JSON", "double quotes"),
        ('ad.name="Ada"', "there is no node 'ad'", "did you mean 'ada'?"),
        ('ada.nam="Ada"', "there is no input ada.nam", "did you mean 'name'?"),
        ('ada.born="yesterday"', "--param ada.born: expected date, got text that is not ISO 8601", "'2025-01-31'"),
        ('ada.photo="?"', "--param ada.photo: expected bytes, got text that is not base64", "base64"),
        ('ada.born={"$type": "moon"}', "--param ada.born: unknown value type 'moon' in JSON", "known: datetime"),
        ("ada.born=null", "the workflow needs ada.name", "add --param ada.name=…"),
    ],
)
def test_a_parameter_that_cannot_be_read_is_a_usage_error(desk, shop, param, message, hint):
    error = refusal("run", "make", "--app", shop, "--param", param)
    assert error["message"] == message
    assert hint in error["hint"]
    assert not (desk / "shop.db").exists()


def test_a_parameter_given_twice_is_a_usage_error(shop):
    twice = ["--param", 'ada.name="Ada"', "--param", 'ada.name="Eve"']
    assert refusal("run", "make", "--app", shop, *twice)["message"] == "--param ada.name is given twice"


def test_a_run_that_fails_is_a_problem_with_its_node(shop):
    error = refusal("run", "make", "--app", shop, "--param", "ada.name=1", code=1)
    assert (error["code"], error["where"]["node"]) == ("workflow-execution", "ada")
    assert error["cause"]["message"] == "name: expected str, got int"


def test_run_closes_the_database_of_the_app(desk, shop):
    assert call("run", "make", "--app", shop, "--param", 'ada.name="Ada"').exit_code == 0
    assert not (desk / "shop.db-wal").exists()  # SQLite removes it when the last connection closes


def test_a_run_that_takes_too_long_is_a_problem():
    body = """
        import asyncio

        @db.register_node
        class Slow(BaseDataFlowNode):
            async def run(self):
                await asyncio.sleep(60)

        db.register_workflow("slow", db.workflow().add_node("Slow", "s"))
    """
    write("slow.py", ONE + "from dataflow import BaseDataFlowNode\n" + dedent(body))
    error = refusal("run", "--app", "slow.py", "--timeout", "0.1", code=1)
    assert (error["code"], error["message"]) == ("timeout", "the run took longer than 0.1 s and was cancelled")
    assert refusal("run", "--app", "slow.py", "--timeout", "0")["error"] == "BadParameter"


def test_an_interrupted_run_ends_with_130_and_no_traceback():
    body = """
        import sys, time

        @db.register_node
        class Slow(BaseDataFlowNode):
            def run(self):
                print("ready", file=sys.stderr, flush=True)
                time.sleep(30)
                return {}

        db.register_workflow("slow", db.workflow().add_node("Slow", "s"))
    """
    write("slow.py", ONE + "from dataflow import BaseDataFlowNode\n" + dedent(body))
    code = "from dataflow.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "run", "--app", "slow.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "")
    assert "Interrupted." in errors
    assert "Traceback" not in errors


# -- demo -------------------------------------------------------------------------------------------------------------
def test_demo_shows_models_nodes_results_and_an_error(desk):
    text = call("demo").stdout
    for part in ("@db.model", "CustomerBulkUpsertNode", '"sum": "42.75"', "did you mean 'total'?", "dataflow doctor"):
        assert part in text
    assert list(desk.iterdir()) == []


def test_demo_as_json_holds_what_was_run():
    data = answer("demo")
    assert set(data) == {"source", "nodes", "mermaid", "run_id", "results", "mistake"}
    assert len(data["nodes"]["Order"]) == len(data["nodes"]["Customer"])
    assert data["results"]["spent"] == {"groups": [{"customer_id": 1, "sum": "42.75"}]}


def test_demo_saves_an_app_that_the_other_commands_take(desk):
    assert call("demo", "--save", "app.py").exit_code == 0
    saved = Path("app.py").read_text()
    assert saved == answer("demo")["source"]
    run = answer("run", "--app", "app.py")["results"]
    assert run["gifts"]["count"] == 1
    assert refusal("demo", "--save", "app.py")["code"] == "bad-file"
    assert Path("app.py").read_text() == saved


# -- values -----------------------------------------------------------------------------------------------------------
class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def test_values_become_plain_json():
    values = {
        "datetime": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "date": date(2024, 1, 2),
        "time": time(3, 4),
        "decimal": Decimal("1.10"),
        "uuid": UUID(int=1),
        "bytes": b"\x00\xff",
        "enum": [Colour.RED, Level.HIGH],
        "nan": [float("nan"), float("inf"), 1.5],
        "tuple": (1, None, True),
        Colour.RED: {1: "one"},
        "other": Path("a/b"),
    }
    assert plain(values) == {
        "datetime": "2024-01-02T03:04:05+00:00",
        "date": "2024-01-02",
        "time": "03:04:00",
        "decimal": "1.10",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bytes": "AP8=",
        "enum": ["red", 3],
        "nan": [None, None, 1.5],
        "tuple": [1, None, True],
        "red": {"1": "one"},
        "other": "a/b",
    }
    assert [type(item) for item in plain([Colour.RED, Level.HIGH, True])] == [str, int, bool]


def test_values_are_read_by_the_fields_of_the_model():
    with DataFlow(":memory:") as db:

        @db.model
        class Item:
            price: Decimal
            prices: list[Decimal]
            day: date | None = None
            extra: dict | None = None
            filter: date | None = None

        def read(node_type: str, name: str, text: str) -> Any:
            (task,) = db.workflow().add_node(node_type, "n").build().tasks
            return read_json(text, task, name)

        assert read("ItemCreateNode", "price", "1.10") == Decimal("1.10")
        assert read("ItemCreateNode", "prices", '[1.10, "2.20"]') == [Decimal("1.10"), Decimal("2.20")]
        assert read("ItemUpdateNode", "price", '{"$inc": "0.05"}') == {"$inc": Decimal("0.05")}
        assert repr(read("ItemCreateNode", "extra", '{"price": 1.10, "$type": "x"}')) == "{'price': 1.1, '$type': 'x'}"
        rows = read("ItemBulkCreateNode", "data", '[{"price": 1.1, "day": "2024-01-02"}]')
        assert rows == [{"price": Decimal("1.1"), "day": date(2024, 1, 2)}]
        assert read("ItemCreateNode", "filter", '"2024-01-02"') == date(2024, 1, 2)  # a field wins its name
        assert read("ItemListNode", "filter", '{"day": {"$lte": "2024-01-02"}}') == {"day": {"$lte": "2024-01-02"}}
        assert read("ItemAggregateNode", "aggregate", '{"price": {"$sum": "price"}}') == {"price": {"$sum": "price"}}
        params = read("AsyncSQLDatabaseNode", "params", '{"a": 1.5, "b": {"$type": "decimal", "value": "1.50"}}')
        assert repr(params) == "{'a': 1.5, 'b': Decimal('1.50')}"
        with pytest.raises(ValueRefused, match="not a number"):
            read("ItemCreateNode", "price", '"much"')


def test_the_command_error_of_core_is_a_usage_error_for_commands_of_plugins_too(site):
    body = """
import click
from dataflow.cli.program import CommandError


@click.command()
@click.option("--json", is_flag=True)
def {command}(json):
    raise CommandError("no such moon", hint="try another")
"""
    install_command(site, "acme", command="fly", body=body)
    assert refusal("fly")["message"] == "no such moon"
    assert click.get_current_context(silent=True) is None
