"""The pytest side of the conformance suites: judges their tests by what the dialect declares, and keeps the score.

It reads three things a test carries: the area of its class, the marks of `requires` and `deviates`, and the declaration
that `announce` put beside its class. It must not import the suites: pytest loads this module in every run, and has to
rewrite their asserts first.
"""

import json
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

REQUIRES, DEVIATES = "dataflow_requires", "dataflow_deviates"
PROPERTY: Final = "dataflow_conformance"
PASSED, EMULATED, REFUSED, DEVIANT, FAILED = "passed", "emulated", "refused", "deviates", "failed"
COLUMNS = (PASSED, FAILED, EMULATED, REFUSED, DEVIANT)
_WORDS = {"full": "native", "emulated": "emulated", "unsupported": "refused"}


@attrs.frozen
class Declaration:
    """What a dialect declares: its name, and capability -> (level, reason) for every capability there is."""

    dialect: str
    levels: Mapping[str, tuple[str, str]]


_DECLARATION: Final = pytest.StashKey[Declaration]()


@attrs.frozen
class Result:
    """What became of one test.

    Attributes:
        test: node id.
        module: path of the module that holds it.
        area: area of its suite.
        dialect: name of the dialect, "" if the database could not be opened.
        capabilities: name -> (level, reason), of those the test needs.
        status: passed, failed, emulated, refused or deviates.
        reason: why it was refused or deviates.
    """

    test: str
    module: str
    area: str
    dialect: str = ""
    capabilities: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    status: str = FAILED
    reason: str = ""


@attrs.frozen
class Scorecard:
    """The results of one module with suites.

    Attributes:
        module: its path.
        results: one per test that ran.
        collected: number of its tests that were found, whether they ran or not; 0 where that is not known.
    """

    module: str
    results: tuple[Result, ...]
    collected: int = 0

    @property
    def dialect(self) -> str:
        """Name of the dialect, "" if its database could not be opened."""
        return next((result.dialect for result in self.results if result.dialect), "")

    @property
    def not_run(self) -> int:
        """How many tests were left out of the run."""
        return max(0, self.collected - len(self.results))

    def areas(self) -> dict[str, Counter[str]]:
        """Return area -> status -> number of tests, in the order of the run."""
        found: dict[str, Counter[str]] = {}
        for result in self.results:
            found.setdefault(result.area, Counter())[result.status] += 1
        return found

    def features(self) -> dict[str, str]:
        """Return capability -> "native", "emulated: how", "refused: reason" or "failing", as the tests found it."""
        found: dict[str, str] = {}
        for result in self.results:
            for name, (level, reason) in result.capabilities.items():
                proven = result.status != DEVIANT and (result.status == REFUSED) == (level == "unsupported")
                if result.status == FAILED:
                    found[name] = "failing"
                elif found.get(name) != "failing" and proven:
                    found[name] = f"{_WORDS[level]}: {reason}" if reason else _WORDS[level]
        return dict(sorted(found.items()))

    def deviations(self) -> dict[str, str]:
        """Return test -> why it was replaced or left out; one entry for all parameters of a test."""
        return {r.test.partition("[")[0]: r.reason for r in self.results if r.status == DEVIANT}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "module": self.module,
            "dialect": self.dialect,
            "not_run": self.not_run,
            "areas": {area: {name: score[name] for name in COLUMNS} for area, score in self.areas().items()},
            "features": self.features(),
            "deviations": self.deviations(),
            "failures": [result.test for result in self.results if result.status == FAILED],
        }

    def lines(self) -> list[str]:
        """Return the table that pytest prints."""
        areas = self.areas()
        columns = [name for name in COLUMNS if name != DEVIANT or any(score[DEVIANT] for score in areas.values())]
        width = max(map(len, ("total", *areas)))
        rows = [*areas.items(), ("total", sum(areas.values(), Counter()))]
        lines = [f"{'area':<{width}}" + "".join(f"{name:>10}" for name in columns)]
        lines += [f"{area:<{width}}" + "".join(f"{score[name]:>10}" for name in columns) for area, score in rows]
        lines += [f"deviates: {test.partition('::')[2]}: {reason}" for test, reason in self.deviations().items()]
        return lines + ([f"not run: {self.not_run} of {self.collected} tests"] if self.not_run else [])


