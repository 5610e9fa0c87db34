"""Each test runs on an empty place of SQLite and of PostgreSQL; `opening` opens DataFlows there."""

import pytest
from dataflow.testing.opening import opened


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request, tmp_path):
    yield from opened(request, tmp_path, "slugs")


@pytest.fixture
def db(opening):
    return opening()


@pytest.fixture
def articles(db):
    """Calls of a DataFlow with articles."""

    @db.model
    class Article:
        title: str
        text: str = ""

        __dataflow__ = {"slug": {"from": "title"}}
        __indexes__ = [{"name": "uq_articles_text", "fields": ["text"], "unique": True, "where": "text <> ''"}]

    return db.express_sync
