"""Write the site's llms.txt, an index for programs that read documentation (llmstxt.org), and all pages as one file."""

import re
from pathlib import Path

DOCS = Path(__file__).parent
REPOSITORY = "The same text as Markdown is in the repository, under docs/."
TITLES = {
    "Start": ("tutorial.md", "migrating.md"),
    "Guides": (
        "guide/models.md", "guide/nodes.md", "guide/workflows.md", "guide/sqlite.md", "guide/postgresql.md",
        "guide/migrations.md", "guide/testing.md", "guide/typing.md", "guide/files.md", "guide/looking.md",
        "guide/tenancy.md", "guide/soft-delete.md", "guide/versioning.md", "guide/audit.md", "guide/protection.md",
    ),
    "Plugins": ("plugins.md",),
    "Reference": tuple(f"reference/{name}.md" for name in ("nodes", "settings", "errors", "cli", "hooks", "parity")),
    "Explanation": tuple(f"explanation/{name}.md" for name in ("architecture", "guarantees", "performance")),
}  # fmt: skip
"""The pages in the order of the site."""


def index() -> str:
    """An index of all pages, in the form of llmstxt.org."""
    lines = [
        "# DataFlow",
        "",
        "> A workflow-native database framework for Python: annotated classes become workflow nodes,",
        "> which run on SQLite and PostgreSQL with the same results. Extended by plugins.",
        "",
        f"All pages in one file: llms-full.txt. Links lead to pages of this site. {REPOSITORY}",
    ]
    for title, pages in TITLES.items():
        lines += ["", f"## {title}", ""]
        for page in pages:
            head, first = _head(DOCS / page)
            lines.append(f"- [{head}]({page.removesuffix('.md')}.html): {first}")
    return "\n".join(lines) + "\n"


def _head(page: Path) -> tuple[str, str]:
    """Return a page's title, and the first sentence below it."""
    text = re.sub(r"^<!--.*?-->\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    title, _, rest = text.partition("\n")
    paragraphs = (
        part for part in rest.split("\n\n") if part.strip() and not part.lstrip().startswith(("```", "|", "#"))
    )
    plain = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", next(paragraphs, "")).replace("**", "").split())
    return title.removeprefix("# "), re.split(r"(?<=[.:;]) ", plain)[0].rstrip(".:;")


def everything() -> str:
    """All pages in one."""
    pages = [(DOCS / page).read_text(encoding="utf-8") for pages in TITLES.values() for page in pages]
    return "\n".join(["Each page begins with its title.\n", *pages])


def write(folder: Path) -> None:
    """Write both files into the folder of the site."""
    (folder / "llms.txt").write_text(index(), encoding="utf-8")
    (folder / "llms-full.txt").write_text(everything(), encoding="utf-8")
