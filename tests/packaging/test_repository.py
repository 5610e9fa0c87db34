"""The files at the root: pins, change notes and the two scripts."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

SHELLS = [shell for shell in ("sh", "dash") if shutil.which(shell)]


@pytest.fixture
def pins(root):
    """Return the pinned names; a line that is no plain pin fails here."""
    lines = (root / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in requirements:
        assert requirement.url is None
        assert [specifier.operator for specifier in requirement.specifier] == ["=="]
    return {requirement.name.lower() for requirement in requirements}


@pytest.fixture
def checkout(root, tmp_path):
    """Return a copy of what ./dev reads, in a folder with a space in its name, without any environment."""
    folder = tmp_path / "a check out"
    (folder / "packages").mkdir(parents=True)
    for name in ("dev", "constraints.txt", "pyproject.toml"):
        shutil.copy(root / name, folder)
    for project in root.glob("packages/*/pyproject.toml"):
        (folder / project.relative_to(root).parent).mkdir()
        shutil.copy(project, folder / project.relative_to(root))
    return folder


@pytest.fixture
def only_python(tmp_path, monkeypatch):
    """Return a function that makes every Python on PATH answer with one script."""

    def shadow(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("python3", "python3.11", "python3.12", "python3.13"):
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("PYTHON", raising=False)

    return shadow


def dev(checkout, *arguments, shell="sh"):
    command = [shell, checkout / "dev", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout.parent)


def test_constraints_pin_all_that_is_declared(root, packages, pins):
    group = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    own = {package.name for package in packages}
    declared = {Requirement(line).name for line in group}
    declared |= {found.name for package in packages for found in package.requirements(*package.extras)}
    assert {name.lower() for name in declared - own} - pins == set()


def test_constraints_hold_no_address_and_no_option(root):
    text = (root / "constraints.txt").read_text()
    assert "://" not in text
    assert [line for line in text.splitlines() if line.startswith("-")] == []


def test_the_change_notes_tell_of_the_current_version(root, package):
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--config", root / "pyproject.toml"]
    options = ["--dir", package.folder, "--name", package.name, "--version", package.project["version"]]
    draft = subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
    released = (package.folder / "CHANGELOG.md").read_text()
    assert "- " in draft or f"## {package.project['version']} " in released


@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_a_script_can_be_started_and_names_no_address(root, script):
    assert os.access(root / script, os.X_OK)
    assert "://" not in (root / script).read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_dev_is_plain_posix_shell(checkout, shell):
    subprocess.run([shell, "-n", checkout / "dev"], check=True)
    shown = dev(checkout, "help", shell=shell)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "usage: ./dev COMMAND" in shown.stdout


def test_dev_refuses_an_unknown_command(checkout):
    refused = dev(checkout, "tset")
    assert refused.returncode == 1
    assert refused.stderr.endswith("dev: unknown command: tset\n")


def test_dev_says_which_python_it_looked_for(checkout, only_python):
    only_python("exit 127")
    refused = dev(checkout, "test")
    assert refused.returncode == 1
    assert refused.stderr == (
        "dev: Python 3.11 or newer is needed; tried: python3.13 python3.12 python3.11 python3."
        " Install one, or name it: PYTHON=/path/to/python ./dev ...\n"
    )
    assert not (checkout / ".venv").exists()


def test_dev_tries_no_other_python_than_the_one_it_was_given(checkout, monkeypatch):
    monkeypatch.setenv("PYTHON", "no such python")
    refused = dev(checkout, "test")
    assert refused.returncode == 1
    assert "tried: no such python." in refused.stderr


def test_dev_names_the_package_that_brings_ensurepip(checkout, only_python):
    only_python('case "$2" in *ensurepip*) exit 1 ;; *print*) echo 3.12 ;; esac')
    refused = dev(checkout, "test")
    assert refused.returncode == 1
    assert refused.stderr == (
        "dev: python3.13 cannot create environments because its venv or ensurepip module is missing."
        " On Debian and Ubuntu: apt install python3.12-venv (or python3-venv).\n"
    )
    assert not (checkout / ".venv").exists()
