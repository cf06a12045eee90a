"""Reads the config file of the command line."""

from __future__ import annotations

import os
import stat
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from concil.cli.options.common import parse_count
from concil.cli.options.progress import parse_jobs, parse_progress
from concil.errors import UsageError, safe_repr
from concil.plan.formats.toml_document import find_line, find_line_in_table, parse_document
from concil.plan.formats.toml_hosts import (
    HOSTS_TABLE,
    LIMIT_READERS,
    FieldReader,
    HostField,
    parse_bandwidth,
    parse_hosts,
    parse_rate,
)
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import without_user

LIMITS_TABLE = "limits"
Parsed = TypeVar("Parsed")
_MAX_SIZE = 1 << 20  # bytes
_REMEDY = "the config file is TOML: see docs/configuration.md"
# Keys that people look for in the wrong place.
_LOGINS = ("auth", "creds", "credentials", "login", "pass", "password", "token", "user", "username")
_HOST_KEYS = ("bandwidth", "ca", "cacert", "cert", "cert-dir", "insecure", "key", "rate")
_LIMIT_OPTIONS = {"limit-requests": "rate", "limit-rate": "bandwidth"}


@dataclass(frozen=True, slots=True)
class FileValue:
    """A value of the file."""

    value: Any  # as the command line has it
    text: str  # as it is written
    line: int  # from 1


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The content of a config file."""

    path: str
    values: Mapping[str, FileValue]  # by key; those of a table as in "limits.rate"
    hosts: Mapping[str, Mapping[str, HostField]]  # by host, as users write it, and field


def read_config_file(path: str) -> ConfigFile:
    """Read a config file.

    Raises:
        UsageError: it cannot be read, is not TOML, or has an unknown key or an invalid value; the
            message names file and line.
    """
    text = _read_text(path)
    document = parse_document(text, path, _REMEDY)
    hosts = parse_hosts(document.pop(HOSTS_TABLE, {}), text, path, _host_readers(path))
    for host, fields in hosts.items():
        _check_host(f"{path}:{find_line_in_table(text, host)}: hosts.{host!a}", fields)
    limits = document.pop(LIMITS_TABLE, {})
    if not isinstance(limits, dict):
        line = find_line(text, LIMITS_TABLE)
        raise UsageError(f"{path}:{line}: limits is not a table", remedy="write [limits]")
    values = {}
    for key, value in document.items():
        line = find_line(text, key)
        values[key] = _read_value(f"{path}:{line}", key, value, _READERS, line)
    for key, value in limits.items():
        line = find_line_in_table(text, LIMITS_TABLE, key)
        limit = _read_value(f"{path}:{line}", key, value, _LIMIT_READERS, line)
        values[f"{LIMITS_TABLE}.{key}"] = limit
    return ConfigFile(path, values, hosts)


def _read_text(path: str) -> str:
    if "://" in path:  # may have a password
        shown = safe_repr(without_user(path))
        raise UsageError(f"CONCIL_CONFIG is not a path: {shown}", remedy="name a file")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # a path as the user writes it
        if not (stat.S_ISREG(mode) or path == os.devnull):
            raise UsageError(f"the config file {safe_repr(path)} is not a regular file")
        with open(path, "rb") as file:  # noqa: PTH123  # as above
            content = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the config file {safe_repr(path)}: {error.strerror}",
            remedy="correct CONCIL_CONFIG, or the permissions of the file",
        ) from error
    if len(content) > _MAX_SIZE:
        raise UsageError(f"the config file {safe_repr(path)} is larger than 1 MiB", remedy=_REMEDY)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8", remedy=_REMEDY) from error


def _read_value(
    location: str, key: str, value: object, readers: Mapping[str, FieldReader], line: int
) -> FileValue:
    if key not in readers:
        raise UsageError(
            f"{location}: {safe_repr(key)}: unknown field", remedy=_unknown_key_remedy(key, readers)
        )
    try:
        return FileValue(readers[key](value), str(value), line)
    except UsageError as error:
        raise UsageError(f"{location}: {safe_repr(key)}: {error}", remedy=error.remedy) from error


def _unknown_key_remedy(key: str, readers: Mapping[str, FieldReader]) -> str:
    name = key.lower().replace("_", "-")
    if name in _LOGINS:
        return "logins are not in this file: concil login HOST stores them"
    if readers is _READERS and name in _LIMIT_OPTIONS:
        return f"write {_LIMIT_OPTIONS[name]} below [limits]"
    if readers is _READERS and name in _HOST_KEYS:
        tables = "[limits], or " if name in _LIMIT_READERS else ""
        return f'write it below {tables}[hosts."HOST"], for this host only'
    names = [*readers, LIMITS_TABLE, HOSTS_TABLE] if readers is _READERS else readers
    return unknown_field_remedy(key, names)


def _host_readers(path: str) -> dict[str, FieldReader]:
    """Return the readers of the fields of a host: as in plans, and as the options for TLS."""

    def read_path(value: object) -> str:
        # A URL is not repeated either: it may have a password.
        if not isinstance(value, str) or not value or "://" in value:
            raise UsageError("not a path", remedy='write it in quotes: "..."')
        # Relative to the config file: nobody knows from where concil will be started.
        return str(Path(path).absolute().parent / Path(value).expanduser())

    paths = dict.fromkeys(("cacert", "cert-dir", "cert", "key"), read_path)
    return {**LIMIT_READERS, "insecure": _read_bool, **paths}


def _check_host(location: str, fields: Mapping[str, HostField]) -> None:
    """Check that the fields of a host do not contradict each other."""
    trusted = next((name for name in ("cacert", "cert-dir") if name in fields), None)
    if trusted is not None and "insecure" in fields and fields["insecure"].value:
        raise UsageError(
            f"{location}: insecure trusts any certificate, and {trusted} only some",
            remedy="omit one of them",
        )
    if "key" in fields and "cert" not in fields:
        raise UsageError(f"{location}: key is given without cert", remedy='add cert = "FILE"')


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError("neither true nor false", remedy="write it without quotes")
    return value


def _number_reader(parse: Callable[[str], int]) -> FieldReader:
    """Return the reader of a number, which an option parses from text."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError("not a number", remedy="write it without quotes")
        return _parse(parse, str(value))

    return read


def _read_progress(value: object) -> str:
    return _parse(parse_progress, value if isinstance(value, str) else "")


def _parse(parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ArgumentTypeError as error:
        raise UsageError(str(error), remedy="see docs/configuration.md") from error


_READERS: dict[str, FieldReader] = {
    "jobs": _number_reader(parse_jobs),
    "progress": _read_progress,
    "retry": _number_reader(parse_count),
}
_LIMIT_READERS: dict[str, FieldReader] = {"rate": parse_rate, "bandwidth": parse_bandwidth}
