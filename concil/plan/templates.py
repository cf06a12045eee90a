"""The templates of regsync's files: texts with ``{{ ... }}`` that are filled in.

Of Go's templates what makes a text: values, calls, parentheses and pipes; no variables,
conditions and loops, and no clock.

Source: pkg.go.dev/text/template; regclient, docs/README.md, "Template Functions".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from concil.config import KIB
from concil.errors import UsageError, shown

_ACTION = re.compile(r"(\s*)\{\{(?:(-)\s)?(.*?)(?:\s(-))?\}\}(\s*)", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>-?[0-9]{1,9})"""
    r"""|(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[()|]))"""
)
_ESCAPE = re.compile(r"\\(.)")
_VERB = re.compile(r"%([sdvq%])")
_LARGEST = 64 * KIB  # bytes of a file that is read into a text
REMEDY = "known are env, file, default, split, join, index, lower, upper, title, printf"


class Missing(str):
    """An empty text, because something is not there that was asked for."""

    __slots__ = ("why",)
    why: str

    def __new__(cls, why: str) -> Self:
        """Say why: "there is no environment variable X"."""
        found = super().__new__(cls)
        found.why = why
        return found


def fill(text: str, fields: Mapping[str, str]) -> str:
    """Fill in a text.

    Args:
        fields: what the fields of a template are: "Sync.Source" and so on.
    Returns:
        The text; a `Missing` if a variable or file is that a value of it needs.
    Raises:
        UsageError: a template is none, or asks for what is not known.
    """
    missing: list[Missing] = []

    def value(found: re.Match[str]) -> str:
        before, cuts_before, source, cuts_after, after = found.groups()
        result = _Parser(source, fields).result()
        if isinstance(result, Missing):
            missing.append(result)
        return f"{'' if cuts_before else before}{_text(result)}{'' if cuts_after else after}"

    filled = _ACTION.sub(value, text)
    if "{{" in _ACTION.sub("", text):
        raise UsageError(f"a template without end: {shown(text)}", remedy="close it with }}")
    return missing[0] if missing else filled


class _Parser:
    """Reads one action from left to right, and works it out."""

    def __init__(self, source: str, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._source = source
        self._tokens: list[tuple[str, str]] = []
        position, end = 0, len(source.rstrip())
        while position < end:
            found = _TOKEN.match(source, position)
            if found is None or found.lastgroup is None:
                raise self._wrong()
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            position = found.end()

    def result(self) -> Any:  # noqa: ANN401 - a text, a number or a list
        """What it comes to."""
        try:
            found = self._pipeline()
        except RecursionError as error:
            raise self._wrong() from error
        if self._tokens:
            raise self._wrong()
        return found

    def _pipeline(self) -> Any:  # noqa: ANN401 - as above
        found = self._command([])
        while self._take("|"):
            found = self._command([found])
        return found

    def _command(self, piped: list[Any]) -> Any:  # noqa: ANN401 - as above
        """A call with its operands, or one value; what was piped in comes last."""
        if self._tokens and self._tokens[0][0] == "name":
            name = self._tokens.pop(0)[1]
            if name not in _FUNCTIONS:
                raise self._wrong()
            operands = []
            while self._tokens and self._tokens[0][1] not in (")", "|"):
                operands.append(self._operand())
            try:
                return _FUNCTIONS[name](*operands, *piped)
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                raise self._wrong() from error
        if piped:
            raise self._wrong()
        return self._operand()

    def _operand(self) -> Any:  # noqa: ANN401 - as above
        if self._take("("):
            found = self._pipeline()
            if not self._take(")"):
                raise self._wrong()
            return found
        kind, text = self._tokens.pop(0) if self._tokens else ("", "")
        if kind == "text":
            return text[1:-1] if text[0] == "`" else _ESCAPE.sub(_unescaped, text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "field" and text[1:] in self._fields:
            return self._fields[text[1:]]
        if kind == "name" and text in _FUNCTIONS:
            return _FUNCTIONS[text]()
        raise self._wrong()

    def _take(self, sign: str) -> bool:
        if self._tokens and self._tokens[0] == ("sign", sign):
            del self._tokens[0]
            return True
        return False

    def _wrong(self) -> UsageError:
        return UsageError(
            f"the template {shown(self._source.strip())} is not understood", remedy=REMEDY
        )


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1])


def _text(value: Any) -> str:  # noqa: ANN401 - a text, a number or a list
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value)


def _env(name: str) -> str:
    found = os.environ.get(name)
    if found is None:
        return Missing(f"there is no environment variable {shown(name)}")
    return found or Missing(f"the environment variable {shown(name)} is empty")


def _file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(_LARGEST).decode().strip()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a text"
        return Missing(f"cannot read {shown(name)}: {cause}")


def _index(values: list[str], *places: int) -> str:
    (place,) = places
    if not 0 <= place < len(values):
        raise IndexError(place)
    return values[place]


def _printf(form: str, *values: Any) -> str:  # noqa: ANN401 - texts and numbers
    left = list(values)

    def written(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        value = _text(left.pop(0))
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
