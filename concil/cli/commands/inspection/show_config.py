"""`concil config`: prints the config of an image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from concil.cli.commands.images import single_platform
from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.transfer.blob.image_config import platform_of
from concil.transfer.journal import Journal

# Fields of the config in the order of a Dockerfile's author. Source: image-spec, config.
_FIELDS = (
    "Entrypoint",
    "Cmd",
    "WorkingDir",
    "User",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Env",
    "Labels",
)


def run(command: CommandContext) -> int:
    """Print the config of an image, or of one platform of an index; or the settings of concil."""
    arguments = command.arguments
    if arguments.address == "show":
        from concil.cli.commands.inspection import show_settings  # noqa: PLC0415  # not an image

        return show_settings.run(command)
    platform = single_platform(command)
    with open_engine(command, journal=Journal(None)) as engine:
        config = engine.read_config(
            arguments.address, platform=None if platform is None else str(platform)
        )
    if arguments.format == "json":
        results.print_json(config)
        return DONE
    for name, text in _lines(config):
        results.print_line(f"{name:<11} {text}".rstrip())
    return DONE


def _lines(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each line; further values of a field have no name."""
    yield "platform", str(platform_of(config) or "unknown")
    for name in ("created", "author"):
        if config.get(name):
            yield name, str(config[name])
    container = config.get("config")
    for name in _FIELDS:
        value = container.get(name) if isinstance(container, dict) else None
        if not value:
            continue
        label = name.lower()
        if name in ("ExposedPorts", "Volumes") and isinstance(value, dict):
            yield label, ", ".join(map(str, value))
        elif name == "Env" and isinstance(value, list):
            for text in value:
                yield label, str(text)
                label = ""
        elif isinstance(value, dict):
            for key, text in value.items():
                yield label, f"{key}={text}"
                label = ""
        else:
            yield label, value if isinstance(value, str) else json.dumps(value)
