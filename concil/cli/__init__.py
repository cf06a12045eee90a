"""The command line: verbs, what they print, and how they fail."""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import urllib3

from concil import __version__
from concil.bars import Display, open_display
from concil.cli import (
    blob,
    copy_all,
    demo,
    images,
    inspect,
    login,
    logs,
    mirror,
    options,
    results,
    serve,
    transfers,
)
from concil.cli.command import Command, supervise
from concil.cli.failures import DONE, PIPE_CLOSED, exit_code, told
from concil.errors import StoreError, UsageError

__all__ = ["main"]

_CODES = """\
exit codes: 0 done, 1 failed, 2 usage, 3 some images failed, 4 not found,
5 not authorised, 130 interrupted (run the same command again to go on)"""


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print: a failure is one line, whatever it is."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError.

        An argument that nobody expected may be a password: only options are repeated.
        """
        head, mark, rest = message.partition("unrecognized arguments: ")
        if mark:
            words = [_option(word) for word in rest.split(" ") if word.startswith("-")]
            message = f"{head}unrecognized arguments: {' '.join(words)}" if words else ""
        raise UsageError(message or "too many arguments", remedy=f"see: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    display: Display = open_display("json" if _wants_json(words) else "none", sys.stderr)
    try:
        arguments = _parse(words)
        display = open_display(_progress(arguments), sys.stderr)
        with logs.shown_on(display, verbose=arguments.verbose, quiet=arguments.quiet):
            code = _run(arguments, display)
        _flush()
        return code
    except SystemExit as done:  # argparse after --help and --version
        return done.code if isinstance(done.code, int) else DONE
    except BrokenPipeError:
        results.silence()
        return PIPE_CLOSED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line
        display.close()
        display.write(f"concil: {told(error)}", "error")
        return exit_code(error)
    finally:
        display.close()


def _option(word: str) -> str:
    """The option of an argument, without a value that is joined to it."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _run(arguments: argparse.Namespace, display: Display) -> int:
    with warnings.catch_warnings():
        # Who asked for --insecure knows.
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        if arguments.verb == "serve":  # handles signals itself
            return serve.run(arguments)
        if hasattr(arguments, "ask"):
            arguments.ask(arguments)
        return supervise(arguments.work, Command(arguments, display))


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a program reads the messages: it can read that of a bad argument, too."""
    return "--progress=json" in words or ("--progress", "json") in itertools.pairwise(words)


def _progress(arguments: argparse.Namespace) -> str:
    asked: str | None = getattr(arguments, "progress", "none")
    return asked or ("none" if arguments.quiet else "auto")


def _flush() -> None:
    """Fail for what could not be written, before the interpreter's end would say it."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        results.silence()
        raise StoreError(f"cannot write to standard output: {error.strerror}") from error


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser, empty = _parser(), argparse.Namespace(verbose=0, quiet=False)
    arguments, rest = parser.parse_known_args(options.spelt_out(argv), empty)
    # argparse of 3.11 takes an argument that may be missing for missing behind any option.
    if len(rest) == 1 and not rest[0].startswith("-") and mirror.lacks_destination(arguments):
        arguments.destination = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="concil",
        description="Move images and blobs between OCI registries, layouts and files.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"concil {__version__}")
    options.add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for group in (copy_all, mirror, blob, images, inspect, login, transfers, serve, demo):
        group.add_parser(verbs)
    for name, each in verbs.choices.items():
        each.allow_abbrev = False
        if name != "blob":  # its own verbs have them
            options.add_common(each)
    return parser
