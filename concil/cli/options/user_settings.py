"""Settings that users make once: `CONCIL_*` variables and the config file.

An option takes precedence over a variable, and a variable over the file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from concil.cli.options import rates
from concil.cli.options.common import parse_count
from concil.cli.options.progress import parse_jobs, parse_progress
from concil.defaults import MAX_ATTEMPTS, WORKERS
from concil.errors import UsageError
from concil.runtime.dataclass import dataclass

if TYPE_CHECKING:
    from concil.cli.options.config_file import ConfigFile

CONFIG_VARIABLE = "CONCIL_CONFIG"
_PREFIX = "CONCIL_"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that is an option, a variable and a key of the config file."""

    key: str  # in the config file
    attribute: str  # of the arguments
    parse: Callable[[str], Any]  # raises ArgumentTypeError
    default: Any
    default_text: str

    @property
    def variable(self) -> str:
        """Name of the environment variable, which is that of the option."""
        return f"{_PREFIX}{self.attribute.upper()}"


@dataclass(frozen=True, slots=True)
class SettingValue:
    """The value of a setting, and where it comes from."""

    setting: Setting
    value: Any
    text: str  # as it is written
    source: str  # "file", "variable" or "default"
    line: int = 0  # of the file, from 1


@dataclass(frozen=True, slots=True)
class UserSettings:
    """All settings of the variables and the config file."""

    values: tuple[SettingValue, ...]
    file: ConfigFile | None = None  # None: there is none
    path: str = ""  # of the config file, which may not exist


SETTINGS = (
    Setting("jobs", "jobs", parse_jobs, WORKERS, str(WORKERS)),
    Setting("limits.rate", "limit_requests", rates.parse_request_rate, None, "no limit"),
    Setting("limits.bandwidth", "limit_rate", rates.parse_bandwidth, None, "no limit"),
    Setting("progress", "progress", parse_progress, None, "auto"),
    Setting("retry", "retry", parse_count, MAX_ATTEMPTS - 1, str(MAX_ATTEMPTS - 1)),
)


def read_user_settings(environment: Mapping[str, str] = os.environ) -> UserSettings:
    """Read the variables and the config file.

    Raises:
        UsageError: a value is invalid; the message names the variable, or file and line.
    """
    file, path = None, config_path(environment)
    if environment.get(CONFIG_VARIABLE) or os.path.lexists(path):
        from concil.cli.options.config_file import read_config_file  # noqa: PLC0415  # tomllib

        file = read_config_file(path)
    values = tuple(_find_value(setting, environment, file) for setting in SETTINGS)
    return UserSettings(values, file, path)


def config_path(environment: Mapping[str, str] = os.environ) -> str:
    """Return the path of the config file, which may not exist."""
    named = environment.get(CONFIG_VARIABLE)
    if named:
        return named
    directory = environment.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(directory):  # noqa: PTH117  # as the specification of XDG wants it
        directory = os.path.expanduser("~/.config")  # noqa: PTH111  # pathlib raises without a home
    return f"{directory.rstrip('/')}/concil/config.toml"


def apply_user_settings(arguments: argparse.Namespace) -> None:
    """Give the options that are not given the values of variables, config file or defaults.

    Raises:
        UsageError: as `read_user_settings`.
    """
    if not hasattr(arguments, "retry"):
        return  # a verb without registries
    arguments.is_retry_given = arguments.retry is not None
    arguments.is_progress_given = getattr(arguments, "progress", None) is not None
    settings = read_user_settings()
    for found in settings.values:
        name = found.setting.attribute
        is_silent = name == "progress" and arguments.quiet  # which is an option
        if getattr(arguments, name, found) is None and not is_silent:
            setattr(arguments, name, found.value)
    if settings.file is not None and settings.file.hosts:
        from concil.plan.formats.toml_hosts import to_limits  # noqa: PLC0415  # imports tomllib

        arguments.config_path, arguments.host_fields = settings.path, settings.file.hosts
        limits = {host: to_limits(fields) for host, fields in settings.file.hosts.items()}
        arguments.hosts = arguments.file_hosts = limits


def _find_value(
    setting: Setting, environment: Mapping[str, str], file: ConfigFile | None
) -> SettingValue:
    text = environment.get(setting.variable, "")
    if text:
        try:
            value = setting.parse(text)
        except argparse.ArgumentTypeError as error:
            raise UsageError(
                f"{setting.variable}: {error}", remedy="correct the variable, or unset it"
            ) from error
        return SettingValue(setting, value, text, "variable")
    if file is not None and setting.key in file.values:
        found = file.values[setting.key]
        return SettingValue(setting, found.value, found.text, "file", found.line)
    return SettingValue(setting, setting.default, setting.default_text, "default")
