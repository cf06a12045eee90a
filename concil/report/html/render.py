"""Renders the page from its template, style, scripts and data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources

from concil.runtime.dataclass import dataclass

_PACKAGE = "concil.report.html"
# In this order: later scripts use definitions of earlier ones.
SCRIPTS = (
    "format.js",
    "model.js",
    "curves.js",
    "timeline.js",
    "pointing.js",
    "table.js",
    "main.js",
)
_START = "start.js"
# Of templates: the file head.html replaces {{HEAD}}.
_FRAGMENTS = ("HEAD", "FILTER", "RUN")


@dataclass(frozen=True, slots=True)
class PageParts:
    """What a page is made of, as text."""

    template: str
    style: str
    scripts: Sequence[str]
    # Further directives of the policy, for what the page may do.
    permissions: str = "form-action 'none'"


def render(document: Mapping[str, object], title: str) -> str:
    """Return the page.

    Its content security policy allows only its own scripts and styles, by their hashes, and
    no requests: text of a registry that escaped from the data would do nothing.
    """
    parts = PageParts(read_template("page.html"), read_resource("page.css"), read_scripts(_START))
    return render_parts(parts, document, title)[0]


def read_template(name: str, package: str = _PACKAGE, *, scope: str = "") -> str:
    """Return the template of a page, with the fragments that pages share.

    Args:
        scope: follows the headings of what belongs to one run.
    """
    template = read_resource(name, package)
    for fragment in _FRAGMENTS:
        text = read_resource(f"{fragment.lower()}.html").replace("{{SCOPE}}", scope)
        template = template.replace(f"{{{{{fragment}}}}}", text)
    return template


def read_scripts(*others: str) -> list[str]:
    """Return the scripts that show a run, and others of this package."""
    return [read_resource(name) for name in (*SCRIPTS, *others)]


def render_parts(
    page_parts: PageParts, document: Mapping[str, object], title: str
) -> tuple[str, str]:
    """Return a page, and its content security policy."""
    style = page_parts.style
    script = '"use strict";\n(() => {\n' + "\n".join(page_parts.scripts) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src {_csp_hash(script)}; style-src {_csp_hash(style)}; "
        f"img-src data:; base-uri 'none'; {page_parts.permissions}"
    )
    parts = {
        "POLICY": policy,
        # Encoded because the name of a file may hold surrogates, which UTF-8 cannot encode.
        "TITLE": html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "STYLE": style,
        "DATA": embed_json(document),
        "SCRIPT": script,
    }
    rendered, *sections = page_parts.template.split("{{")
    # In one pass, so that a placeholder inside a part is not replaced.
    for section in sections:
        name, _, text = section.partition("}}")
        rendered += parts[name] + text
    return rendered, policy


def embed_json(document: Mapping[str, object]) -> str:
    """Return JSON that is inert inside a script element, whatever strings it holds.

    It is ASCII only, so that it has no line separators, and it has no characters that could
    end the element or start a comment in it.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def read_resource(name: str, package: str = _PACKAGE) -> str:
    """Return a text file of a package."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def _csp_hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
