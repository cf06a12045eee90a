"""`concil config show`: prints the settings of the user, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from concil.cli.context import CommandContext
from concil.cli.options.user_settings import (
    CONFIG_VARIABLE,
    SETTINGS,
    SettingValue,
    UserSettings,
    read_user_settings,
)
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.cli.output.tables import print_table
from concil.errors import UsageError
from concil.runtime.dataclass import dataclass
from concil.runtime.suggestions import did_you_mean

ACTION = "show"  # in place of the address of an image
_PREFIX = "CONCIL_"
_VARIABLES = {CONFIG_VARIABLE, "CONCIL_STOCK_HTTP", *(each.variable for each in SETTINGS)}


def run(command: CommandContext) -> int:
    """Print each setting, its value, and where it comes from.

    Raises:
        UsageError: an option is given that is for the config of an image.
    """
    arguments = command.arguments
    _check_options(command)
    settings = read_user_settings()
    for name in sorted(os.environ):
        question = did_you_mean(name, _VARIABLES) if name.startswith(_PREFIX) else ""
        if question and name not in _VARIABLES:
            command.print_message(f"concil: {name} is not a setting; {question}")
    if arguments.format == "json":
        results.print_json(_to_json(settings))
        return DONE
    rows = [(row.name, row.text, row.source) for row in _rows(settings)]
    print_table(("SETTING", "VALUE", "FROM"), rows)
    if settings.file is None:
        command.print_message(f"concil: there is no config file {settings.path}")
    return DONE


def _check_options(command: CommandContext) -> None:
    arguments = vars(command.arguments)
    names = ("platform", "tls_verify", "insecure", "cacert", "cert_dir", "cert", "key", "creds")
    given = [name for name in (*names, "authfile") if arguments.get(name)]
    given += ["tls_verify"] if arguments.get("tls_verify") is False else []
    if given or arguments["is_retry_given"]:
        option = (given or ["retry"])[0].replace("_", "-")
        raise UsageError(
            f"config show prints the settings of concil, and --{option} is for an image",
            remedy=f"omit it, or for the config of an image {ACTION!r} write {ACTION}:TAG",
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """A setting with its value and source."""

    name: str
    value: Any
    text: str  # as it is written
    source: str  # for people
    details: dict[str, object]  # of the source, for programs


def _rows(settings: UserSettings) -> Iterator[_Row]:
    for found in settings.values:
        source, details = _describe_source(settings, found)
        value = found.text if found.setting.key == "progress" else found.value
        yield _Row(found.setting.key, value, found.text, source, details)
    if settings.file is not None:
        for host, fields in settings.file.hosts.items():
            for name, entry in fields.items():
                source, details = _describe_line(settings.path, entry.line)
                key = f'hosts."{host}".{name}'
                yield _Row(key, entry.value, entry.text, source, details)


def _describe_source(settings: UserSettings, found: SettingValue) -> tuple[str, dict[str, object]]:
    if found.source == "variable":
        variable = found.setting.variable
        return variable, {"source": "variable", "variable": variable}
    if found.source == "file":
        return _describe_line(settings.path, found.line)
    return "default", {"source": "default"}


def _describe_line(path: str, line: int) -> tuple[str, dict[str, object]]:
    return f"{path}:{line}", {"source": "file", "file": path, "line": line}


def _to_json(settings: UserSettings) -> dict[str, object]:
    file = None if settings.file is None else settings.path
    rows = [{"name": row.name, "value": row.value, **row.details} for row in _rows(settings)]
    return {"file": file, "settings": rows}
