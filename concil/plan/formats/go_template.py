"""Renders the ``{{ ... }}`` templates of regsync files.

Supports the part of Go's templates that produces text: values, calls, parentheses and
pipes; not variables, conditions, loops or the clock.

Source: pkg.go.dev/text/template; regclient, docs/README.md, "Template Functions".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from concil.config import KIB
from concil.errors import UsageError, safe_repr
from concil.runtime.recursion import pause_collection

_ACTION = re.compile(r"(\s*)\{\{(?:(-)\s)?(.*?)(?:\s(-))?\}\}(\s*)", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>-?[0-9]{1,9})"""
    r"""|(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[()|]))"""
)
_ESCAPE = re.compile(r"\\(.)")
_VERB = re.compile(r"%([sdvq%])")
_MAX_FILE_SIZE = 64 * KIB  # bytes that the `file` function reads
REMEDY = "known functions: env, file, default, split, join, index, lower, upper, title, printf"


class MissingValue(str):
    """An empty text that stands for a variable or file that does not exist."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, why: str) -> Self:
        """Create it with a reason: "there is no environment variable X"."""
        value = super().__new__(cls)
        value.reason = why
        return value


def render(text: str, fields: Mapping[str, str]) -> str:
    """Expand the actions of a template.

    Args:
        fields: values of the template's fields: "Sync.Source" and so on.
    Returns:
        The text, or a `MissingValue` if a variable or file that it needs does not exist.
    Raises:
        UsageError: the template is malformed, or uses an unknown function or field.
    """
    missing: list[MissingValue] = []

    def value(found: re.Match[str]) -> str:
        before, cuts_before, source, cuts_after, after = found.groups()
        result = _Parser(source, fields).evaluate()
        if isinstance(result, MissingValue):
            missing.append(result)
        return (
            f"{'' if cuts_before else before}{_format_value(result)}{'' if cuts_after else after}"
        )

    filled = _ACTION.sub(value, text)
    if "{{" in _ACTION.sub("", text):
        raise UsageError(f"a template is not closed: {safe_repr(text)}", remedy="close it with }}")
    return missing[0] if missing else filled


class _Parser:
    """Parses one action from left to right and evaluates it."""

    def __init__(self, source: str, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._source = source
        self._tokens: list[tuple[str, str]] = []
        position, end = 0, len(source.rstrip())
        while position < end:
            match = _TOKEN.match(source, position)
            if match is None or match.lastgroup is None:
                raise self._error()
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def evaluate(self) -> Any:  # noqa: ANN401 - a text, a number or a list
        """Return the value of the action."""
        try:
            with pause_collection():
                result = self._pipeline()
        except RecursionError as error:
            raise self._error() from error
        if self._tokens:
            raise self._error()
        return result

    def _pipeline(self) -> Any:  # noqa: ANN401 - as above
        result = self._command([])
        while self._accept("|"):
            result = self._command([result])
        return result

    def _command(self, piped: list[Any]) -> Any:  # noqa: ANN401 - as above
        """Evaluate a call or a single value; a piped value is the last operand."""
        if self._tokens and self._tokens[0][0] == "name":
            name = self._tokens.pop(0)[1]
            if name not in _FUNCTIONS:
                raise self._error()
            operands = []
            while self._tokens and self._tokens[0][1] not in (")", "|"):
                operands.append(self._operand())
            try:
                return _FUNCTIONS[name](*operands, *piped)
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                raise self._error() from error
        if piped:
            raise self._error()
        return self._operand()

    def _operand(self) -> Any:  # noqa: ANN401 - as above
        if self._accept("("):
            result = self._pipeline()
            if not self._accept(")"):
                raise self._error()
            return result
        kind, text = self._tokens.pop(0) if self._tokens else ("", "")
        if kind == "text":
            return text[1:-1] if text[0] == "`" else _ESCAPE.sub(_unescape, text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "field" and text[1:] in self._fields:
            return self._fields[text[1:]]
        if kind == "name" and text in _FUNCTIONS:
            return _FUNCTIONS[text]()
        raise self._error()

    def _accept(self, sign: str) -> bool:
        if self._tokens and self._tokens[0] == ("sign", sign):
            del self._tokens[0]
            return True
        return False

    def _error(self) -> UsageError:
        return UsageError(
            f"the template {safe_repr(self._source.strip())} is not supported", remedy=REMEDY
        )


def _unescape(found: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1])


def _format_value(value: Any) -> str:  # noqa: ANN401 - a text, a number or a list
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value)


def _env(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        return MissingValue(f"there is no environment variable {safe_repr(name)}")
    return value or MissingValue(f"the environment variable {safe_repr(name)} is empty")


def _file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(_MAX_FILE_SIZE).decode().strip()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a text"
        return MissingValue(f"cannot read {safe_repr(name)}: {cause}")


def _index(values: list[str], *places: int) -> str:
    (position,) = places
    if not 0 <= position < len(values):
        raise IndexError(position)
    return values[position]


def _printf(form: str, *values: Any) -> str:  # noqa: ANN401 - texts and numbers
    remaining = list(values)

    def written(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        value = _format_value(remaining.pop(0))
        return f'"{value}"' if found[1] == "q" else value

    return _VERB.sub(written, form)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "default": lambda other, value: value or other,
    "env": _env,
    "file": _file,
    "index": _index,
    "join": lambda values, separator: separator.join(values),
    "lower": lambda text: text.lower(),
    "printf": _printf,
    "split": lambda text, separator: text.split(separator),
    "title": lambda text: text.title(),
    "upper": lambda text: text.upper(),
}
