"""A plan as SQL for the database's own shell does what applying it does, also where features keep things on tables."""

import asyncio
import re
import shutil
import sqlite3
from typing import Annotated

import pytest

from dataflow import DataFlow, Field, ForeignKey

OBJECTS = """
SELECT type, name, tbl_name, sql FROM sqlite_master
WHERE name NOT LIKE 'sqlite_%' AND name NOT LIKE 'dataflow_mi%' AND name NOT LIKE 'dataflow_models%' ORDER BY 1, 2"""


def model(db, called, options=(), /, **fields):
    members = {"__annotations__": fields, "__dataflow__": dict(options)}
    return db.model(type(called, (), members))


STRICT = {"multi_tenant": True, "audit_log": True, "tenant_isolation": "strict"}
VARIANTS = {"plain": {}, "audited": {"audit_log": True}, "strict": STRICT}


def opened(path, **settings):
    return DataFlow(f"sqlite:///{path}", **settings)


def earlier(db, options):
    settings = {key: value for key, value in options.items() if key != "tenant_isolation"}
    model(db, "Note", settings, title=str, size=int, note=str | None)
    model(db, "Mark", settings, note_id=Annotated[int, ForeignKey("Note", on_delete="set_null")] | None, text=str)


def later(db, options):
    settings = {key: value for key, value in options.items() if key != "tenant_isolation"}
    model(db, "Note", settings, label=Annotated[str, Field(renamed_from="title")], size=str)
    model(
        db, "Mark", settings, note_id=Annotated[int, ForeignKey("Note", on_delete="set_null")] | None, text=str | None
    )
    model(db, "Extra", settings, word=str)


def objects(path):
    with sqlite3.connect(path) as raw:
        rows = raw.execute(OBJECTS).fetchall()
    raw.close()
    return rows


def rows(path, table):
    with sqlite3.connect(path) as raw:
        found = raw.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
    raw.close()
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_script_makes_what_applying_the_plan_makes(tmp_path, variant):
    options = VARIANTS[variant]
    settings = {"tenant_isolation": "strict"} if "tenant_isolation" in options else {}
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    with opened(one, **settings) as db:
        earlier(db, options)
        with db.tenant("acme"):
            for number in range(3):
                db.express_sync.create("Note", {"title": f"t{number}", "size": number})
                db.express_sync.create("Mark", {"note_id": number + 1, "text": "x"})
    shutil.copy(one, other)
    with opened(other, **settings) as db:
        later(db, options)
        engine = db.core.schema_engine
        script = engine.script_sync(engine.plan_sync())
    assert objects(other) == objects(one)
    raw = sqlite3.connect(other, isolation_level=None)
    raw.executescript(re.sub(r"^\..*\n", "", script))
    raw.close()
    with opened(one, **settings) as db:
        later(db, options)
        assert asyncio.run(db.auto_migrate(auto_confirm=True, max_risk_level="CRITICAL"))[0]
    assert objects(other) == objects(one)
    assert any(row[1].startswith("dataflow_") for row in objects(one)) == bool(options)
    for table in ("notes", "marks"):
        assert rows(other, table) == rows(one, table)
    with opened(other, **settings) as db:
        later(db, options)
        assert asyncio.run(db.auto_migrate(auto_confirm=True)) == (True, [])
        with db.tenant("acme"):
            db.express_sync.create("Note", {"label": "new", "size": "9"})
            assert db.express_sync.count("Note")["count"] == 4
    assert ("audit log" in script) == ("audit_log" in options)


def test_a_plan_with_nothing_in_it_is_a_script_with_nothing_in_it(tmp_path):
    with opened(tmp_path / "one.db") as db:
        earlier(db, {"audit_log": True})
        db.express_sync.create("Note", {"title": "t", "size": 1})
        asyncio.run(db.initialize())
        script = db.core.schema_engine.script_sync(db.core.schema_engine.plan_sync())
    assert "CREATE" not in script
    assert "DROP" not in script


def test_on_postgres_the_script_says_what_it_leaves_out(postgres_database):
    with DataFlow(postgres_database) as db:
        model(db, "Note", {"audit_log": True}, title=str, size=int)
        db.express_sync.create("Note", {"title": "t", "size": 1})
    with DataFlow(postgres_database) as db:
        model(db, "Note", {"audit_log": True}, title=str, size=str)
        engine = db.core.schema_engine
        script = engine.script_sync(engine.plan_sync())
    assert "-- Left out: what features need besides tables (audit)" in script
    assert "DROP TRIGGER" not in script or script.index("DROP TRIGGER") < script.index("ALTER TABLE")
