"""Parses the command line; imports only the options of the verb that is given."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from concil import __version__
from concil.cli import parser_errors
from concil.cli.help import replace_words
from concil.cli.options import common
from concil.cli.verbs import ALIASES, VERBS, load_function

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

_EXIT_CODES_HELP = """\
exit codes: 0 done, 1 failed, 2 usage, 3 some images failed, 4 not found,
5 not authorised, 6 a check found images that are not in order,
130 interrupted (run the same command again to resume)"""


class _HelpFormatter(argparse.HelpFormatter):
    """Knows the width of the terminal without importing shutil and its compression modules."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_width() - 2)  # the margin of argparse


class _RawHelpFormatter(_HelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Does not wrap the description."""


class Parser(argparse.ArgumentParser):
    """Raises errors that argparse would print, so that every failure is one line."""

    def __init__(self, **keywords: Any) -> None:  # noqa: ANN401 - those of ArgumentParser
        keywords.setdefault("formatter_class", _HelpFormatter)
        keywords.setdefault("allow_abbrev", False)
        super().__init__(**keywords)

    def format_help(self) -> str:
        """Return the help, which begins with examples."""
        from concil.cli.examples import format_examples  # noqa: PLC0415  # only for the help

        return format_examples(self.prog) + super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError."""
        raise parser_errors.usage_error(self, message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - of any type
        """Raise an error of our own if a value is not one of the choices."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, parser_errors.describe_wrong_choice(self, action, value)
            )


def create_parser(verb: str | None = None) -> Parser:
    """Return the parser of the command line.

    Args:
        verb: the only verb that is declared; "" for the names of all verbs without their
            options, as the help lists them; None for all verbs.
    """
    parser = Parser(
        prog="concil",
        description="Transfer images and blobs between OCI registries, layouts and files.",
        epilog=_EXIT_CODES_HELP,
        formatter_class=_RawHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"concil {__version__}")
    common.add_common(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog="concil")
    for name in [verb] if verb else VERBS:
        declare, help_line = VERBS[name]
        aliases = [alias for alias, target in ALIASES.items() if target == name]
        alias_text = f" (also: {', '.join(aliases)})" if aliases else ""
        verb_parser = verbs.add_parser(name, help=help_line + alias_text)
        if verb != "":
            load_function(declare)(verb_parser)
            if verb_parser.get_default("command"):  # otherwise the verbs below it have them
                common.add_common(verb_parser)
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of the process, without its name.

    Raises:
        UsageError: they are invalid.
        SystemExit: the help or the version was printed.
    """
    words = replace_words(argv)
    # No option before the verb takes a value.
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb and verb not in VERBS:
        raise parser_errors.unknown_verb_error(words, verb)
    parser = create_parser(verb)
    if not verb:
        parser_errors.check_options_of_all(parser, words)
    empty = argparse.Namespace(verbose=0, quiet=False)
    arguments, rest = parser.parse_known_args(common.expand_tls_switches(words), empty)
    # argparse of Python 3.11 drops an optional positional argument that follows an option.
    if len(rest) == 1 and not rest[0].startswith("-") and _is_missing_destination(arguments):
        arguments.destination = rest.pop()
    # argparse takes only one group of positional arguments: options may stand between several.
    for several in ("words", "destinations", "new_tags", "addresses"):
        if hasattr(arguments, several) and not any(_is_option(word) for word in rest):
            getattr(arguments, several).extend(rest)
            rest = []
    if rest:
        raise parser_errors.unexpected_arguments_error(parser, words, rest)
    return arguments


def _terminal_width() -> int:
    """Return the columns of the terminal, as ``shutil.get_terminal_size`` does."""
    columns = 0
    with contextlib.suppress(KeyError, ValueError):
        columns = int(os.environ["COLUMNS"])
    if columns <= 0:
        # Standard output may be closed or replaced.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    return columns if columns > 0 else 80


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _is_missing_destination(arguments: argparse.Namespace) -> bool:
    """Return whether it is a mirror or check without the destination argument."""
    return arguments.verb in ("mirror", "check") and arguments.destination is None
