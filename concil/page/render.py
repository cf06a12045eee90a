"""The page as text: template, style, scripts and data in one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources

# In this order: a later one uses what an earlier one defines.
SCRIPTS = (
    "format.js",
    "model.js",
    "curves.js",
    "timeline.js",
    "pointing.js",
    "table.js",
    "main.js",
)


def render(document: Mapping[str, object], title: str) -> str:
    """Return the page.

    Only the scripts and styles that are in it may run, by their hashes, and nothing may be
    fetched: text of a registry that got out of the data would still do nothing.
    """
    style = _resource("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_resource, SCRIPTS)) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        # Also what no encoding has, as parts of a file's name that is not UTF-8.
        "TITLE": html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "STYLE": style,
        "DATA": embedded(document),
        "SCRIPT": script,
    }
    page = _resource("page.html")
    before, *pieces = page.split("{{")
    # In one pass: what stands in a part is no placeholder.
    for piece in pieces:
        name, _, after = piece.partition("}}")
        before += parts[name] + after
    return before


def embedded(document: Mapping[str, object]) -> str:
    """Write JSON that is inert inside of a script element, whatever its strings are.

    ASCII only, so no line separator is left, and nothing that could end the element
    or begin a comment in it.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _resource(name: str) -> str:
    return (resources.files("concil.page") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
