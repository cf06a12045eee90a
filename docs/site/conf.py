# ruff: noqa: INP001  # a configuration, not a package
"""Configuration of the documentation as a site.

`tox -e docs` builds it, and so does `sphinx-build -W -c docs/site . build/site`.

The sources are the Markdown files of the repository as GitHub shows them. docs/README.md is the
first page, and the only place that says which page belongs where.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

from concil import __version__

project = "concil"
release = __version__
html_title = f"concil {release}"
extensions = ["myst_parser"]

root_doc = "docs/README"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "build", "dist", "docs/site"]

myst_heading_anchors = 4  # the anchors that GitHub gives to headings
# A drawing of a terminal or of a protocol is in no language.
highlight_language = "none"

html_theme = "furo"
html_extra_path = ["root"]  # index.html, which leads to the first page
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

_FIRST_COLUMN = re.compile(r"^\| \[([^]]+)\]\(([^)#]+)\.md\) \|", re.MULTILINE)


def navigation(text: str) -> str:
    """Return the tables of docs/README.md as navigation: a group for each heading."""
    groups = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = "\n".join(f"{title} <{path}>" for title, path in _FIRST_COLUMN.findall(section))
        caption = section.partition("\n")[0]
        groups.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n")
    return "\n".join(groups)


def _complete_page(_: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += "\n" + navigation(source[0])
    if name == "docs/decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def setup(app: Sphinx) -> None:
    """Register what is generated while the site is built."""
    app.connect("source-read", _complete_page)
