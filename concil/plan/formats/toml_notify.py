"""Parses the `[notify]` table of TOML plans."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from concil.errors import ConcilError, UsageError, safe_repr
from concil.http.urls import host_of, origin
from concil.oci.reference import is_loopback
from concil.plan.formats.toml_document import find_line, find_line_in_table
from concil.plan.formats.unknown_field import unknown_field_remedy
from concil.plan.notify_settings import DEFAULT_EVENTS, DEFAULT_TIMEOUT, EVENTS, NotifySettings

NOTIFY_TABLE = "notify"
_MAX_TIMEOUT = 300.0  # seconds


def parse_notify(table: Any, text: str, name: str) -> NotifySettings | None:  # noqa: ANN401 - of TOML
    """Parse the table; None: there is none.

    Args:
        text: the whole file, to find line numbers in.
        name: name of the file in messages.
    Raises:
        UsageError: a field is unknown, missing or of the wrong type; the message names file, line
            and field.
    """
    if table is None:
        return None
    line = find_line(text, NOTIFY_TABLE)
    if not isinstance(table, dict):
        raise UsageError(f"{name}:{line}: notify is not a table", remedy="write [notify]")
    values: dict[str, Any] = {}
    for key, value in table.items():
        location = f"{name}:{find_line_in_table(text, NOTIFY_TABLE, key)}"
        if key not in _READERS:
            remedy = unknown_field_remedy(key, _READERS)
            raise UsageError(f"{location}: {safe_repr(key)}: unknown field", remedy=remedy)
        try:
            values[key] = _READERS[key](value)
        except UsageError as error:
            raise UsageError(f"{location}: {key!r}: {error}", remedy=error.remedy) from error
    location = f"{name}:{line}"
    _check(values, location)
    return NotifySettings(
        location,
        values.get("webhook"),
        values.get("webhook_secret_env"),
        values.get("webhook_secret_file"),
        values.get("command", ()),
        values.get("on", DEFAULT_EVENTS),
        values.get("timeout", DEFAULT_TIMEOUT),
    )


def _check(values: dict[str, Any], location: str) -> None:
    """Check what the fields mean together."""
    webhook: str | None = values.get("webhook")
    if webhook is None and not values.get("command"):
        raise UsageError(
            f"{location}: [notify] has neither a webhook nor a command",
            remedy='write webhook = "https://..." or command = ["..."]',
        )
    secrets = [key for key in ("webhook_secret_env", "webhook_secret_file") if key in values]
    if secrets and webhook is None:
        raise UsageError(
            f"{location}: {secrets[0]!r} needs a webhook", remedy='write webhook = "https://..."'
        )
    if len(secrets) > 1:
        raise UsageError(f"{location}: two secrets of one webhook", remedy="omit one of them")
    is_plain = webhook is not None and origin(webhook)[0] == "http"
    if is_plain and not is_loopback(host_of(webhook or "")) and not values.get("allow_plain_http"):
        raise UsageError(
            f"{location}: the webhook does not use https: everybody on the way reads it",
            remedy="use https, or write allow_plain_http = true",
        )


def _read_string(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError("not a string", remedy='write it in quotes: "..."')
    return value


def _read_url(value: object) -> str:
    url = _read_string(value)
    is_clean = url.isascii() and url.isprintable() and " " not in url
    is_web = False
    with contextlib.suppress(ConcilError):  # of another scheme, or without a host
        is_web = bool(origin(url))
    if not is_clean or not is_web:
        raise UsageError("not a URL", remedy='write webhook = "https://host/path"')
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError(  # it would be sent in clear text by every proxy, and logged by servers
            "a URL with a password", remedy="give a secret with webhook_secret_env"
        )
    return url


def _read_command(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError("not a list of strings", remedy='write it as ["program", "argument"]')
    return tuple(_read_string(word) for word in value)


def _read_events(value: object) -> frozenset[str]:
    events = [value] if isinstance(value, str) else value
    if not isinstance(events, list) or not events or not set(map(str, events)) <= set(EVENTS):
        raise UsageError("not a list of events", remedy=f"known events: {', '.join(EVENTS)}")
    return frozenset(events)


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError("neither true nor false", remedy="write it without quotes")
    return value


def _read_timeout(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    seconds = float(value) if isinstance(value, int | float) and is_number else math.nan
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise UsageError(
            f"not a number of seconds up to {_MAX_TIMEOUT:.0f}", remedy="write timeout = 10"
        )
    return seconds


_READERS: dict[str, Callable[[object], object]] = {
    "webhook": _read_url,
    "webhook_secret_env": _read_string,
    "webhook_secret_file": _read_string,
    "allow_plain_http": _read_bool,
    "command": _read_command,
    "on": _read_events,
    "timeout": _read_timeout,
}
