"""A stranger's project runs the suites: what it has to write, and what is caught when it writes something else.

Its dialects are SQLite in memory under other names and with other declarations, so workflow-dataflow-sqlite must be
installed. Each run is a process of its own, as it would be there.
"""

import json
import re

import pytest

pytest_plugins = ["pytester"]

DIALECTS = """
import attrs
from dataflow.dialect import refuse_unsupported
from dataflow.plugins import DialectSpec, hookimpl
from dataflow.sqlite.dialect import SQLite

dataflow_api = "1.0"
ONE = {
    "shared_database": "unsupported: each instance has its own",
    "concurrent_writers": "unsupported: one writer",
    "grants": "unsupported: there are no users",
    "schema_editor": "unsupported: none is named",
}
DECLARATIONS = {
    "acme": {**ONE, "arrays": "emulated: JSON text", "regex": "unsupported: Acme knows no patterns"},
    "acmemodest": {**ONE, "ilike": "unsupported: so they think"},
    "acmesilent": {**ONE, "ilike": "unsupported: and it fails in a way of its own"},
    "acmewrong": {**ONE},
    "acmeshy": {**ONE, "change_log": "unsupported: so they think", "read_only": "unsupported: so they think"},
    "acmeproud": {**ONE, "schema_editor": "full", "context": "unsupported: connections know nothing"},
    "acmetypo": {**ONE, "regexp": "full", "json": "partly: some", "arrays": "emulated"},
}


class Acme(SQLite):
    def connect(self, url, config):
        return super().connect(attrs.evolve(url, path=":memory:"), config)

    def identity(self, url):
        return ""

    def text_match(self, op, column, bind):
        if op in ("$regex", "$iregex"):
            refuse_unsupported(self, "regex")
        if op == "$ilike" and self.name == "acmesilent":
            raise NotImplementedError("later")
        if op == "$ilike" and self.name == "acmewrong":
            op = "$like"
        return super().text_match(op, column, bind)


class Unknowing(Acme):
    def enter(self, session, context):
        refuse_unsupported(self, "context")
        yield from super().enter(session, context)


for declared in DECLARATIONS:
    globals()[declared] = type(declared, (Unknowing,), {"name": declared})


@hookimpl
def dataflow_dialects():
    return [DialectSpec(name, (name,), f"acme_dialects:{name}", found) for name, found in DECLARATIONS.items()]
"""

MODULE = """
import pytest
from dataflow.testing.conformance import *


@pytest.fixture(scope="module")
def database_url():
    return "{scheme}://here/app"
"""

FAULTY = {
    "a suite is missing": ("TestLimits = None", "TestLimits is not there: from dataflow.testing.conformance import *"),
    "a suite is hidden": ("class TestLimits(TestLimits):\n    __test__ = False", "TestLimits is not there"),
    "a test is removed": (
        "class TestPaging(TestPaging):\n    test_count_only_counts = None",
        "TestPaging removes test_count_only_counts without @deviates('reason')",
    ),
    "a test is replaced": (
        "class TestPaging(TestPaging):\n    def test_count_only_counts(self):\n        pass",
        "TestPaging replaces test_count_only_counts without @deviates('reason')",
    ),
    "a fixture is replaced": (
        "class TestPaging(TestPaging):\n    @pytest.fixture\n    def calls(self, bench):\n        return bench",
        "TestPaging replaces calls without @deviates('reason')",
    ),
    "a suite is marked": (
        "@pytest.mark.skip(reason='slow')\nclass TestPaging(TestPaging):\n    pass",
        "TestPaging is marked skip",
    ),
    "the module is marked": (
        "pytestmark = pytest.mark.xfail(reason='soon')",
        "a standard test was skipped, or expected to fail, without a stated reason (soon)",
    ),
    "the suite about suites is missing": ("del TestDeclaration", "the module lacks TestDeclaration"),
    "the plugin is off": ("", "which is switched off"),
}


@pytest.fixture
def outside(pytester, monkeypatch):
    """A project with its own dialects, made known by an installed distribution, and no settings of ours."""
    info = pytester.mkdir("acme-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dataflow.plugins]\nacme = acme_dialects\n")
    pytester.makepyfile(acme_dialects=DIALECTS)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))

    def run(modules, *options):
        for name, (scheme, more) in modules.items():
            (pytester.path / f"test_{name}.py").write_text(f"{MODULE.format(scheme=scheme)}\n\n{more}\n")
        quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:faker")
        return pytester.runpytest_subprocess(*quick, *options, timeout=100)

    return run


def places(result, test):
    """Return module -> outcome of one test, as the summary lists failures."""
    lines = [line for line in result.outlines if line.startswith(("FAILED", "ERROR")) and test in line]
    return {re.search(r"test_(\w+)\.py", line)[1] for line in lines}


