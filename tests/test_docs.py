"""The documentation is true: its code runs, its generated pages are current, its links lead somewhere.

The code of a page runs on SQLite and on PostgreSQL; what it prints, and what its statements give, must be the same.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
FILES = {"testing.md", "tutorial.md"}
"""Pages whose blocks are files: tests of their own write and run them."""
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
URL = re.compile(r'"(?:sqlite:///[^"]*|:memory:|postgresql://[^"]*)"')

COMMAND = "from dataflow.cli import main; main()"
RANDOM = re.compile(r'"(?:\d{4}-\d\d-\d\dT[^"]*|[0-9a-f]{32})"')  # instants and ids of runs

# Runs a page, and prints the values of its top-level statements and variables as JSON, one per line, after what it
# printed itself. Random ids are numbered; instants and other objects are shown as the name of their class.
RUNNER = """
import ast, decimal, enum, json, re, sys, uuid

page = ast.parse(open(sys.argv[1], encoding="utf-8").read())
for number, statement in enumerate(page.body):
    if isinstance(statement, ast.Expr):
        page.body[number] = ast.Assign([ast.Name(f"value_{number}", ast.Store())], statement.value)
names = {"__name__": "__main__"}
exec(compile(ast.fix_missing_locations(page), "page.py", "exec"), names)

seen = {}

def shown(value):
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if isinstance(value, uuid.UUID) or (isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value)):
        return f"uuid {seen.setdefault(value, len(seen))}"
    if isinstance(value, (decimal.Decimal, enum.Enum)):
        return str(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__

for name, value in names.items():
    if not name.startswith("__"):
        print(json.dumps({name: shown(value)}))
"""


def code_of(page: Path) -> str:
    return "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))


def on_postgres(code, create_database):
    """Write PostgreSQL's URLs into the code of a page: each database it names becomes one that is empty."""
    named = {}

    def other(found):
        place = found[0] if ":memory:" not in found[0] else found.start()  # every database in memory is another one
        if place not in named:
            named[place] = create_database()
        return repr(named[place])

    return URL.sub(other, code)


def run(folder, code):
    script = folder / "page.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def create_database(postgres_server):
    """Return a function that creates an empty PostgreSQL database and returns its URL."""
    made = []

    def create():
        made.append(postgres_server.create_database())
        return made[-1]

    yield create
    for url in made:
        postgres_server.drop_database(url)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if code_of(p) and p.name not in FILES], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_code_of_a_page_runs_in_an_empty_folder_and_gives_the_same_on_both_databases(
    page, tmp_path, create_database
):
    code = code_of(page)
    there = run(tmp_path, on_postgres(code, create_database))
    if "postgresql://" in code or not URL.search(code):
        return  # a page about PostgreSQL, or about no database
    assert run(tmp_path, code) == there


def test_the_quick_start_prints_what_the_readme_says(tmp_path, create_database):
    first = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    for code in (first, on_postgres(first, create_database)):
        for _ in range(2):  # running it again keeps Ada
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
            )
            assert done.stdout == "2 Ada\n"


def test_the_command_line_prints_the_same_json_for_the_quick_start(tmp_path, create_database):
    first = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    printed = []
    for code in (first, on_postgres(first, create_database)):
        (tmp_path / "shop.py").write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "run", "shopping", "--app", "shop.py"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        printed.append(RANDOM.sub("…", done.stdout))
    assert '"created": 2' in printed[0]
    assert printed[0] == printed[1]


def generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "hooks.md", "nodes.md", "errors.md", "cli.md", "parity.md"])
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


# -- the site ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without a network; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-b",
        "html",
        "-d",
        folder / "trees",
        "docs",
        folder / "html",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_in_the_site_and_in_its_index_for_programs(site):
    pages = [page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES if (ROOT / "docs") in page.parents]
    assert len(pages) > 20
    index = (site / "llms.txt").read_text(encoding="utf-8")
    everything = (site / "llms-full.txt").read_text(encoding="utf-8")
    for page in pages:
        assert (site / f"{page}.html").is_file()
        if page.name not in ("index", "releasing"):
            assert f"({page}.html): " in index, page
            title = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").partition("# ")[2].partition("\n")[0]
            assert f"# {title}\n" in everything


def test_the_site_needs_no_network_to_be_viewed(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="([^"]*)"', text)
        assert [source for source in loaded if "//" in source] == [], page
