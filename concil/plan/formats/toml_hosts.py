"""Parses the `[hosts."HOST"]` tables of a TOML plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from concil.config import HostLimits
from concil.errors import ConcilError, UsageError, safe_repr
from concil.oci.reference import Reference
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.ratelimit import units

HOSTS_TABLE = "hosts"


def parse_host_limits(tables: Any, text: str, name: str) -> dict[str, HostLimits]:  # noqa: ANN401 - of TOML
    """Parse the limits of every host.

    Args:
        text: the whole plan, to find line numbers in.
        name: name of the file in messages.
    Raises:
        UsageError: an invalid host or field; the message names file, line and field.
    """
    if not isinstance(tables, dict):
        raise UsageError(f"{name}: hosts is not a table", remedy='write [hosts."docker.io"]')
    limits_by_host = {}
    for host, table in tables.items():
        location = f"{name}:{_find_line(text, host)}"
        # [hosts.docker.io] without quotes is a table `io` in a table `docker`.
        is_nested = isinstance(table, dict) and any(isinstance(v, dict) for v in table.values())
        if not isinstance(table, dict) or is_nested or not _is_host(host):
            raise UsageError(
                f"{location}: {safe_repr(host)} is not a host with limits",
                remedy='write [hosts."docker.io"], with the host in quotes, and its limits below',
            )
        limits_by_host[host] = _parse_table(table, text, name, host)
    return limits_by_host


def _parse_table(table: Mapping[str, Any], text: str, name: str, host: str) -> HostLimits:
    values = {}
    for key, value in table.items():
        location = f"{name}:{_find_line(text, host, key)}"
        if key not in _FIELDS:
            raise UsageError(
                f"{location}: {safe_repr(key)}: unknown field",
                remedy=unknown_field_remedy(key, _FIELDS),
            )
        field, reader = _FIELDS[key]
        try:
            values[field] = reader(value)
        except UsageError as error:
            raise UsageError(
                f"{location}: {safe_repr(key)}: {error}", remedy=error.remedy
            ) from error
    return HostLimits(**values)


def _find_line(text: str, host: str, key: str | None = None) -> int:
    """Return the line of a host's table, or of one of its fields."""
    lines = text.splitlines()
    quoted = re.compile(rf"\s*\[\s*hosts\s*\.\s*[\"']?{re.escape(host)}[\"']?\s*\]")
    anywhere = re.compile(rf".*{re.escape(host)}")
    header_lines = (n for n, line in enumerate(lines, 1) if quoted.match(line))
    first = next(
        header_lines, next((n for n, line in enumerate(lines, 1) if anywhere.match(line)), 1)
    )
    if key is None:
        return first
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    matches = (n for n, line in enumerate(lines, 1) if n > first and pattern.match(line))
    return next(matches, first)


def _is_host(host: str) -> bool:
    try:
        return Reference.parse(f"https://{host}/probe").host == host
    except ConcilError:
        return False


def _parse_jobs(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("not a number of 1 or more", remedy="write the number of concurrent jobs")
    return value


def _parse_rate(value: Any) -> float:  # noqa: ANN401 - whatever TOML gives
    try:
        return units.parse_request_rate(value if isinstance(value, str) else "")
    except UsageError as error:
        raise UsageError("not a rate", remedy='write it as "20/s", "100/m" or "1000/h"') from error


def _parse_bandwidth(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    try:
        return units.parse_bandwidth(text if isinstance(text, str) else "")
    except UsageError as error:
        raise UsageError(
            "not a bandwidth of at least 1k bytes per second",
            remedy='write it as "50M", "512K" or 1000000',
        ) from error


_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "jobs": ("jobs", _parse_jobs),
    "rate": ("requests", _parse_rate),
    "bandwidth": ("bandwidth", _parse_bandwidth),
}
