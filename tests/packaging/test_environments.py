"""Every way to install: alone, with core, half wheel half editable, and at the lowest versions we declare."""

import pytest

pytestmark = pytest.mark.packaging


@pytest.fixture
def pins(root):
    return ["--constraint", root / "constraints.txt"]


def requirement(package, wheels, *extras):
    return f"{package.name}[{','.join(extras)}] @ {wheels[package.name].path.as_uri()}"


def test_core_works_alone_and_its_command_line_with_the_extra(environment, wheels, core, pins):
    environment.install(requirement(core, wheels), *pins)
    environment.run("import importlib.util as u; assert not (u.find_spec('click') or u.find_spec('rich'))")
    environment.import_all(core.modules_without_extras)

    environment.install(requirement(core, wheels, "cli"), *pins)
    environment.import_all(core.modules_with("cli"))


def test_a_part_works_with_core_and_nothing_else(environment, wheels, core, part, pins):
    environment.install(requirement(core, wheels), requirement(part, wheels), *pins)
    environment.import_all(part.modules_without_extras)
    environment.run(
        "import sys; from importlib.metadata import distribution\n"
        "points = distribution(sys.argv[1]).entry_points\n"
        "assert points.select(group='dataflow.plugins')\n"
        "for point in points: point.load()",
        part.name,
    )


@pytest.mark.parametrize("editable", ["core", "parts"])
def test_wheels_and_editable_installs_mix(environment, wheels, packages, core, pins, editable):
    chosen = []
    for package in packages:
        from_source = (package is core) == (editable == "core")
        chosen += ["--editable", package.folder] if from_source else [requirement(package, wheels)]
    environment.install(*chosen, *pins)
    environment.import_all([package.module for package in packages])


def test_everything_imports_at_the_lowest_declared_versions(environment, wheels, packages, tmp_path):
    declared = [found for package in packages for found in package.requirements(*package.extras)]
    lowest = [str(found).replace(">=", "==") for found in declared if found.name not in wheels]
    (tmp_path / "lowest.txt").write_text("\n".join(lowest))
    chosen = [requirement(package, wheels, *package.extras) for package in packages]
    environment.install(*chosen, "--constraint", tmp_path / "lowest.txt")
    environment.import_all([name for package in packages for name in package.modules])
