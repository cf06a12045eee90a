"""Renders the page from its template, style, scripts and data."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources

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


def render(document: Mapping[str, object], title: str) -> str:
    """Return the page.

    Its content security policy allows only its own scripts and styles, by their hashes, and
    no requests: text of a registry that escaped from the data would do nothing.
    """
    style = _read_resource("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_read_resource, SCRIPTS)) + "\n})();\n"
    policy = (
        f"default-src 'none'; script-src {_csp_hash(script)}; style-src {_csp_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        # Encoded because the name of a file may hold surrogates, which UTF-8 cannot encode.
        "TITLE": html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        "STYLE": style,
        "DATA": embed_json(document),
        "SCRIPT": script,
    }
    page = _read_resource("page.html")
    rendered, *sections = page.split("{{")
    # In one pass, so that a placeholder inside a part is not replaced.
    for section in sections:
        name, _, text = section.partition("}}")
        rendered += parts[name] + text
    return rendered


def embed_json(document: Mapping[str, object]) -> str:
    """Return JSON that is inert inside a script element, whatever strings it holds.

    It is ASCII only, so that it has no line separators, and it has no characters that could
    end the element or start a comment in it.
    """
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _read_resource(name: str) -> str:
    return (resources.files("concil.report.html") / name).read_text(encoding="utf-8")


def _csp_hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