class ScorecardPlugin:
    """Collects results of the session; registered by `dataflow.testing.pytest_plugin`."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.results: dict[str, Result] = {}
        self.collected: Counter[str] = Counter()

    def card(self, module: str) -> Scorecard:
        """Return the score of one module so far."""
        return Scorecard(module, tuple(r for r in self.results.values() if r.module == module), self.collected[module])

    def cards(self) -> list[Scorecard]:
        """Return the scores of all modules with suites, in the order of the run."""
        return [self.card(module) for module in dict.fromkeys(r.module for r in self.results.values())]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Count what there is, so that what does not run is seen."""
        if area_of(item):
            self.collected[module_of(item)] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge a report of a suite's test; outermost, so that skips and expected failures are seen as they are."""
        area, excinfo = area_of(item), call.excinfo
        if area and excinfo is not None and call.when != "teardown" and _Demand.of(item).refused_by(excinfo.value):
            call.excinfo = None  # else pytest writes out at length how it came to be
        report = yield
        call.excinfo = excinfo
        if area and (report.when == "call" or excinfo is not None):
            result = _judge(item, call, report, area)
            report.user_properties.append((PROPERTY, json.dumps(attrs.asdict(result))))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down a result; with pytest-xdist it comes from another process."""
        for name, value in report.user_properties:
            if name == PROPERTY:
                result = Result(**json.loads(str(value)))
                self.results[result.test] = result

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show what the dialect refuses, as declared, under its own name."""
        if report.skipped and _status(report) == REFUSED:
            return REFUSED, "r", "REFUSED"
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the scorecards."""
        for card in self.cards():
            terminalreporter.section(f"conformance: {card.dialect or 'no database'}, {card.module}")
            for line in card.lines():
                terminalreporter.line(line)

    def pytest_sessionfinish(self) -> None:
        """Write the scorecards to the file of ``--scorecard-json``."""
        path = self.config.getoption("scorecard_json")
        if path and not hasattr(self.config, "workerinput"):
            text = json.dumps([card.to_dict() for card in self.cards()], indent=2, ensure_ascii=False)
            Path(path).write_text(text + "\n", encoding="utf-8")


def area_of(item: pytest.Item) -> str:
    """Return the area of a suite's test, "" for other tests."""
    return str(getattr(getattr(item, "cls", None), "conformance_area", ""))


def module_of(item: pytest.Item) -> str:
    """Return the path of an item's module, as pytest prints it."""
    return item.nodeid.partition("::")[0]


def announce(node: pytest.Item | pytest.Collector, declaration: Declaration) -> None:
    """Tell which dialect a suite's class runs on, before its first test touches the database."""
    node.stash[_DECLARATION] = declaration


def _declaration(item: pytest.Item) -> Declaration:
    for node in item.listchain():
        if _DECLARATION in node.stash:
            return node.stash[_DECLARATION]
    return Declaration("", {})


def _status(report: pytest.TestReport) -> str:
    found = [json.loads(str(value))["status"] for name, value in report.user_properties if name == PROPERTY]
    return found[-1] if found else ""


@attrs.frozen
class _Demand:
    """What a test needs, and what the dialect says of it.

    Attributes:
        dialect: its name.
        needed: capability -> (level, reason), of those the test needs.
        refused: capability -> reason, of those that the dialect does not support.
        kinds: the errors by which it may be refused.
        deviation: why the test is replaced or left out, or "".
    """

    dialect: str
    needed: Mapping[str, tuple[str, str]]
    refused: Mapping[str, str]
    kinds: tuple[type[BaseException], ...]
    deviation: str

    @classmethod
    def of(cls, item: pytest.Item) -> "_Demand":
        declared = _declaration(item)
        marks = list(item.iter_markers(REQUIRES))
        needed = {name: declared.levels[name] for mark in marks for name in mark.args if name in declared.levels}
        refused = {name: reason for name, (level, reason) in needed.items() if level == "unsupported"}
        kinds = tuple(kind for mark in marks for kind in mark.kwargs["refusal"])
        deviation = next((str(mark.args[0]) for mark in item.iter_markers(DEVIATES)), "")
        return cls(declared.dialect, needed, refused, kinds, deviation)

    def refused_by(self, error: BaseException) -> bool:
        """Tell whether an error is the refusal that the declaration promises."""
        return bool(self.refused) and is_clear_refusal(error, self.kinds)


