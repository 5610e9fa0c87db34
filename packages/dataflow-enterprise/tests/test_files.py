"""Files in and out of models with features: rows go through the ordinary operations, so that features hold."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataflow.cli.dump import dump as dump_command
from dataflow.cli.load import load as load_command
from dataflow.cli.run import run as run_command
from dataflow.enterprise.audit import AuditLogSync
from dataflow.errors import InputError, TenancyError, WorkflowExecutionError, WriteProtectedError
from dataflow.files import dump, load
from dataflow.testing.opening import opened


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield from opened(request, tmp_path, "tenant_files")


def model(db):
    @db.model
    class Doc:
        __dataflow__ = {"multi_tenant": True, "audit_log": True, "versioned": True, "soft_delete": True}
        __indexes__ = [{"name": "uq_doc_code", "fields": ["code"], "unique": True}]

        code: str

    return db


@pytest.mark.parametrize("isolation", ["shared", "strict"])
def test_a_load_belongs_to_the_tenant_and_the_actor_around_it(place, isolation):
    db = model(place(tenant_isolation=isolation))
    Path("d.csv").write_text("code\na\nb\na\n")
    with pytest.raises(TenancyError):
        load(db, "Doc", "d.csv")
    for tenant in ("acme", "other"):  # the same file, once for each
        with db.tenant(tenant), db.actor("alice"):
            report = load(db, "Doc", "d.csv", reject_file=f"{tenant}.csv")
            assert (report.created, report.rejected) == (2, 1)
    with db.tenant("acme"):
        entries = db.express_sync.call("audit", "Doc")["entries"]
        assert {entry["actor"] for entry in entries} == {"alice"}
        assert len(entries) == 2
        db.express_sync.bulk_delete("Doc", filter={"code": "a"})
        assert dump(db, "Doc", "o.jsonl")["rows"] == 1
        (row,) = map(json.loads, Path("o.jsonl").read_text().splitlines())
        assert (row["code"], row["tenant_id"], row["version"]) == ("b", "acme", 1)
    with pytest.raises(TenancyError):
        dump(db, "Doc", "p.jsonl")
    assert not os.path.exists("p.jsonl")


def test_what_a_feature_keeps_is_left_out_on_request(place):
    db = model(place())
    with db.tenant("acme"):
        Path("d.csv").write_text("code,tenant_id,version\na,acme,3\nb,evil,1\n")
        with pytest.raises(InputError, match="--skip version"):
            load(db, "Doc", "d.csv")
        report = load(db, "Doc", "d.csv", skip="version")
        assert (report.created, [fault["line"] for fault in report.faults]) == (1, [3])


def test_rows_that_expect_another_version_are_refused_and_the_rest_is_loaded(place):
    db = place()

    @db.model
    class Item:
        sku: str
        stock: int = 0
        __dataflow__ = {"versioned": True}
        __indexes__ = [{"name": "uq_item_sku", "fields": ["sku"], "unique": True}]

    x = db.express_sync
    x.bulk_create("Item", [{"sku": sku} for sku in "abc"])
    x.update("Item", 2, {"stock": 9})
    Path("d.csv").write_text("sku,stock,version\na,1,1\nb,1,1\nc,1,1\nd,1,1\n")
    report = load(db, "Item", "d.csv", upsert=("sku",), reject_file="r.csv")
    assert (report.created, report.updated, report.rejected) == (1, 2, 1)
    assert [fault["line"] for fault in report.faults] == [3]
    assert "another version" in report.faults[0]["reason"]
    stocks = [(row["stock"], row["version"]) for row in x.list("Item")["records"]]
    assert stocks == [(1, 2), (9, 2), (1, 2), (1, 1)]
    Path("e.csv").write_text("sku,stock,version\nd,5,1\nb,5,1\n")
    with pytest.raises(InputError, match="bad rows"):
        load(db, "Item", "e.csv", upsert=("sku",), on_error="stop")
    assert [(row["stock"], row["version"]) for row in x.list("Item")["records"]] == stocks


def test_upserts_of_many_rows_count_those_that_were_there(place):
    db = place(protection={"model": {"Item": {"deny": ["update"], "max_rows": 3}}})

    @db.model
    class Item:
        sku: str
        stock: int = 0
        __indexes__ = [{"name": "uq_item_sku", "fields": ["sku"], "unique": True}]

    x = db.express_sync
    x.bulk_create("Item", [{"sku": sku} for sku in "abcdef"])
    rows = [{"sku": sku, "stock": 1} for sku in "abcdef"]
    Path("d.csv").write_text("sku,stock\n" + "".join(f"{sku},1\n" for sku in "abcdef"))
    for call in (
        lambda: x.bulk_upsert("Item", rows, ["sku"]),
        lambda: x.bulk_upsert("Item", rows, ["sku"], batch_size=2),
        lambda: x.bulk_create("Item", rows, conflict_resolution="upsert", key_fields=["sku"]),
        lambda: load(db, "Item", "d.csv", upsert=("sku",)),
    ):
        with pytest.raises(WriteProtectedError, match="max_rows = 3"):
            call()
    assert x.count("Item", {"stock": 1}) == {"count": 0}
    new = [{"sku": sku, "stock": 1} for sku in "ghijkl"]
    assert x.bulk_upsert("Item", [*rows[:3], *new], ["sku"])["updated"] == 3


def test_a_workflow_runs_for_a_tenant_and_an_actor_from_the_command_line(place):
    settings = {**place.settings, "protection": {"global": {"deny": ["delete"]}}}
    Path("app.py").write_text(
        f"""
