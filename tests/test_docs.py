"""The documentation is true: its code runs, its generated pages are current, its links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def code_of(page: Path) -> str:
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [p for p in PAGES if code_of(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_code_of_a_page_runs_in_an_empty_folder(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text(code_of(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_quick_start_prints_what_the_readme_says(tmp_path):
    first = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    for _ in range(2):  # running it again keeps Ada
        done = subprocess.run(
            [sys.executable, "-c", first], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "2 Ada\n"


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "hooks.md", "nodes.md", "errors.md", "cli.md"])
def test_a_generated_page_is_current(page):
    written = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert written == generator().PAGES[page](), "run python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_project_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_no_page_names_a_private_attribute():
    for page in PAGES:
        assert not re.search(r"\b(db|self)\._", code_of(page)), page
