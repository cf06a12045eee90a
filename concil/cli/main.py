"""Entry point of the command line: parses arguments, runs a verb, prints errors."""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import urllib3

from concil import __version__
from concil.cli.commands import blob, copy_all, images, inspect, login, mirror, serve, transfers
from concil.cli.context import CommandContext
from concil.cli.demo import command
from concil.cli.options import common
from concil.cli.output import logs, results
from concil.cli.output.errors import DONE, PIPE_CLOSED, describe_error, exit_code
from concil.cli.signals import run_interruptibly
from concil.display.display import Display, open_display
from concil.errors import StoreError, UsageError

__all__ = ["main"]

_EXIT_CODES_HELP = """\
exit codes: 0 done, 1 failed, 2 usage, 3 some images failed, 4 not found,
5 not authorised, 130 interrupted (run the same command again to resume)"""


class _Parser(argparse.ArgumentParser):
    """Raises errors that argparse would print, so that every failure is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError.

        An unexpected argument may be a password: the message repeats options only.
        """
        head, marker, rest = message.partition("unrecognized arguments: ")
        if marker:
            options = [_option_name(word) for word in rest.split(" ") if word.startswith("-")]
            message = f"{head}unrecognized arguments: {' '.join(options)}" if options else ""
        raise UsageError(message or "too many arguments", remedy=f"see: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    argv_list = sys.argv[1:] if argv is None else argv
    display: Display = open_display("json" if _has_json_progress(argv_list) else "none", sys.stderr)
    try:
        arguments = _parse_arguments(argv_list)
        display = open_display(_progress_mode(arguments), sys.stderr)
        with logs.log_to_display(display, verbose=arguments.verbose, quiet=arguments.quiet):
            code = _run(arguments, display)
        _flush_stdout()
        return code
    except SystemExit as exit_request:  # argparse after --help and --version
        return exit_request.code if isinstance(exit_request.code, int) else DONE
    except BrokenPipeError:
        results.discard_output()
        return PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - printed in one line
        display.close()
        display.write(f"concil: {describe_error(error)}", "error")
        return exit_code(error)
    finally:
        display.close()


def _option_name(word: str) -> str:
    """Return the option of an argument, without a value joined by `=`."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _run(arguments: argparse.Namespace, display: Display) -> int:
    with warnings.catch_warnings():
        # Users who pass --insecure need no warning.
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        if arguments.verb == "serve":  # handles signals itself
            return serve.run(arguments)
        if hasattr(arguments, "ask"):
            arguments.ask(arguments)
        return run_interruptibly(arguments.work, CommandContext(arguments, display))


def _has_json_progress(words: Sequence[str]) -> bool:
    """Return whether progress is JSON; known before parsing, so that usage errors are JSON too."""
    return "--progress=json" in words or ("--progress", "json") in itertools.pairwise(words)


def _progress_mode(arguments: argparse.Namespace) -> str:
    mode: str | None = getattr(arguments, "progress", "none")
    return mode or ("none" if arguments.quiet else "auto")


def _flush_stdout() -> None:
    """Flush standard output, so that a write error fails the command."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        results.discard_output()
        raise StoreError(f"cannot write to standard output: {error.strerror}") from error


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser, empty = _create_parser(), argparse.Namespace(verbose=0, quiet=False)
    arguments, rest = parser.parse_known_args(common.expand_tls_switches(argv), empty)
    # argparse of Python 3.11 drops an optional positional argument that follows an option.
    if len(rest) == 1 and not rest[0].startswith("-") and mirror.is_missing_destination(arguments):
        arguments.destination = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _create_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="concil",
        description="Transfer images and blobs between OCI registries, layouts and files.",
        epilog=_EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"concil {__version__}")
    common.add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for group in (copy_all, mirror, blob, images, inspect, login, transfers, serve, command):
        group.add_parser(verbs)
    for name, verb_parser in verbs.choices.items():
        verb_parser.allow_abbrev = False
        if name != "blob":  # its own verbs have them
            common.add_common(verb_parser)
    return parser