def _judge(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, area: str) -> Result:
    """Return the result of a report that decides; change the report where pytest and the declaration disagree."""
    demand = _Demand.of(item)
    result = Result(report.nodeid, module_of(item), area, demand.dialect, demand.needed)
    if report.skipped or hasattr(report, "wasxfail"):
        return _skipped(report, result, demand.deviation)
    if demand.refused and report.when != "teardown":
        return _unsupported(report, result, demand, call.excinfo)
    if report.failed:
        return result
    if demand.deviation:
        return attrs.evolve(result, status=DEVIANT, reason=demand.deviation)
    emulated = any(level == "emulated" for level, _ in demand.needed.values())
    return attrs.evolve(result, status=EMULATED if emulated else PASSED)


def _skipped(report: pytest.TestReport, result: Result, deviation: str) -> Result:
    if deviation:
        return attrs.evolve(result, status=DEVIANT, reason=deviation)
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
    report.outcome = "failed"
    report.__dict__.pop("wasxfail", None)
    report.longrepr = (
        f"a standard test was skipped, or expected to fail, without a stated reason ({why or 'none given'}); "
        "decorate it with @deviates('reason')"
    )
    return result


def _unsupported(
    report: pytest.TestReport, result: Result, demand: _Demand, excinfo: pytest.ExceptionInfo[BaseException] | None
) -> Result:
    named = ", ".join(demand.refused)
    if excinfo is None:
        report.outcome = "failed"
        report.longrepr = f"{result.dialect} declares {named} unsupported, but this test passes; declare what is true"
        return result
    if not demand.refused_by(excinfo.value):
        text = f"{result.dialect} declares {named} unsupported; it must refuse it with a clear error, and did not"
        report.sections.append(("conformance", text))
        return result
    reason = "; ".join(demand.refused.values())
    path, line, _ = report.location
    report.outcome = "skipped"
    report.longrepr = (path, (line or 0) + 1, f"refused: {reason}")
    return attrs.evolve(result, status=REFUSED, reason=reason)


def is_clear_refusal(error: BaseException, kinds: Iterable[type[BaseException]]) -> bool:
    """Tell whether an error says that a feature is refused: of one of these kinds, with a hint what to do instead."""
    from dataflow.errors import DataFlowError, WorkflowBuildError, WorkflowExecutionError

    kinds = tuple(kinds)
    if isinstance(error, WorkflowBuildError):
        codes = {str(getattr(kind, "code", "")) for kind in kinds} | {"unsupported"}
        return any(problem.code in codes and problem.hint for problem in error.problems)
    if isinstance(error, WorkflowExecutionError) and error.__cause__ is not None:
        return is_clear_refusal(error.__cause__, kinds)
    return isinstance(error, DataFlowError) and isinstance(error, kinds) and bool(error.hint)


@pytest.fixture
def scorecard(request: pytest.FixtureRequest) -> Scorecard:
    """The score of this module's suites, of the tests that ran before; for a test at the end of the module."""
    plugin = request.config.pluginmanager.get_plugin("dataflow-scorecard")
    assert isinstance(plugin, ScorecardPlugin)
    return plugin.card(module_of(request.node))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--scorecard-json``."""
    group = parser.getgroup("dataflow")
    group.addoption("--scorecard-json", metavar="FILE", help="write the scores of conformance suites to FILE as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of the suites, and keep the score."""
    config.addinivalue_line("markers", f"{REQUIRES}(*capabilities, refusal): set by dataflow.testing.conformance")
    config.addinivalue_line("markers", f"{DEVIATES}(reason): set by dataflow.testing.conformance")
    config.pluginmanager.register(ScorecardPlugin(config), "dataflow-scorecard")
