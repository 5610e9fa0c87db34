"""What every suite has in common: its fixtures, and the two decorators a dialect's author meets.

A suite is a class of tests with an area. Each class gets one DataFlow and one event loop; its models are declared once,
and their rows are removed before each test. Fixtures are methods, so that one that is replaced is seen.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextvars import copy_context
from typing import Any, ClassVar

import pytest

from dataflow import DataFlow
from dataflow.dialect import support
from dataflow.errors import DataFlowError, MissingCapability, NotYetAvailable
from dataflow.testing.conformance.bench import PATHS, Bench
from dataflow.testing.conformance.capabilities import CAPABILITIES, check_name
from dataflow.testing.scorecard import DEVIATES, REQUIRES, Declaration, announce


def requires(
    *capabilities: str, refusal: tuple[type[DataFlowError], ...] = (NotYetAvailable, MissingCapability)
) -> pytest.MarkDecorator:
    """Say which capabilities a test, or a whole class, is about.

    Where the dialect declares one unsupported, the test must end in a clear refusal; a test that passes is a failure.

    Args:
        capabilities: names from `CAPABILITIES`.
        refusal: the errors by which it may be refused.

    Raises:
        ValueError: there is no such capability.
    """
    for name in capabilities:
        check_name(name)
    mark: pytest.MarkDecorator = getattr(pytest.mark, REQUIRES)
    return mark.with_args(*capabilities, refusal=refusal)


def deviates(reason: str) -> pytest.MarkDecorator:
    """State why a standard test, or a whole suite, is replaced or left out; the scorecard shows the reason.

    Raises:
        ValueError: the reason is empty.
    """
    if not isinstance(reason, str) or not reason.strip():
        msg = "deviates takes the reason as text: @deviates('our server has no …')"
        raise ValueError(msg)
    mark: pytest.MarkDecorator = getattr(pytest.mark, DEVIATES)
    return mark.with_args(reason)


def declaration_of(db: DataFlow) -> Declaration:
    """Return what the dialect of an instance declares, for every capability there is."""
    dialect = db.core.dialect
    levels = {}
    for name in CAPABILITIES:
        found = support(dialect, name)
        levels[name] = (found.level, found.reason)
    return Declaration(dialect.name, levels)


class Suite:
    """Base of the suites.

    Attributes:
        conformance_area: name of the area on the scorecard.
        reads_only: whether the rows of `fill` serve all tests; otherwise the tables are emptied before each.
    """

    conformance_area: ClassVar[str] = ""
    reads_only: ClassVar[bool] = False

    @classmethod
    def declare(cls, db: DataFlow) -> None:
        """Register the models of the suite."""

    @classmethod
    def fill(cls, bench: Bench) -> None:
        """Write the rows that all tests read."""

    @classmethod
    def settings(cls) -> Mapping[str, Any]:
        """Return the settings of the suite's DataFlow: plugins of its own, say."""
        return {}

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def bench(cls, request: pytest.FixtureRequest, database_url: str) -> Iterator[Bench]:
        """One DataFlow for the class, with its models."""
        if not request.config.pluginmanager.has_plugin("dataflow-scorecard"):
            pytest.fail("the suites need the pytest plugin of workflow-dataflow-testing, which is switched off")
        from dataflow.testing.conformance.declaration import TestDeclaration  # it derives from this class

        if not any(found is TestDeclaration for found in vars(request.module).values()):
            pytest.fail("the module lacks TestDeclaration: write from dataflow.testing.conformance import *")
        with asyncio.Runner() as runner:

            def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
                return runner.run(coroutine, context=copy_context())  # what surrounds the test surrounds the call

            bench = Bench(database_url, run, cls.declare, **cls.settings())
            try:
                announce(request.node, declaration_of(bench.db))
                bench.declare()
                cls.fill(bench)
                yield bench
            finally:
                runner.run(bench.db.aclose())

    @pytest.fixture(autouse=True)
    def clean(self, bench: Bench) -> None:
        """Start every test with empty tables, where tests write."""
        if not self.reads_only:
            bench.clear()

    @pytest.fixture(params=PATHS)
    def calls(self, request: pytest.FixtureRequest, bench: Bench) -> Bench:
        """The bench, once by direct synchronous calls and once by workflows on an event loop."""
        way: Any = request.param
        return bench.by(way)
