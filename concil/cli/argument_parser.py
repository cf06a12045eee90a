"""Parses the command line; imports only the options of the verb that is given."""

from __future__ import annotations

import argparse

from concil import __version__
from concil.cli.options import common
from concil.cli.verbs import VERBS, load_function
from concil.errors import UsageError

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

_EXIT_CODES_HELP = """\
exit codes: 0 done, 1 failed, 2 usage, 3 some images failed, 4 not found,
5 not authorised, 130 interrupted (run the same command again to resume)"""


class Parser(argparse.ArgumentParser):
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


class _VerbParser(Parser):
    """The parser of a verb, which declares its options when it parses for the first time."""

    def __init__(self, *, declare: str = "", **keywords: Any) -> None:  # noqa: ANN401 - those of ArgumentParser
        super().__init__(**keywords)
        self._declare = declare  # the function that adds the options; "": they were added

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Declare the options, and parse."""
        self.load()
        return super().parse_known_args(args, namespace)

    def load(self) -> None:
        """Declare the options, unless they have been declared."""
        declare, self._declare = self._declare, ""
        if declare:
            load_function(declare)(self)
            if self.get_default("command"):  # otherwise the verbs below it have them
                common.add_common(self)


def create_parser(*, is_complete: bool = False) -> Parser:
    """Return the parser of the command line.

    Args:
        is_complete: declare the options of all verbs, for a reader of the parser itself.
    """
    parser = Parser(
        prog="concil",
        description="Transfer images and blobs between OCI registries, layouts and files.",
        epilog=_EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"concil {__version__}")
    common.add_common(parser)
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, prog="concil", parser_class=_VerbParser
    )
    for name, (declare, help_line) in VERBS.items():
        verb = verbs.add_parser(name, help=help_line, declare=declare, allow_abbrev=False)
        if is_complete:
            verb.load()
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of the process, without its name.

    Raises:
        UsageError: they are invalid.
        SystemExit: the help or the version was printed.
    """
    parser, empty = create_parser(), argparse.Namespace(verbose=0, quiet=False)
    arguments, rest = parser.parse_known_args(common.expand_tls_switches(argv), empty)
    # argparse of Python 3.11 drops an optional positional argument that follows an option.
    if len(rest) == 1 and not rest[0].startswith("-") and _is_missing_destination(arguments):
        arguments.destination = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _option_name(word: str) -> str:
    """Return the option of an argument, without a value joined by `=`."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _is_missing_destination(arguments: argparse.Namespace) -> bool:
    """Return whether it is a mirror without the destination argument."""
    return arguments.verb == "mirror" and arguments.destination is None
