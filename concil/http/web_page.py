"""Recognizes web pages: answers of websites, proxies and login pages instead of a registry."""

from __future__ import annotations

import re

from concil.http.sanitize import clean_text

WEB_PAGE_REMEDY = (
    "check the host and the port: this is the answer of a website, a proxy or a login page"
)
_START = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype html|html)\b", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_MAX_HEAD = 8192  # bytes in which the title is searched
_MAX_TITLE = 80  # characters


def is_web_page(content_type: str, content: bytes) -> bool:
    """Return whether a body is HTML, by its first bytes or its Content-Type."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_html = media_type in ("text/html", "application/xhtml+xml")
    return bool(_START.match(content[:_MAX_HEAD])) or (is_html and content.lstrip()[:1] == b"<")


def describe_web_page(content: bytes) -> str:
    """Return the sentence for a message, with the title of the page."""
    import html  # noqa: PLC0415  # its table of entities takes a while, and pages are rare

    title = _TITLE.search(content[:_MAX_HEAD])
    text = clean_text(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
    name = f" ({text[:_MAX_TITLE]!a})" if text else ""
    return f"the answer is a web page{name}, not that of a registry"
