"""Parses TOML plans: `[[mirror]]` tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from concil.errors import ConcilError, UsageError, safe_repr
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.platform import Platform
from concil.plan.formats.toml_document import find_line, parse_document
from concil.plan.formats.toml_hosts import HOSTS_TABLE, parse_host_limits
from concil.plan.formats.toml_notify import NOTIFY_TABLE, parse_notify
from concil.plan.formats.toml_selection import (
    REGISTRY_FIELDS,
    FieldError,
    create_repository_filter,
    create_tag_filter,
    parse_age,
    parse_sort,
)
from concil.plan.formats.toml_verify import parse_verification
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.plan.rule import ParsedPlan, Rule
from concil.plan.tag_filter import TagFilter, compile_pattern
from concil.plan.versions import VersionRange
from concil.runtime.suggestions import did_you_mean

_TABLE = "mirror"
_HEADER = re.compile(r"\s*\[\[\s*mirror\s*\]\]")


def parse_plan(text: str, name: str, directory: Path = Path()) -> ParsedPlan:
    """Parse the tables of a plan.

    Args:
        name: name of the file in messages.
        directory: to which paths of keys are relative.
    Raises:
        UsageError: it is not TOML, or a field is unknown, missing or of the wrong type; the
            message names file, line and field.
    """
    document = parse_document(text, name, "a plan is TOML: see docs/plans.md")
    tables = document.pop(_TABLE, [])
    hosts = parse_host_limits(document.pop(HOSTS_TABLE, {}), text, name)
    notify = parse_notify(document.pop(NOTIFY_TABLE, None), text, name)
    for key in document:
        raise UsageError(
            f"{name}:{find_line(text, key)}: unknown field {safe_repr(key)}",
            remedy=" ".join(
                filter(
                    None,
                    (
                        did_you_mean(key, (_TABLE, HOSTS_TABLE, NOTIFY_TABLE)),
                        'a plan has [[mirror]], [hosts."HOST"] and [notify]: see docs/plans.md',
                    ),
                )
            ),
        )
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{name}: mirror is not a list of tables", remedy="write [[mirror]]")
    starts = [n for n, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)]
    entries = (
        _MirrorTable(text, name, starts, number, table) for number, table in enumerate(tables)
    )
    rules = tuple(entry.to_rule(directory) for entry in entries)
    return ParsedPlan(rules, hosts, notify=notify)


class _MirrorTable:
    """One `[[mirror]]` table, and the lines of its fields."""

    def __init__(
        self, text: str, name: str, starts: list[int], number: int, table: Mapping[str, Any]
    ) -> None:
        # An inline array of tables has no headers: then the lines are searched from the first.
        has_header = number < len(starts)
        self._first_line = starts[number] if has_header else 1
        last = starts[number + 1] - 1 if number + 1 < len(starts) else None
        self._lines = text.splitlines()[self._first_line - 1 : last]
        self._file_name = name
        self._table = table

    def to_rule(self, directory: Path) -> Rule:
        """Return the rule for this table."""
        readers = _FIELDS | {"verify": lambda value: parse_verification(value, directory)}
        for key in self._table:
            if key not in readers:
                remedy = unknown_field_remedy(key, readers)
                raise self._field_error(key, "unknown field", remedy)
        values = {key: self._read_field(key, reader) for key, reader in readers.items()}
        if values["source"] is None:
            raise UsageError(
                f"{self._file_name}:{self._first_line}: a [[mirror]] has no source",
                remedy='write source = "host/repository"',
            )
        try:
            tag_filter = create_tag_filter(values)
            repository_filter = create_repository_filter(values)
        except FieldError as error:
            raise self._field_error(error.field_name, str(error), error.remedy) from error
        is_single_image = repository_filter is None and self._is_single_image(values["source"])
        if is_single_image and tag_filter != TagFilter():
            key = next(key for key in _CONDITIONS if key in self._table)
            raise self._field_error(key, "the source already names a single image", "omit its tag")
        if values["prune"] and (is_single_image or not tag_filter.needs_listing):
            raise self._field_error("prune", "tags that are listed by name are never pruned")
        location = f"{self._file_name}:{self._first_line}"
        targets = values["target"] or (None,)
        return Rule(
            location,
            values["source"],
            targets[0],
            None if is_single_image else tag_filter,
            values["platforms"] or (),
            referrers=values["referrers"],
            verification=values["verify"],
            prune=bool(values["prune"]),
            repository_filter=repository_filter,
            more_targets=targets[1:],
        )

    def _read_field(self, key: str, reader: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - by field
        value = self._table.get(key)
        if value is None:
            return None
        try:
            return reader(value)
        except ConcilError as error:
            raise self._field_error(key, str(error), error.remedy) from error
        except re.error as error:
            raise self._field_error(
                key, f"not a regular expression: {error}", "see docs/plans.md"
            ) from (error)

    def _is_single_image(self, source: str) -> bool:
        try:
            address = parse_address(source)
        except ConcilError as error:
            raise self._field_error("source", str(error), error.remedy) from error
        if isinstance(address, LayoutAddress):
            return bool(address.name or address.digest)
        return bool(address.tag or address.digest)

    def _field_error(self, key: str, message: str, remedy: str = "") -> UsageError:
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        lines = (n for n, line in enumerate(self._lines, self._first_line) if pattern.match(line))
        location = f"{self._file_name}:{next(lines, self._first_line)}"
        return UsageError(f"{location}: {safe_repr(key)}: {message}", remedy=remedy)


def _parse_string(value: Any) -> str:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, str) or not value:
        raise UsageError("not a string", remedy='write it in quotes: "..."')
    return value


def _parse_strings(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever TOML gives
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) and item for item in values):
        raise UsageError("not a list of strings", remedy='write it as ["...", "..."]')
    return tuple(values)


def _parse_targets(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, list):
        return (_parse_string(value),)
    if not value:
        raise UsageError("an empty list", remedy='write "..." or ["...", "..."]')
    return _parse_strings(value)


def _parse_bool(value: Any) -> bool:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, bool):
        raise UsageError("neither true nor false", remedy="write it without quotes")
    return value


def _parse_number(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("not a number of 1 or more", remedy="write the number of tags to copy")
    return value


def _parse_patterns(value: Any) -> tuple[re.Pattern[str], ...]:  # noqa: ANN401 - whatever TOML gives
    return tuple(compile_pattern(text) for text in _parse_strings(value))


def _parse_platforms(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever TOML gives
    platforms = _parse_strings(value)
    for platform in platforms:
        Platform.parse(platform)
    return platforms


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "source": _parse_string,
    "target": _parse_targets,
    "tags": _parse_strings,
    "match": lambda value: compile_pattern(_parse_string(value)),
    "semver": lambda value: VersionRange.parse(_parse_string(value)),
    "latest": _parse_number,
    "exclude": _parse_patterns,
    "platforms": _parse_platforms,
    "referrers": _parse_bool,
    "immutable": _parse_patterns,
    "prune": _parse_bool,
    "newer_than": parse_age,
    "keep": _parse_number,
    "sort": parse_sort,
    **dict.fromkeys(REGISTRY_FIELDS, _parse_patterns),
}
_CONDITIONS = (
    "tags",
    "match",
    "semver",
    "latest",
    "exclude",
    "immutable",
    "newer_than",
    "keep",
    "sort",
)
