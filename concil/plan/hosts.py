"""What a plan asks of single hosts at most: the `[hosts."HOST"]` tables of a TOML plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from concil.config import HostLimits
from concil.errors import ConcilError, UsageError, shown
from concil.reference import Reference

HOSTS = "hosts"
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}  # seconds


def limits(tables: Any, text: str, name: str) -> dict[str, HostLimits]:  # noqa: ANN401 - of TOML
    """Read the limits of every host.

    Args:
        text: the whole plan, to find lines in.
        name: what the file is called in messages.
    Raises:
        UsageError: no host, or an unknown or wrong field; file, line and field are named.
    """
    if not isinstance(tables, dict):
        raise UsageError(f"{name}: hosts is no table", remedy='write [hosts."docker.io"]')
    found = {}
    for host, table in tables.items():
        place = f"{name}:{_line(text, host)}"
        # [hosts.docker.io] without quotes is a table io in a table docker.
        nested = isinstance(table, dict) and any(isinstance(v, dict) for v in table.values())
        if not isinstance(table, dict) or nested or not _is_host(host):
            raise UsageError(
                f"{place}: {shown(host)} is no host with limits",
                remedy='write [hosts."docker.io"], in quotes, and its limits below',
            )
        found[host] = _read(table, text, name, host)
    return found


def _read(table: Mapping[str, Any], text: str, name: str, host: str) -> HostLimits:
    values = {}
    for key, value in table.items():
        place = f"{name}:{_line(text, host, key)}"
        if key not in _FIELDS:
            raise UsageError(
                f"{place}: {shown(key)}: unknown field", remedy=f"known are: {', '.join(_FIELDS)}"
            )
        field, reader = _FIELDS[key]
        try:
            values[field] = reader(value)
        except UsageError as error:
            raise UsageError(f"{place}: {shown(key)}: {error}", remedy=error.remedy) from error
    return HostLimits(**values)


def _line(text: str, host: str, key: str | None = None) -> int:
    """Where a host's table begins, or one of its fields stands."""
    lines = text.splitlines()
    quoted = re.compile(rf"\s*\[\s*hosts\s*\.\s*[\"']?{re.escape(host)}[\"']?\s*\]")
    anywhere = re.compile(rf".*{re.escape(host)}")
    heads = (n for n, line in enumerate(lines, 1) if quoted.match(line))
    first = next(heads, next((n for n, line in enumerate(lines, 1) if anywhere.match(line)), 1))
    if key is None:
        return first
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    below = (n for n, line in enumerate(lines, 1) if n > first and pattern.match(line))
    return next(below, first)


def _is_host(host: str) -> bool:
    try:
        return Reference.parse(f"https://{host}/probe").host == host
    except ConcilError:
        return False


def _jobs(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("not a number of 1 or more", remedy="write how many jobs at once")
    return value


def _rate(value: Any) -> float:  # noqa: ANN401 - whatever TOML gives
    text = value if isinstance(value, str) else ""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)/([smh])", text)
    if found is None or not float(found[1]):
        raise UsageError("not a rate", remedy='write it as "20/s", "100/m" or "1000/h"')
    return float(found[1]) / _PERIODS[found[2]]


def _bandwidth(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    found = re.fullmatch(r"(\d{1,12})([KMG]?)(?:i?B)?", text if isinstance(text, str) else "")
    if found is None or not int(found[1]):
        raise UsageError("not bytes a second", remedy='write it as "50M", "512K" or 1000000')
    return int(found[1]) * _UNITS[found[2]]


_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "jobs": ("jobs", _jobs),
    "rate": ("requests", _rate),
    "bandwidth": ("bandwidth", _bandwidth),
}
