"""How Sphinx builds the site: ./dev docs writes it to site/, and needs no network, nor does who reads it."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

from dataflow import __version__

sys.path.insert(0, str(Path(__file__).parent))
import llms  # it lies beside this file

project = "DataFlow"
author = "The DataFlow developers"
release = version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links out of docs/ (to examples/, packages/) work in the repository

html_theme = "furo"
html_title = f"DataFlow {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "monokai"


def setup(app: Sphinx) -> None:
    """Let Sphinx write llms.txt when it has written the pages."""
    app.connect("build-finished", lambda app, error: error or llms.write(Path(app.outdir)))