def test_a_dialect_is_proven_by_a_module_of_ten_lines_and_a_scorecard_tells(outside, pytester):
    assert len([line for line in MODULE.strip().splitlines() if line]) <= 10
    chosen = "TestDeclaration or TestPaging or pattern or TestListFilters"
    result = outside({"acme": ("acme", "")}, "-k", chosen, "--scorecard-json", "card.json", "-rs")
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes
    assert (outcomes["refused"], result.ret) == (3, 0)
    result.stdout.fnmatch_lines([
        "*= conformance: acme, test_acme.py =*",
        "area * passed *failed *emulated * refused",
        "declaration * 4 * 0 * 0 * 0",
        "filters * 0 * 0 * 1 * 3",
        "sorting and paging * 0 * 0 * 0",
        "total *",
        "not run: * of * tests",
    ])  # fmt: skip
    (card,) = json.loads((pytester.path / "card.json").read_text(encoding="utf-8"))
    assert (card["dialect"], card["failures"], card["deviations"]) == ("acme", [], {})
    assert card["areas"]["filters"] == {"passed": 0, "failed": 0, "emulated": 1, "refused": 3, "deviates": 0}
    assert card["features"]["regex"] == "refused: Acme knows no patterns"
    assert card["features"]["arrays"] == "emulated: JSON text"
    assert card["not_run"] > 400


def test_a_declaration_that_is_not_true_fails_and_a_failing_assert_shows_its_values(outside):
    modules = {name: (f"acme{name}", "") for name in ("modest", "silent", "wrong", "typo")}
    result = outside(modules, "-k", "TestDeclaration or ilike")
    assert places(result, "test_ilike_ignores_case") == {"modest", "silent", "wrong"}
    assert places(result, "test_the_declaration_names_known_capabilities") == {"typo"}
    text = result.stdout.str()
    assert "acmemodest declares ilike unsupported, but this test passes; declare what is true" in text
    assert "acmesilent declares ilike unsupported; it must refuse it with a clear error, and did not" in text
    assert "there is no capability 'regexp'; did you mean 'regex'?" in text
    assert "json: 'partly' is not a level; write one of full, emulated, unsupported" in text
    assert "arrays: emulated needs a reason: 'emulated: …'" in text
    assert re.search(r"assert \{.+\} == \{\}", text)  # of acmewrong, by rewritten asserts
    assert re.search(r"\{'name': \{'\$ilike': 'ANNA%'\}\}.*: \(\[\], 0, \[1, 2\]\)", text)


def test_what_the_database_watches_over_and_how_schemas_change_is_declared_truly_too(outside):
    modules = {name: (f"acme{name}", "") for name in ("shy", "proud")}
    tests = (
        "writes_again",
        "told_in_order",
        "names_may_be_any_text",
        "names_who_made",
        "a_note_is_about",
        "test_numbers",
    )
    result = outside(modules, "-k", " or ".join(tests))
    assert places(result, "writes_again") == {"shy"}
    assert places(result, "told_in_order") == {"proud"}
    assert not places(result, "TestContext")
    assert not places(result, "TestChangeLog")
    text = result.stdout.str()
    assert "acmeshy declares read_only unsupported, but this test passes; declare what is true" in text
    assert "acmeproud has no schema editor" in text
    assert result.parseoutcomes()["refused"] == 1 + 6 + 10 + 2  # both are right about the rest


def test_what_a_module_leaves_out_without_a_reason_fails(outside):
    modules = {f"m{number}": ("acme", more) for number, (more, _) in enumerate(FAULTY.values()) if more}
    result = outside(modules, "-k", "TestDeclaration or test_count_only_counts")
    text = result.stdout.str()
    for number, (more, message) in enumerate(FAULTY.values()):
        if more:
            assert message in text, more
            assert re.search(rf"^(FAILED|ERROR) test_m{number}\.py", text, re.MULTILINE), more
    assert "a standard test was skipped, or expected to fail, without a stated reason (Skipped: slow)" in text


def test_without_the_plugin_nothing_is_proven(outside):
    off = ("-p", "no:dataflow", "-p", "no:dataflow.testing.scorecard", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    result = outside({"off": ("acme", "")}, *off, "-k", "test_count_only_counts")
    assert "passed" not in result.parseoutcomes()
    assert FAULTY["the plugin is off"][1] in result.stdout.str()


def test_a_deviation_with_a_reason_is_shown_and_accepted(outside, pytester):
    more = """
class TestPaging(TestPaging):
    @deviates("Acme counts in its own way")
    def test_count_only_counts(self, bench):
        assert bench.count("Book") == {"count": 6}


@deviates("Acme has no limits")
class TestLimits(TestLimits):
    __test__ = False


@deviates("Acme is alone")
@pytest.mark.skip(reason="see above")
class TestInclude(TestInclude):
    pass
"""
    result = outside({"own": ("acme", more)}, "-k", "TestDeclaration or TestPaging or TestInclude or TestLimits",
                     "--scorecard-json=card.json")  # fmt: skip
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(["*deviates: TestPaging::test_count_only_counts: Acme counts in its own way"])
    (card,) = json.loads((pytester.path / "card.json").read_text(encoding="utf-8"))
    assert card["areas"]["sorting and paging"]["deviates"] == 1
    assert set(card["deviations"].values()) == {"Acme counts in its own way", "Acme is alone"}
    assert "limits" not in card["areas"]
