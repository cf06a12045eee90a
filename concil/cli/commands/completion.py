"""`concil completion`: prints the script by which a shell completes the command line."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.errors import UsageError


def run(command: CommandContext) -> int:
    """Print the script."""
    try:
        from argcomplete import shell_integration  # noqa: PLC0415  # the extra may be missing
    except ImportError as error:
        raise UsageError(
            "completion needs the package argcomplete",
            remedy="install it: pip install 'concil[completion]'",
        ) from error
    script = shell_integration.shellcode(["concil"], shell=command.arguments.shell)
    results.write_bytes(script.encode() + b"\n")
    return DONE
