"""Parses the text of TOML files that people write; errors name file and line."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from concil.errors import UsageError
from concil.runtime.recursion import pause_collection

_DEEP_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]+[ \t]*\.[ \t]*){100}")


def parse_document(text: str, name: str, remedy: str) -> dict[str, Any]:
    """Parse a TOML document.

    Args:
        name: name of the file in messages.
        remedy: of the errors.
    Raises:
        UsageError: it is not TOML, or it is nested too deeply.
    """
    # tomllib needs minutes for a key of a hundred thousand parts.
    deep_key = _DEEP_KEY.search(text)
    if deep_key is not None:
        line = text.count("\n", 0, deep_key.start()) + 1
        raise UsageError(f"{name}:{line}: a key is nested too deeply", remedy=remedy)
    try:
        with pause_collection():
            return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
    except RecursionError as error:
        raise UsageError(f"{name}: it is nested too deeply", remedy=remedy) from error
    # Not from the error: from Python 3.14 on it has the text, which may contain passwords.
    raise UsageError(f"{name}: {message}", remedy=remedy)


def find_line(text: str, key: str) -> int:
    """Return the line of a key or table at the top of a document, from 1."""
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def find_line_in_table(text: str, table: str, key: str | None = None) -> int:
    """Return the line of a table, or of one of its keys.

    Args:
        table: the part of the header after its last dot, without quotes.
    """
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\s*(?:\w+\s*\.\s*)?[\"']?{re.escape(table)}[\"']?\s*\]")
    anywhere = re.compile(rf".*{re.escape(table)}")
    header_lines = (n for n, line in enumerate(lines, 1) if header.match(line))
    first = next(
        header_lines, next((n for n, line in enumerate(lines, 1) if anywhere.match(line)), 1)
    )
    if key is None:
        return first
    # An inline table has its keys in the same line.
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    matches = (n for n, line in enumerate(lines, 1) if n > first and pattern.match(line))
    return next(matches, first)
