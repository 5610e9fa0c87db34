"""The suites about the suites: is the declaration well formed, and is every standard test there, as it was written?

`TestDeclaration` itself has to be in every module with suites, as it is; the others refuse to run without it.
"""

import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import pytest

from dataflow.testing.conformance.bench import Bench
from dataflow.testing.conformance.capabilities import faults
from dataflow.testing.conformance.suite import Suite
from dataflow.testing.scorecard import DEVIATES

_SKIPS = ("skip", "skipif", "xfail")


def _marks(thing: Any) -> dict[str, Any]:
    """Return the marks of a class, function or module itself, by name."""
    found = thing.__dict__.get("pytestmark", []) if inspect.isclass(thing) else getattr(thing, "pytestmark", [])
    listed = found if isinstance(found, list) else [found]
    marks: list[Any] = [getattr(item, "mark", item) for item in listed]  # a decorator, or its mark
    return {mark.name: mark for mark in marks}


def _excused(thing: Any) -> bool:
    return DEVIATES in _marks(thing)


def _added(cls: type, standard: type) -> Iterator[tuple[str, Any]]:
    """Yield what `cls` and the classes between it and the standard suite say anew."""
    for level in cls.__mro__[: cls.__mro__.index(standard)]:
        if not _excused(level):
            yield from ((name, value) for name, value in vars(level).items() if not name.startswith("__"))


def classes_of(module: ModuleType, standard: type) -> list[type]:
    """Return the classes of a module that are a standard suite or derive from it."""
    return [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, standard)]


def missing_suites(module: ModuleType, standard: Mapping[str, type]) -> list[str]:
    """Return the standard suites that a module lacks, or has but hides from pytest."""
    found = []
    for name, suite in standard.items():
        classes = classes_of(module, suite)
        hidden = not any(getattr(cls, "__test__", True) and cls.__name__.startswith("Test") for cls in classes)
        if hidden and not any(_excused(cls) for cls in classes):
            found.append(f"{name} is not there: from dataflow.testing.conformance import *")
    return found


def changed_tests(module: ModuleType, standard: Mapping[str, type]) -> list[str]:
    """Return the standard tests and fixtures that classes of a module remove or replace without a reason."""
    found = []
    for suite in standard.values():
        names = {name for level in suite.__mro__[:-1] for name in vars(level)}
        for cls in classes_of(module, suite):
            for name, value in _added(cls, suite):
                if name in names and name != "pytestmark" and not _excused(value):
                    verb = "removes" if value is None else "replaces"
                    found.append(f"{cls.__name__} {verb} {name} without @deviates('reason')")
    return found


def skipped_tests(module: ModuleType, standard: Mapping[str, type]) -> list[str]:
    """Return the marks by which a module skips standard tests, or expects them to fail, without a reason."""
    found = [f"the module is marked {name}" for name in _marks(module) if name in _SKIPS]
    for suite in standard.values():
        for cls in classes_of(module, suite):
            if not _excused(cls):
                found += [f"{cls.__name__} is marked {name}" for name in _marks(cls) if name in _SKIPS]
            for name, value in _added(cls, suite):
                if name.startswith("test") and not _excused(value):
                    found += [f"{cls.__name__}.{name} is marked {mark}" for mark in _marks(value) if mark in _SKIPS]
    return found


class TestDeclaration(Suite):
    """The declaration is well formed, and the module holds the whole suite."""

    conformance_area: ClassVar[str] = "declaration"

    @pytest.fixture
    def module(self, request: pytest.FixtureRequest) -> ModuleType:
        """The module of the dialect's author."""
        found = request.module
        assert isinstance(found, ModuleType)
        return found

    @pytest.fixture
    def standard(self) -> Mapping[str, type]:
        """Every standard suite, by name."""
        from dataflow.testing import conformance

        return conformance.SUITES

    @staticmethod
    def none_of(found: list[str]) -> None:
        """Fail with everything that was found."""
        assert not found, "\n" + "\n".join(found)

    def test_the_declaration_names_known_capabilities_with_a_level_and_a_reason(self, bench: Bench) -> None:
        self.none_of(faults(bench.db.core.dialect.capabilities))

    def test_every_standard_suite_is_there(self, module: ModuleType, standard: Mapping[str, type]) -> None:
        self.none_of(missing_suites(module, standard))

    def test_no_standard_test_is_removed_or_replaced_without_a_reason(
        self, module: ModuleType, standard: Mapping[str, type]
    ) -> None:
        self.none_of(changed_tests(module, standard))

    def test_no_standard_test_is_skipped_without_a_reason(
        self, module: ModuleType, standard: Mapping[str, type]
    ) -> None:
        self.none_of(skipped_tests(module, standard))
