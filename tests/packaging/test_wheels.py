"""What is inside the wheels: every path has one owner, and the metadata keeps DESIGN.md §2."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

META = "workflow-dataflow"
pytestmark = pytest.mark.packaging


def test_every_package_and_the_meta_distribution_builds(wheels, packages):
    assert set(wheels) == {META, *(package.name for package in packages)}


def test_the_meta_wheel_installs_no_file(wheels):
    assert wheels[META].files == []


def test_no_path_is_in_two_wheels(wheels):
    owners = Counter(path for wheel in wheels.values() for path in wheel.files)
    assert [path for path, count in owners.items() if count > 1] == []


def test_only_core_owns_the_init_of_the_namespace(wheels, core):
    owners = [name for name, wheel in wheels.items() if Path("dataflow/__init__.py") in wheel.files]
    assert owners == [core.name]


def test_the_namespace_is_extended_before_anything_else_is_done(core):
    first = ast.parse((core.folder / "src/dataflow/__init__.py").read_text()).body[0]
    assert ast.unparse(first) == "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"


def test_a_wheel_holds_exactly_the_source_tree(wheels, package):
    assert sorted(wheels[package.name].files) == sorted(package.files)


def test_a_part_stays_inside_its_own_module(wheels, part):
    own = Path(*part.module.split("."))
    assert [path for path in wheels[part.name].files if not path.is_relative_to(own)] == []


def test_a_package_is_marked_as_typed(wheels, package):
    assert Path(*package.module.split("."), "py.typed") in wheels[package.name].files


def test_no_wheel_can_be_uploaded_by_accident(wheels):
    for wheel in wheels.values():
        assert "Private :: Do Not Upload" in wheel.metadata.get_all("Classifier")


def test_only_our_own_core_and_parts_have_an_upper_bound(wheels):
    for name, wheel in wheels.items():
        for requirement in map(Requirement, wheel.metadata.get_all("Requires-Dist", [])):
            operators = sorted(specifier.operator for specifier in requirement.specifier)
            assert operators == (["<", ">="] if requirement.name in wheels else [">="]), f"{name}: {requirement}"


def test_a_part_requires_core_and_no_other_part(wheels, part, core):
    required = {Requirement(line).name for line in wheels[part.name].metadata.get_all("Requires-Dist")}
    assert required & set(wheels) == {core.name}
