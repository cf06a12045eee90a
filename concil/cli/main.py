"""Entry point of the command line: parses arguments, then imports and runs a verb."""

from __future__ import annotations

import gc
import itertools
import os
import sys

from concil.cli.argument_parser import parse_arguments
from concil.cli.verbs import load_function

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    if argv is None and "_ARGCOMPLETE" in os.environ:  # a shell completes the line
        from concil.cli.completion import complete  # noqa: PLC0415  # as seldom

        return complete()
    words = sys.argv[1:] if argv is None else argv
    try:
        if not words:
            return _print_short_help()
        arguments = parse_arguments(words)
        from concil.cli.options.user_settings import apply_user_settings  # noqa: PLC0415  # as below

        apply_user_settings(arguments)
    except SystemExit as exit_request:  # argparse after --help and --version
        return exit_request.code if isinstance(exit_request.code, int) else 0
    except Exception as error:  # noqa: BLE001 - printed in one line
        return _report(error, words)
    from concil.cli.execution import execute  # noqa: PLC0415  # the arguments are valid

    if argv is None:
        from concil.runtime.charset_detection import defer_charset_detection  # noqa: PLC0415  # as above

        with defer_charset_detection():
            function = load_function(arguments.command)
    else:  # within another program
        function = load_function(arguments.command)
    if not gc.isenabled():  # since the start of the program
        gc.freeze()  # modules stay until the end: no collection has to look at them
        gc.enable()
    return execute(function, arguments)


def _print_short_help() -> int:
    from concil.cli.help import SHORT_HELP  # noqa: PLC0415  # only without arguments

    print(SHORT_HELP, end="", flush=True)
    return 0


def _report(error: Exception, words: Sequence[str]) -> int:
    """Print an error of the arguments and return the exit code.

    It is printed as JSON if the arguments ask for progress in JSON.
    """
    from concil.cli.output import errors  # noqa: PLC0415  # not for --version and --help

    if isinstance(error, BrokenPipeError):  # nobody reads the help
        from concil.cli.output import results  # noqa: PLC0415  # imports json

        results.discard_output()
        return errors.PIPE_CLOSED
    line = f"concil: {errors.describe_error(error)}"
    is_json = "--progress=json" in words or ("--progress", "json") in itertools.pairwise(words)
    if is_json or os.environ.get("CONCIL_PROGRESS") == "json":
        from concil.display.display import open_display  # noqa: PLC0415  # seldom needed

        open_display("json", sys.stderr).write(line, "error")
    else:
        from concil.display.output import Output  # noqa: PLC0415  # as above

        Output(sys.stderr).write(f"{line}\n")
    return errors.exit_code(error)
