"""`concil inspect`: prints a JSON summary of an image."""

from __future__ import annotations

from concil.cli.commands.images import single_platform
from concil.cli.context import CommandContext
from concil.cli.open_engine import open_engine
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.transfer.journal import Journal


def run(command: CommandContext) -> int:
    """Print a summary of an image's manifest and config."""
    platform = single_platform(command)
    with open_engine(command, journal=Journal(None)) as engine:
        document = engine.inspect(
            command.arguments.address, platform=None if platform is None else str(platform)
        )
    results.print_json(document)
    return DONE
