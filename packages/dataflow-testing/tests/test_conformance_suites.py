"""The suites themselves: complete, backed by capabilities, without knowledge of a dialect; how they are judged."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

from dataflow.errors import InputError, NotYetAvailable, Problem, WorkflowBuildError, WorkflowExecutionError
from dataflow.testing import conformance
from dataflow.testing.conformance import declaration
from dataflow.testing.conformance.capabilities import CAPABILITIES, faults
from dataflow.testing.conformance.suite import Suite, deviates, requires
from dataflow.testing.scorecard import REQUIRES, Result, Scorecard, is_clear_refusal

FOLDER = Path(conformance.__file__).parent
MODULES = [importlib.import_module(f"{conformance.__name__}.{found.name}") for found in pkgutil.iter_modules([FOLDER])]
STANDARD = conformance.SUITES


def marks_of(thing):
    return [mark for mark in getattr(thing, "pytestmark", []) if mark.name == REQUIRES]


def cases_of(suite):
    return [getattr(suite, name) for name in dir(suite) if name.startswith("test")]


def required():
    """Return every capability that a test needs, by its class, itself or one of its parameters."""
    found = set()
    for suite in STANDARD.values():
        for thing in (suite, *cases_of(suite)):
            found |= {name for mark in marks_of(thing) for name in mark.args}
            for mark in getattr(thing, "pytestmark", []):
                if mark.name == "parametrize":
                    inner = [inner for value in mark.args[1] for inner in getattr(value, "marks", ())]
                    found |= {name for one in inner for name in getattr(one, "mark", one).args}
    return found


# -- what there is ----------------------------------------------------------------------------------------------------
def test_every_capability_is_backed_by_a_test_and_told_in_a_sentence():
    assert required() == set(CAPABILITIES)
    assert all(sentence[0].isupper() or sentence[0] == "`" for sentence in CAPABILITIES.values())
    assert all(sentence.endswith(".") for sentence in CAPABILITIES.values())


def test_every_suite_of_the_package_is_a_standard_suite_and_comes_with_the_star():
    classes = [cls for module in MODULES for cls in vars(module).values() if inspect.isclass(cls)]
    written = {cls.__name__ for cls in classes if issubclass(cls, Suite) and cls.__name__.startswith("Test")}
    assert written == set(STANDARD)
    assert {*STANDARD, "deviates"} == set(conformance.__all__)


@pytest.mark.parametrize("suite", STANDARD.values(), ids=STANDARD)
def test_a_suite_has_an_area_a_docstring_and_tests_with_names_of_their_own(suite):
    assert suite.conformance_area
    assert inspect.getdoc(suite)
    assert len(cases_of(suite)) >= 1
    assert all(not inspect.iscoroutinefunction(test) for test in cases_of(suite)), "no plugin for async tests is needed"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_suite_knows_no_dialect_and_nothing_private(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert not name.startswith(("dataflow.sqlite", "dataflow.postgres", "sqlite3", "aiosqlite", "asyncpg"))
            assert not any(part.startswith("_") for part in name.split("."))
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            assert own or not node.attr.startswith("_") or node.attr.startswith("__"), node.attr


# -- decorators -------------------------------------------------------------------------------------------------------
def test_a_capability_that_does_not_exist_cannot_be_required():
    with pytest.raises(ValueError, match="there is no capability 'array'; did you mean 'arrays'"):
        requires("array")


@pytest.mark.parametrize("reason", ["", "  ", None, len])
def test_a_deviation_needs_a_reason(reason):
    with pytest.raises(ValueError, match="deviates takes the reason as text"):
        deviates(reason)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, []),
        ({"json": "full", "arrays": "emulated: JSON text", "regex": "unsupported: none"}, []),
        ({"jsn": "full"}, ["there is no capability 'jsn'; did you mean 'json'?"]),
        ({"json": "some"}, ["json: 'some' is not a level; write one of full, emulated, unsupported"]),
        ({"json": "unsupported: "}, ["json: unsupported needs a reason: 'unsupported: …'"]),
    ],
)
def test_a_declaration_is_checked(declared, expected):
    assert faults(declared) == expected


# -- the module of a dialect's author ---------------------------------------------------------------------------------
def module(**changes):
    """Return a module as the star fills it, with changes."""
    made = ModuleType("test_acme")
    vars(made).update({**STANDARD, **changes})
    return made


def derived(suite, **body):
    return type(suite.__name__, (suite,), body)


def problems(found):
    checks = (declaration.missing_suites, declaration.changed_tests, declaration.skipped_tests)
    return [problem for check in checks for problem in check(found, STANDARD)]


def counts_otherwise(self):
    """Replace a standard test."""


PAGING, TEST = conformance.TestPaging, "test_count_only_counts"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TestPaging": derived(PAGING, test_of_their_own=lambda self: None)},
        {"TestPaging": derived(PAGING, **{TEST: deviates("our own way")(counts_otherwise)})},
        {"TestPaging": PAGING, "TestTheirPaging": derived(PAGING)},
        {"TestPaging": deviates("none of it")(derived(PAGING, __test__=False))},
        {"TestPaging": deviates("none of it")(derived(PAGING, **{TEST: None}))},
        {"TestPaging": pytest.mark.skip(deviates("none of it")(derived(PAGING)))},
    ],
)  # fmt: skip
def test_additions_and_deviations_with_a_reason_are_accepted(changes):
    assert problems(module(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"TestPaging": None}, "TestPaging is not there: from dataflow.testing.conformance import *"),
        ({"TestPaging": derived(PAGING, __test__=False)}, "TestPaging is not there: from dataflow.testing"),
        ({"TestPaging": derived(PAGING, **{TEST: None})}, f"TestPaging removes {TEST} without @deviates('reason')"),
        (
            {"TestPaging": derived(PAGING, **{TEST: lambda self: None})},
            f"TestPaging replaces {TEST} without @deviates('reason')",
        ),
        ({"TestPaging": derived(PAGING, reads_only=False)}, "TestPaging replaces reads_only without"),
        ({"TestPaging": derived(PAGING, clean=lambda self: None)}, "TestPaging replaces clean without"),
        (
            {"TestPaging": derived(derived(PAGING, **{TEST: None}))},
            f"TestPaging removes {TEST} without @deviates('reason')",
        ),
        ({"TestPaging": pytest.mark.skip(derived(PAGING))}, "TestPaging is marked skip"),
        ({"TestPaging": pytest.mark.xfail(derived(PAGING))}, "TestPaging is marked xfail"),
        ({"pytestmark": [pytest.mark.skipif(True, reason="x")]}, "the module is marked skipif"),
        ({"pytestmark": pytest.mark.xfail}, "the module is marked xfail"),
    ],
)
def test_what_is_left_out_without_a_reason_is_found(changes, problem):
    assert any(found.startswith(problem) for found in problems(module(**changes))), problems(module(**changes))


# -- judgement --------------------------------------------------------------------------------------------------------
REFUSAL = NotYetAvailable("acme does not support arrays", hint="use another database", code="unsupported")


def workflow_error(cause):
    error = WorkflowExecutionError("node failed", node_id="n", node_type="T", run_id="r", results={})
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "clear"),
    [
        (REFUSAL, True),
        (workflow_error(REFUSAL), True),
        (WorkflowBuildError("1 problem", problems=[Problem("unsupported", "no arrays", "use JSON")]), True),
        (WorkflowBuildError("1 problem", problems=[Problem("unsupported", "no arrays")]), False),
        (NotYetAvailable("acme does not support arrays"), False),
        (InputError("wrong", hint="do this"), False),
        (workflow_error(NotImplementedError()), False),
        (NotImplementedError(), False),
        (AssertionError(), False),
    ],
)
def test_a_refusal_is_clear_if_it_is_of_the_right_kind_and_says_what_to_do(error, clear):
    assert is_clear_refusal(error, (NotYetAvailable,)) is clear


def result(status, **capabilities):
    levels = {name: tuple(level.split(": ")) if ": " in level else (level, "") for name, level in capabilities.items()}
    return Result(f"test_acme.py::Test::test_{len(capabilities)}", "test_acme.py", "area", "acme", levels, status)


def test_features_are_told_as_the_tests_found_them():
    card = Scorecard("test_acme.py", (
        result("passed", json="full"),
        result("emulated", json="full", arrays="emulated: text"),
        result("refused", regex="unsupported: none", ilike="full"),
        result("failed", uuid="full", dates="full"),
        result("passed", dates="full"),
        result("deviates", bulk="full"),
    ), 9)  # fmt: skip
    assert card.features() == {
        "arrays": "emulated: text", "dates": "failing", "json": "native", "regex": "refused: none", "uuid": "failing",
    }  # fmt: skip
    assert card.not_run == 3
    assert "not run: 3 of 9 tests" in card.lines()
