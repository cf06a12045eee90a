"""Entry point of the command line: parses arguments, then imports and runs a verb."""

from __future__ import annotations

import itertools
import sys

from concil.cli.argument_parser import parse_arguments
from concil.cli.output.errors import DONE, PIPE_CLOSED, describe_error, exit_code
from concil.cli.verbs import load_function
from concil.display.output import Output

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = parse_arguments(words)
    except SystemExit as exit_request:  # argparse after --help and --version
        return exit_request.code if isinstance(exit_request.code, int) else DONE
    except BrokenPipeError:
        from concil.cli.output import results  # noqa: PLC0415  # no verb runs

        results.discard_output()
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - printed in one line
        _print_error(f"concil: {describe_error(error)}", words)
        return exit_code(error)
    from concil.cli.execution import execute  # noqa: PLC0415  # the arguments are valid

    return execute(load_function(arguments.command), arguments)


def _print_error(line: str, words: Sequence[str]) -> None:
    """Print an error of the arguments, as JSON if they ask for progress in JSON."""
    if "--progress=json" in words or ("--progress", "json") in itertools.pairwise(words):
        from concil.display.display import open_display  # noqa: PLC0415  # seldom needed

        open_display("json", sys.stderr).write(line, "error")
    else:
        Output(sys.stderr).write(f"{line}\n")
