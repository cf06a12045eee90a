# ruff: noqa: INP001  # a configuration, not a package
"""Configuration of the documentation as a site.

`tox -e docs` builds it, and so does `sphinx-build -W -c docs/site . build/site`.

The sources are the Markdown files of the repository as GitHub shows them. docs/README.md is the
first page, and the only place that says which page belongs where.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import concil.dockerhub
import concil.errors

sys.path.insert(0, str(Path(__file__).parent))
from command_reference import as_markdown  # beside this file

project = "concil"
release = concil.__version__
html_title = f"concil {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/README"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "build", "dist", "docs/site"]

myst_heading_anchors = 4  # the anchors that GitHub gives to headings
# A drawing of a terminal or of a protocol is in no language.
highlight_language = "none"

default_role = "py:obj"  # a name in backquotes is a link, where there is something to link to
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Members that are inherited from other packages are documented there.
_FOREIGN = ("BufferedReader", "Enum", "Response", "SplitResult", "TarFile", "str", "tuple")
autodoc_default_options = {
    "members": True,
    "inherited-members": ",".join(_FOREIGN),
    "exclude-members": "set_blob_starter",  # for the workers of concil.cluster
}

html_theme = "furo"
html_extra_path = ["root"]  # index.html, which leads to the first page
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

_FOREIGN_RESOURCE = re.compile(
    r'<(?:script|img|link|iframe|source|video)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"'
)
_FIRST_COLUMN = re.compile(r"^\| \[([^]]+)\]\(([^)#]+)\.md\) \|", re.MULTILINE)


def navigation(text: str) -> str:
    """Return the tables of docs/README.md as navigation: a group for each heading."""
    groups = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = "\n".join(f"{title} <{path}>" for title, path in _FIRST_COLUMN.findall(section))
        caption = section.partition("\n")[0]
        groups.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n")
    return "\n".join(groups)


def python_api() -> str:
    """Return all that programs may import as directives of autodoc, each name once."""
    lines: list[str] = []
    shown: set[int] = set()
    for module in (concil, concil.dockerhub, concil.errors):
        lines.append(f"\n## {module.__name__}\n\n```{{eval-rst}}")
        for name in sorted(module.__all__, key=lambda name: (name != "Engine", name)):
            value = getattr(module, name)
            if callable(value) and id(value) not in shown:
                shown.add(id(value))
                lines += [_directive(f"{module.__name__}.{name}", value), ""]
        lines.append("```")
    return "\n".join(lines)


def _directive(name: str, value: object) -> str:
    if not isinstance(value, type):
        return f".. autofunction:: {name}"
    if issubclass(value, BaseException):
        return f".. autoexception:: {name}\n   :show-inheritance:\n   :no-inherited-members:"
    members = "\n   :undoc-members:" if issubclass(value, Enum) else ""
    return f".. autoclass:: {name}{members}"


def _complete_page(_: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += "\n" + navigation(source[0])
    elif name == "docs/reference/commands":
        source[0] += "\n" + as_markdown()
    elif name == "docs/reference/api":
        source[0] += "\n" + python_api()
    elif name == "docs/decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def _check_resources(app: Sphinx, error: Exception | None) -> None:
    """Fail if a page loads anything from another host: the site is read without a network."""
    if error is None:
        for page in Path(app.outdir).rglob("*.html"):
            found = _FOREIGN_RESOURCE.search(page.read_text(encoding="utf-8"))
            if found:
                raise ExtensionError(f"{page} loads {found[0]}")


def setup(app: Sphinx) -> None:
    """Register what is generated while the site is built, and what is checked at its end."""
    app.connect("source-read", _complete_page)
    app.connect("build-finished", _check_resources)
