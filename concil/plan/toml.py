"""Plans in TOML, concil's own format: `[[mirror]]` tables with conditions on tags."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from concil.content import Platform
from concil.errors import ConcilError, UsageError, shown
from concil.plan.hosts import HOSTS, limits
from concil.plan.rules import Plan, Rule
from concil.plan.tags import TagFilter, compile_pattern
from concil.plan.versions import VersionRange
from concil.reference import LayoutAddress, parse_address

_TABLE = "mirror"
_DEEP_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]+[ \t]*\.[ \t]*){100}")
_HEADER = re.compile(r"\s*\[\[\s*mirror\s*\]\]")


def plan(text: str, name: str) -> Plan:
    """Read the tables of a plan.

    Args:
        name: what the file is called in messages.
    Raises:
        UsageError: it is no TOML, or an entry is unknown, missing or of another kind; file,
            line and field are named.
    """
    remedy = "a plan is TOML: see docs/plans.md"
    # tomllib needs minutes for a key of a hundred thousand parts.
    deep = _DEEP_KEY.search(text)
    if deep is not None:
        line = text.count("\n", 0, deep.start()) + 1
        raise UsageError(f"{name}:{line}: a key nests too deep", remedy=remedy)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: {error}", remedy=remedy) from error
    except RecursionError as error:
        raise UsageError(f"{name}: it nests too deep", remedy=remedy) from error
    tables = document.pop(_TABLE, [])
    hosts = limits(document.pop(HOSTS, {}), text, name)
    for key in document:
        raise UsageError(
            f"{name}:{_line(text, key)}: unknown field {shown(key)}",
            remedy='a plan has [[mirror]] and [hosts."HOST"] tables: see docs/plans.md',
        )
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise UsageError(f"{name}: mirror is no list of tables", remedy="write [[mirror]]")
    starts = [n for n, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    entries = (_Table(text, name, starts, number, one) for number, one in enumerate(tables))
    return Plan(tuple(entry.rule() for entry in entries), hosts)


class _Table:
    """One `[[mirror]]`, and where its fields stand."""

    def __init__(
        self, text: str, name: str, starts: list[int], number: int, table: Mapping[str, Any]
    ) -> None:
        # An inline array of tables has no headers: then the first line that has the key.
        known = number < len(starts)
        self._first = starts[number] if known else 1
        last = starts[number + 1] - 1 if number + 1 < len(starts) else None
        self._lines = text.splitlines()[self._first - 1 : last]
        self._name = name
        self._table = table

    def rule(self) -> Rule:
        """The entry that it is."""
        for key in self._table:
            if key not in _FIELDS:
                raise self._wrong(key, "unknown field", f"known are: {', '.join(_FIELDS)}")
        values = {key: self._read(key, reader) for key, reader in _FIELDS.items()}
        if values["source"] is None:
            raise UsageError(
                f"{self._name}:{self._first}: a [[mirror]] without source",
                remedy='write source = "host/repository"',
            )
        choice = TagFilter(
            values["tags"] or (),
            values["match"],
            values["semver"],
            values["latest"],
            values["exclude"] or (),
            values["immutable"] or (),
        )
        pinned = self._pinned(values["source"])
        if pinned and choice != TagFilter():
            key = next(key for key in _CONDITIONS if key in self._table)
            raise self._wrong(key, "the source names one image already", "leave its tag away")
        if values["prune"] and (pinned or not choice.needs_listing):
            raise self._wrong("prune", "what an entry names is wanted, and never pruned")
        place = f"{self._name}:{self._first}"
        return Rule(
            place,
            values["source"],
            values["target"],
            None if pinned else choice,
            values["platforms"] or (),
            referrers=values["referrers"],
            prune=bool(values["prune"]),
        )

    def _read(self, key: str, reader: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - by field
        value = self._table.get(key)
        if value is None:
            return None
        try:
            return reader(value)
        except ConcilError as error:
            raise self._wrong(key, str(error), error.remedy) from error
        except re.error as error:
            raise self._wrong(key, f"not a regular expression: {error}", "see docs/plans.md") from (
                error
            )

    def _pinned(self, source: str) -> bool:
        try:
            address = parse_address(source)
        except ConcilError as error:
            raise self._wrong("source", str(error), error.remedy) from error
        if isinstance(address, LayoutAddress):
            return bool(address.name or address.digest)
        return bool(address.tag or address.digest)

    def _wrong(self, key: str, what: str, remedy: str = "") -> UsageError:
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        found = (n for n, line in enumerate(self._lines, self._first) if pattern.match(line))
        place = f"{self._name}:{next(found, self._first)}"
        return UsageError(f"{place}: {shown(key)}: {what}", remedy=remedy)


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
    return next((n for n, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _string(value: Any) -> str:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, str) or not value:
        raise UsageError("not a text", remedy='write it in quotes: "..."')
    return value


def _strings(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever TOML gives
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) and one for one in values):
        raise UsageError("not a list of texts", remedy='write it as ["...", "..."]')
    return tuple(values)


def _truth(value: Any) -> bool:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, bool):
        raise UsageError("neither true nor false", remedy="write it without quotes")
    return value


def _number(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("not a number of 1 or more", remedy="write how many tags are wanted")
    return value


def _patterns(value: Any) -> tuple[re.Pattern[str], ...]:  # noqa: ANN401 - whatever TOML gives
    return tuple(compile_pattern(one) for one in _strings(value))


def _platforms(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever TOML gives
    found = _strings(value)
    for one in found:
        Platform.parse(one)
    return found


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "source": _string,
    "target": _string,
    "tags": _strings,
    "match": lambda value: compile_pattern(_string(value)),
    "semver": lambda value: VersionRange.parse(_string(value)),
    "latest": _number,
    "exclude": _patterns,
    "platforms": _platforms,
    "referrers": _truth,
    "immutable": _patterns,
    "prune": _truth,
}
_CONDITIONS = ("tags", "match", "semver", "latest", "exclude", "immutable")
