"""The database as ``dataflow doctor`` sees it: which URL, from where, and whether it answers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow import DataFlow
from dataflow.cli.app import App
from dataflow.cli.discovery import Discovery
from dataflow.cli.installation import Check
from dataflow.config import DatabaseURL, parse_url
from dataflow.errors import DataFlowError, Problem

DEFAULT = "sqlite:///dataflow.db"


def check_database(found: Discovery, app: App | None) -> Check:
    """Check the database of an application; without one, the database that DataFlow() would use here.

    A file that does not exist is not created.
    """
    if app is not None:
        return _of_app(app)
    text = os.environ.get("DATABASE_URL")
    source = "DATABASE_URL" if text else "the default, without DATABASE_URL"
    details: dict[str, Any] = {"source": source}
    try:
        details = _place(parse_url(text or DEFAULT), source)
        missing = _no_file(details)
        if missing is not None:
            return missing
        broken = {info.name for info in found.broken if info.distribution}
        with DataFlow(text or DEFAULT, existing_schema_mode=True, disable=broken) as db:
            return _ask(db, details)
    except DataFlowError as error:
        where = {**error.where, "variable": "DATABASE_URL"} if text else error.where
        problem = Problem(error.code, error.message, error.hint, where)
        return Check("database", f"{details.get('url', 'unreadable URL')} from {source}", details, (problem,))


def _of_app(app: App) -> Check:
    details = _place(app.db.config.url, _origin(app))
    if app.db.core.closed:
        return Check("database", f"{details['url']} (the app closed it, so it was not asked)", details)
    return _no_file(details) or _ask(app.db, details)


def _origin(app: App) -> str:
    """Say where an application's URL may come from; DataFlow(url) and DataFlow() cannot be told apart afterwards."""
    text = os.environ.get("DATABASE_URL")
    try:
        same = text is not None and parse_url(text) == app.db.config.url
    except DataFlowError:
        same = False
    return f"{app.reference}{' (the same as DATABASE_URL)' if same else ''}"


def _place(url: DatabaseURL, source: str) -> dict[str, Any]:
    """Describe a URL without its password; a file by its absolute path."""
    details: dict[str, Any] = {"url": str(url), "source": source}
    if url.scheme == "sqlite" and url.path != ":memory:":
        details["file"] = str(Path(url.path).absolute())
    return details


def _no_file(details: Mapping[str, Any]) -> Check | None:
    """Say that a file does not exist, which is well where it can be created."""
    path = Path(details.get("file", "."))
    if path.exists():
        return None
    details = {**details, "exists": False}
    if path.parent.is_dir():
        return Check("database", f"{path} does not exist yet", details)
    problem = Problem("unavailable", f"the folder {path.parent} does not exist", "create it, or correct the URL")
    return Check("database", f"{details['url']} from {details['source']}", details, (problem,))


def _ask(db: DataFlow, details: Mapping[str, Any]) -> Check:
    """Ask the database, and the health checks of plugins, how they are."""
    health: dict[str, dict[str, Any]] = db.health()["checks"]
    found = dict(details)
    problems = []
    for name, answer in health.items():
        facts = {key: value for key, value in answer.items() if key != "ok"}
        found |= facts if name == "database" else {name: facts}
        if not answer["ok"]:
            message = f"the {name} check fails: {answer.get('error', 'it gives no reason')}"
            problems.append(Problem("unhealthy", message, "correct the URL, or make what it names available"))
    return Check("database", f"{details['url']} from {details['source']}", found, tuple(problems))
