"""Fixtures for the features' tests, which run on both databases."""

from collections.abc import Iterator
from typing import Any

import pytest

from dataflow.testing.opening import Opening, opened


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Opening]:
    """What opens DataFlows on an empty place of each database."""
    yield from opened(request, tmp_path, "enterprise")