from dataflow import DataFlow
db = DataFlow({place.url!r}, **{settings!r})
@db.model
class Doc:
    code: str
    __dataflow__ = {{"multi_tenant": True, "audit_log": True}}
create, drop = db.workflow(), db.workflow()
create.add_node("DocCreateNode", "doc", {{"code": "a"}})
drop.add_node("DocBulkDeleteNode", "docs", {{"filter": {{"code": "a"}}}})
db.register_workflow("create", create)
db.register_workflow("drop", drop)
"""
    )

    def run(*arguments):
        return CliRunner().invoke(run_command, [*arguments, "--app", "app.py"])

    assert isinstance(run("create").exception, WorkflowExecutionError)
    assert run("create", "--tenant", "acme", "--actor", "ann").exit_code == 0
    assert run("drop", "--tenant", "acme").exit_code == 1
    done = run("drop", "--tenant", "acme", "--actor", "bob", "--unlocked", "by mistake")
    assert json.loads(done.output)["results"]["docs"]["deleted"] == 1
    log = AuditLogSync(place())
    assert [(e["action_type"], e["actor"], e["tenant"]) for e in log.entries()["entries"]] == [
        ("create", "ann", "acme"), ("unlocked", "bob", "acme"), ("delete", "bob", "acme")
    ]  # fmt: skip


def test_the_commands_take_a_tenant_and_an_actor(place, monkeypatch):
    settings = {**place.settings}
    Path("app.py").write_text(
        f"""
from dataflow import DataFlow
db = DataFlow({place.url!r}, **{settings!r})
@db.model
class Doc:
    code: str
    __dataflow__ = {{"multi_tenant": True, "timestamps": False}}
"""
    )
    Path("d.csv").write_text("code\na\n")
    run = CliRunner().invoke
    common = ["--model", "Doc", "--app", "app.py"]
    assert isinstance(run(load_command, ["d.csv", *common]).exception, TenancyError)
    done = run(load_command, ["d.csv", *common, "--tenant", "acme", "--actor", "alice"])
    assert done.output == "d.csv: loaded: 1 row read, 1 created\n"
    done = run(dump_command, [*common, "--all-tenants", "a look", "--fields", "code,tenant_id"])
    assert done.output == "code,tenant_id\na,acme\n"
    assert run(dump_command, [*common, "--tenant", "other", "--fields", "code"]).output == "code\n"
