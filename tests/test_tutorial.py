"""The tutorial, and the page on testing, do what they say: files are written, commands run, and print what is shown.

A python block that begins with ``# name.py`` is a file. The text block after commands is what they print: its lines in
this order, maybe with others between. Commands that install, or go to a folder, are left out: the packages are there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITHOUT = "-p no:hypothesispytest"
"""pytest imports all of hypothesis to say that nothing failed."""
INSTALLING = re.compile(r"^(?:python3 -m venv|pip install|cd|mkdir) .*\n", re.MULTILINE)


def blocks(page):
    """Return the blocks of a page: (kind, text)."""
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


def run(folder, commands, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DATAFLOW_", "DATABASE_"))}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", INSTALLING.sub("", commands)],
        cwd=folder, env={**clean, "PATH": path, "PYTEST_ADDOPTS": WITHOUT, **variables},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def shows(printed, expected):
    """Whether the lines of a text stand in what was printed, in their order."""
    lines = iter(printed.splitlines())
    return all(any(line.strip() == wanted.strip() for line in lines) for wanted in expected.splitlines())


def follow(page, folder, url, **variables):
    """Do what a page says, on a database; return how many commands were run."""
    printed = ""
    ran = 0
    for kind, text in blocks(page):
        if kind == "python":
            name = re.match(r"# (\S+\.py)\n", text)
            (folder / name[1]).write_text(text.replace("sqlite:///shop.db", url), encoding="utf-8")
        elif kind == "sh":
            printed = run(folder, text, **variables)
            ran += 1
        else:
            assert shows(printed, text), printed
    return ran


@pytest.fixture(params=["sqlite:///shop.db", "postgresql"])
def url(request):
    return request.param if request.param != "postgresql" else request.getfixturevalue("postgres_database")


def test_every_step_of_the_tutorial_does_what_it_says(tmp_path, url):
    assert follow("tutorial.md", tmp_path, url) >= 10
    drawn = [(tmp_path / name).read_text(encoding="utf-8") for name in ("checkout.svg", "models.svg")]
    assert all(picture.startswith("<svg") for picture in drawn)


def test_the_tests_of_the_page_on_testing_pass(tmp_path, url):
    assert follow("guide/testing.md", tmp_path, url, TEST_DATABASE_URL=url) >= 3


def test_the_runner_finds_a_lie():
    assert not shows("Ada 20\n", "Ada 21\n")
    assert not shows("b\na\n", "a\nb\n")
    assert shows("x\na\ny\nb\n", "a\nb\n")
