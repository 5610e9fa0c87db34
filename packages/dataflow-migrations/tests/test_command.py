"""``dataflow migrate``: what it shows, asks, does and refuses."""

import json
import textwrap

import pytest
from click.testing import CliRunner

from dataflow.cli.program import program

BEFORE = """
@db.model
class Person:
    name: str
    email: str
"""
AFTER = """
@db.model
class Person:
    name: str
    mail: str
    town: str | None = None
    __indexes__ = [{"name": "people_town", "fields": ["town"]}]
"""


@pytest.fixture
def app(opening, tmp_path):
    """A program whose models can be changed, and how the command sees it."""
    settings = "".join(f", {name}={value!r}" for name, value in opening.settings.items())
    place = tmp_path / "shop.py"

    def write(models):
        place.write_text(
            f"from dataflow import DataFlow\ndb = DataFlow({opening.url!r}{settings})\n{textwrap.dedent(models)}"
        )

    def command(*arguments, code=0, **options):
        done = CliRunner().invoke(
            program, ["migrate", *arguments, "--app", f"{place}:db"], prog_name="dataflow", **options
        )
        assert done.exit_code == code, done.output
        return done

    write(BEFORE)
    command("apply", "--yes")
    with opening() as db:
        db.reconstruct_models_from_registry()
        db.express_sync.create("Person", {"name": "Ada", "email": "a@x"})
    write(AFTER)
    command.opening = opening
    command.write = write
    return command


def mails(app):
    with app.opening() as db:
        db.reconstruct_models_from_registry()
        return [record.get("mail") for record in db.express_sync.list("Person")["records"]]


RENAME = ("--rename", "people.mail=email")


def test_the_plan_is_shown_with_risk_locks_and_questions(app):
    shown = app("plan").output
    assert "risk" in shown
    assert "--rename people.mail=email" in shown
    shown = app("plan", *RENAME).output
    assert "question" not in shown
    assert "MEDIUM" in shown


def test_the_plan_is_data_and_a_script(app, tmp_path):
    plan = json.loads(app("plan", *RENAME, "--json").stdout)
    assert plan["risk"] == "MEDIUM"
    assert all(
        {"operation", "sql", "inverse", "locks", "rewrites", "scans", "data_loss", "risk"} <= set(s)
        for s in plan["steps"]
    )
    file = tmp_path / "plan.json"
    app("plan", *RENAME, "--output", str(file))
    assert json.loads(file.read_text()) == plan
    script = app("plan", *RENAME, "--sql").stdout
    assert 'RENAME COLUMN "email" TO "mail"' in script
    assert json.loads(app("plan", *RENAME, "--json").stdout)["id"] == plan["id"]


def test_a_plan_is_applied_and_everything_says_so(app):
    assert "steps pending" in app("status", code=1).output
    done = app("apply", *RENAME, "--yes", "--max-risk", "medium", "--backup")
    assert "done: migration" in done.output
    assert "backup" in done.output
    assert mails(app) == ["a@x"]
    assert "follows the models" in app("status").output
    assert "nothing to do" in app("plan").output
    assert "nothing to do" in app("apply", "--yes").output
    migrations = json.loads(app("history", "--json").stdout)["migrations"]
    assert [entry["status"] for entry in migrations] == ["done", "done"]
    assert "done" in app("history").output
    state = json.loads(app("status", "--json").stdout)
    assert (state["pending"], state["interrupted"]) == ([], [])


def test_nothing_is_applied_that_was_not_allowed(app):
    assert "questions" in app("apply", "--yes", code=1).output
    assert "above LOW" in app("apply", *RENAME, "--yes", "--max-risk", "LOW", code=1).output
    assert "nobody said yes" in app("apply", *RENAME, code=2).output
    assert "the plan is" in app("apply", *RENAME, "--yes", "--plan-id", "0123456789abcdef", code=1).output
    assert "name=value" in app("apply", "--rename", "people.mail", "--yes", code=2).output
    assert "people.mial" in app("plan", "--rename", "people.mial=email", code=1).output
    assert mails(app) == [None]


def test_a_plan_that_was_looked_at_is_the_one_that_is_applied(app):
    plan = json.loads(app("plan", *RENAME, "--json").stdout)
    entry = json.loads(app("apply", *RENAME, "--yes", "--plan-id", plan["id"], "--json").stdout)["applied"]
    assert entry["status"] == "done"
    assert entry["steps_done"] == len(plan["steps"])


def test_new_columns_take_values_from_the_command_line(app):
    app(
        "apply",
        "--new",
        "people.mail",
        "--new",
        "people.town",
        "--value",
        "people.mail=none yet",
        "--yes",
        "--max-risk",
        "HIGH",
    )
    assert mails(app) == ["none yet"]


def test_the_last_migration_is_undone(app):
    app("apply", *RENAME, "--yes")
    assert "nobody said yes" in app("undo", code=2).output
    assert "is undone" in app("undo", "--yes").output
    assert mails(app) == [None]
    assert json.loads(app("history", "--json").stdout)["migrations"][1]["status"] == "undone"


def test_what_others_have_made_goes_only_by_name(app):
    app("apply", *RENAME, "--yes")
    app.write(BEFORE.replace("email", "mail"))
    plan = json.loads(app("plan", "--json").stdout)
    assert any("drop" in step["summary"] for step in plan["steps"])
    assert "data would be lost" in app("apply", "--yes", code=1).output
    app("apply", "--yes", "--max-risk", "HIGH")
    assert "nothing to do" in app("plan").output


def test_the_place_of_a_tenant_is_migrated_where_each_has_its_own(tmp_path):
    place = tmp_path / "shop.py"

    def write(kind):
        place.write_text(
            f"from dataflow import DataFlow\ndb = DataFlow({f'sqlite:///{tmp_path}/app.db'!r}, multi_tenant=True, "
            f"tenant_isolation='database')\n@db.model\nclass Note:\n    text: {kind}\n"
        )

    def command(*arguments):
        return CliRunner().invoke(program, ["migrate", *arguments, "--app", f"{place}:db"], prog_name="dataflow")

    write("int")
    for tenant in ("acme", "bolt"):
        assert command("apply", "--yes", "--tenant", tenant).exit_code == 0
    write(" str")  # not the same number of bytes: else the bytecode of a moment ago would count
    assert "no tenant" in command("status").output
    assert command("apply", "--yes", "--max-risk", "HIGH", "--tenant", "acme").exit_code == 0
    assert [command("status", "--tenant", tenant).exit_code for tenant in ("acme", "bolt")] == [0, 1]
    assert command("undo", "--yes", "--tenant", "acme").exit_code == 0
    assert command("status", "--tenant", "acme").exit_code == 1
