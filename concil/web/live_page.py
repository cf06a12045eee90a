"""Renders the live page, which has no data of its own, and the page that asks for the token."""

from __future__ import annotations

from concil import __version__
from concil.report.html.render import (
    PageParts,
    read_resource,
    read_scripts,
    read_template,
    render_parts,
)
from concil.report.timeline import Timeline
from concil.runtime.dataclass import dataclass

_PACKAGE = "concil.web"
_REJECTED = "This is not the token."


@dataclass(frozen=True, slots=True)
class Page:
    """A page and its content security policy."""

    content: bytes  # UTF-8
    policy: str


def render_live_page() -> Page:
    """Return the live page: it may connect to where it comes from, and to nothing else."""
    scripts = [*read_scripts(), *(_read(name) for name in ("plan.js", "live.js"))]
    parts = PageParts(
        read_template("live.html", _PACKAGE, scope=" of this run"),
        read_resource("page.css") + _read("live.css"),
        scripts,
        "connect-src 'self'; form-action 'none'",
    )
    timeline = Timeline(1, is_live=True)
    timeline.stop()
    document, _ = timeline.live_document("")
    return _page(parts, document, f"concil {__version__}")


def render_login_page(*, is_rejected: bool = False) -> Page:
    """Return the page that asks for the token."""
    template = read_template("login.html", _PACKAGE).replace(
        "{{MESSAGE}}", _REJECTED if is_rejected else ""
    )
    style = read_resource("page.css") + _read("login.css")
    return _page(PageParts(template, style, (), "form-action 'self'"), {}, "concil mirror")


def _page(parts: PageParts, document: dict[str, object], title: str) -> Page:
    text, policy = render_parts(parts, document, title)
    # A meta element cannot forbid frames.
    return Page(text.encode(), f"{policy}; frame-ancestors 'none'")


def _read(name: str) -> str:
    return read_resource(name, _PACKAGE)
