"""`dataflow audit` verifies, seals, lists and shortens the log of an application."""

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from dataflow import DataFlow
from dataflow.enterprise.cli import audit
from dataflow.errors import TenancyError

APP = """\
from dataflow import DataFlow

db = DataFlow({url!r})

@db.model
class Account:
    owner: str
    balance: int = 0
    __dataflow__ = {{"audit_log": True}}
"""


@pytest.fixture
def app(tmp_path):
    """An application with two changes in its log."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    source = APP.format(url=url)
    with DataFlow(url) as db:

        @db.model
        class Account:
            owner: str
            balance: int = 0
            __dataflow__ = {"audit_log": True}

        with db.actor("ann"):
            db.express_sync.create("Account", {"owner": "ann"})
            db.express_sync.update("Account", 1, {"balance": 5})
    path = tmp_path / "app.py"
    path.write_text(source, encoding="utf-8")
    return path


def run(*arguments):
    return CliRunner().invoke(audit, [str(argument) for argument in arguments])


def test_a_sound_log_verifies_also_against_a_checkpoint_kept_elsewhere(app, tmp_path):
    sealed = run("seal", "--app", app, "--json")
    assert sealed.exit_code == 0
    kept = tmp_path / "kept.json"
    kept.write_text(sealed.output, encoding="utf-8")
    found = run("verify", "--app", app, "--json", "--checkpoint", kept)
    assert (found.exit_code, json.loads(found.output)["ok"]) == (0, True)
    assert "2 entries" in run("verify", "--app", app).output


def past_triggers(path, table, change):
    """Change a table as somebody who may drop its triggers."""
    with closing(sqlite3.connect(path)) as raw, raw:
        sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
        for (name,) in raw.execute(sql, (table,)).fetchall():
            raw.execute(f'DROP TRIGGER "{name}"')
        raw.execute(change)


def test_an_entry_that_was_changed_is_a_fault_and_ends_with_1(app, tmp_path):
    change = """UPDATE dataflow_audit SET new = replace(new, '"balance":5', '"balance":9')"""
    past_triggers(tmp_path / "app.db", "dataflow_audit", change)
    found = run("verify", "--app", app, "--json")
    assert found.exit_code == 1
    assert "tampered" in {fault["kind"] for fault in json.loads(found.output)["faults"]}
    assert "tampered" in run("verify", "--app", app).output


def test_a_record_that_was_changed_past_the_log_is_told(app, tmp_path):
    past_triggers(tmp_path / "app.db", "accounts", "UPDATE accounts SET balance = 500")
    report = json.loads(run("verify", "--app", app, "--json").output)
    assert report["notes"] != []  # the triggers are there again, and what they found is an entry
    (last,) = json.loads(run("entries", "Account", "--app", app, "--limit", 1, "--json").output)["entries"]
    assert (last["actor"], last["new"]["balance"]) != ("ann", 5)


def test_entries_are_listed_the_latest_first(app):
    listed = json.loads(run("entries", "Account", "--app", app, "--json").output)["entries"]
    assert [(entry["action_type"], entry["actor"]) for entry in listed] == [("update", "ann"), ("create", "ann")]
    assert "update 1: balance" in run("entries", "Account", "--app", app, "--limit", 1).output


def test_a_purge_needs_a_reason(app):
    assert run("purge", "--older-than", 0, "--app", app).exit_code == 2
    found = run("purge", "--older-than", 0, "--reason", "a test", "--app", app, "--json")
    assert json.loads(found.output) == {"purged": 1}
    assert run("verify", "--app", app).exit_code == 0


def test_the_log_of_a_tenant_with_a_place_of_its_own_is_named(tmp_path):
    app = tmp_path / "app.py"
    settings = f"'sqlite:///{tmp_path / 'app.db'}', tenant_isolation='database', multi_tenant=True"
    app.write_text(APP.format(url="URL").replace("'URL'", settings), encoding="utf-8")
    with DataFlow(f"sqlite:///{tmp_path / 'app.db'}", tenant_isolation="database", multi_tenant=True) as db:

        @db.model
        class Account:
            owner: str
            balance: int = 0
            __dataflow__ = {"audit_log": True}

        for tenant in ("acme", "bolt"):
            with db.tenant(tenant), db.actor(f"{tenant}-user"):
                db.express_sync.create("Account", {"owner": tenant})
    assert isinstance(run("verify", "--app", app).exception, TenancyError)
    assert run("verify", "--app", app, "--tenant", "acme").output == "1 entries about 1 records; 0 faults\n"
    assert "acme-user" in run("entries", "Account", "--app", app, "--tenant", "acme").output
    assert run("purge", "--app", app, "--tenant", "bolt", "--older-than", 1, "--reason", "age").exit_code == 0


def test_entries_of_one_tenant_among_several_are_listed_on_request(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP.format(url=f"sqlite:///{tmp_path / 'app.db'}").replace("{", "{'multi_tenant': True, "), "utf-8")
    with DataFlow(f"sqlite:///{tmp_path / 'app.db'}") as db:

        @db.model
        class Account:
            owner: str
            balance: int = 0
            __dataflow__ = {"audit_log": True, "multi_tenant": True}

        for tenant in ("acme", "bolt"):
            with db.tenant(tenant), db.actor(f"{tenant}-user"):
                db.express_sync.create("Account", {"owner": tenant})
    listed = [
        json.loads(run("entries", "Account", "--app", app, "--json", *more).output)["entries"]
        for more in ((), ("--tenant", "bolt"))
    ]
    assert [[entry["tenant"] for entry in entries] for entries in listed] == [["bolt", "acme"], ["bolt"]]
