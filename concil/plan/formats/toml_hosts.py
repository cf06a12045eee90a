"""Parses the `[hosts."HOST"]` tables of TOML plans and of the config file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from concil.config import HostLimits
from concil.errors import ConcilError, UsageError, safe_repr
from concil.oci.reference import Reference
from concil.plan.formats.toml_document import find_line_in_table
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.ratelimit import units
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import without_user

HOSTS_TABLE = "hosts"


@dataclass(frozen=True, slots=True)
class HostField:
    """A field of a host's table."""

    value: Any  # as its reader returned it
    text: str  # as it is written
    line: int  # in the file, from 1


FieldReader: TypeAlias = Callable[[Any], Any]  # raises UsageError


def parse_host_limits(tables: Any, text: str, name: str) -> dict[str, HostLimits]:  # noqa: ANN401 - of TOML
    """Parse the limits of every host. Arguments and errors as for `parse_hosts`."""
    hosts = parse_hosts(tables, text, name, LIMIT_READERS)
    return {host: to_limits(fields) for host, fields in hosts.items()}


def to_limits(fields: Mapping[str, HostField]) -> HostLimits:
    """Return the limits among the fields of a host."""
    names = {"jobs": "jobs", "rate": "requests", "bandwidth": "bandwidth"}
    return HostLimits(**{names[key]: fields[key].value for key in names if key in fields})


def parse_hosts(
    tables: Any,  # noqa: ANN401 - of TOML
    text: str,
    name: str,
    readers: Mapping[str, FieldReader],
) -> dict[str, dict[str, HostField]]:
    """Parse the fields of every host.

    Args:
        text: the whole file, to find line numbers in.
        name: name of the file in messages.
        readers: by field.
    Raises:
        UsageError: an invalid host or field; the message names file, line and field.
    """
    if not isinstance(tables, dict):
        raise UsageError(f"{name}: hosts is not a table", remedy='write [hosts."docker.io"]')
    hosts = {}
    for host, table in tables.items():
        location = f"{name}:{find_line_in_table(text, host)}"
        # [hosts.docker.io] without quotes is a table `io` in a table `docker`.
        is_nested = isinstance(table, dict) and any(isinstance(v, dict) for v in table.values())
        if not isinstance(table, dict) or is_nested or not _is_host(host):
            raise UsageError(
                f"{location}: {safe_repr(without_user(host))} is not a host with limits",
                remedy='write [hosts."docker.io"], with the host in quotes, and its limits below',
            )
        hosts[host] = _parse_table(table, text, name, host, readers)
    return hosts


def _parse_table(
    table: Mapping[str, Any], text: str, name: str, host: str, readers: Mapping[str, FieldReader]
) -> dict[str, HostField]:
    fields = {}
    for key, value in table.items():
        line = find_line_in_table(text, host, key)
        if key not in readers:
            raise UsageError(
                f"{name}:{line}: {safe_repr(key)}: unknown field",
                remedy=unknown_field_remedy(key, readers),
            )
        try:
            fields[key] = HostField(readers[key](value), _to_text(value), line)
        except UsageError as error:
            raise UsageError(
                f"{name}:{line}: {safe_repr(key)}: {error}", remedy=error.remedy
            ) from error
    return fields


def _to_text(value: Any) -> str:  # noqa: ANN401 - whatever TOML gives
    """Return a value as TOML has it, without the quotes of a string."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_host(host: str) -> bool:
    try:
        return Reference.parse(f"https://{host}/probe").host == host
    except ConcilError:
        return False


def _parse_jobs(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError("not a number of 1 or more", remedy="write the number of concurrent jobs")
    return value


def parse_rate(value: Any) -> float:  # noqa: ANN401 - whatever TOML gives
    """Return requests per second. Raises UsageError."""
    try:
        return units.parse_request_rate(value if isinstance(value, str) else "")
    except UsageError as error:
        raise UsageError("not a rate", remedy='write it as "20/s", "100/m" or "1000/h"') from error


def parse_bandwidth(value: Any) -> int:  # noqa: ANN401 - whatever TOML gives
    """Return bytes per second. Raises UsageError."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    try:
        return units.parse_bandwidth(text if isinstance(text, str) else "")
    except UsageError as error:
        raise UsageError(
            "not a bandwidth of at least 1k bytes per second",
            remedy='write it as "50M", "512K" or 1000000',
        ) from error


LIMIT_READERS: dict[str, FieldReader] = {
    "jobs": _parse_jobs,
    "rate": parse_rate,
    "bandwidth": parse_bandwidth,
}
