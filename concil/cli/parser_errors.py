"""Errors of the command line's syntax: each says what is wrong and where the help is."""

from __future__ import annotations

import argparse

from concil.cli.verbs import ALIASES, VERBS

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from concil.errors import UsageError

_MISSING = "the following arguments are required: "
_EXPECTED_VALUE = "expected one argument"
_EXCLUSIVE = "not allowed with argument "
_NO_VALUE = "ignored explicit argument "
_QUESTION = "\0"  # separates the remedy in the message of an ArgumentError


def usage_error(parser: argparse.ArgumentParser, message: str) -> UsageError:
    """Return the error for a message of argparse."""
    names = message.removeprefix(_MISSING)
    if names != message:
        return _create_error(parser, _describe_missing(parser, names.split(", ")))
    head, separator, rest = message.removeprefix("argument ").partition(": ")
    if head == message or not separator:
        return _create_error(parser, message)
    if rest.startswith(_EXPECTED_VALUE):
        return _create_error(parser, f"{head} needs a value")
    if rest.startswith(_EXCLUSIVE):
        return _create_error(
            parser, f"{head} and {rest.removeprefix(_EXCLUSIVE)} exclude each other"
        )
    if rest.startswith(_NO_VALUE):  # the value is not repeated: it may be a password
        return _create_error(parser, f"{head} takes no value")
    text, _, question = rest.partition(_QUESTION)
    is_verb = any(action.metavar == head for action in _verb_actions(parser))
    return _create_error(parser, text if is_verb else f"{head}: {text}", question)


def describe_wrong_choice(
    parser: argparse.ArgumentParser,
    action: argparse.Action,
    value: Any,  # noqa: ANN401 - of any type
) -> str:
    """Return the message for a value that is not one of the choices."""
    from concil.errors import safe_repr  # noqa: PLC0415  # not for --version and --help
    from concil.runtime.suggestions import did_you_mean  # noqa: PLC0415  # only for errors

    choices = [str(choice) for choice in action.choices or ()]
    question = did_you_mean(str(value), choices) or f"choose {join_words(choices, 'or')};"
    if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no public name
        return f"{_verb_of(parser)} has no verb {safe_repr(value)}{_QUESTION}{question}"
    return f"there is no choice {safe_repr(value)}{_QUESTION}{question}"


def unknown_verb_error(words: Sequence[str], verb: str) -> UsageError:
    """Return the error for a word that is not a verb.

    Args:
        words: the arguments; an option before the word may be meant for a verb.
    """
    from concil.errors import UsageError, safe_repr  # noqa: PLC0415  # not for --version and --help
    from concil.runtime.suggestions import did_you_mean  # noqa: PLC0415  # only for errors

    options = [word for word in words[: words.index(verb)] if not _is_for_all(word)]
    if options:
        return UsageError(
            f"the option {safe_repr(_option_name(options[0]))} is given before the verb",
            remedy="write: concil VERB OPTIONS; all verbs: concil --help",
        )
    question = did_you_mean(verb, [*VERBS, *ALIASES, "help", "version"])
    help_text = "all verbs: concil --help"
    return UsageError(
        f"there is no verb {safe_repr(verb)}",
        remedy=f"{question} {help_text}" if question else help_text,
    )


def _is_for_all(word: str) -> bool:
    """Return whether it is an option that may stand before the verb, or several: -vvq."""
    if word.startswith("--"):
        return word in ("--verbose", "--quiet", "--help")
    return bool(word) and not word.strip("-vqh")


def check_options_of_all(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Raise UsageError if one of the options, which no verb follows, does not exist."""
    unknown = [word for word in words if word != "--version" and not _is_for_all(word)]
    if unknown:
        raise unexpected_arguments_error(parser, words, unknown)


def unexpected_arguments_error(
    parser: argparse.ArgumentParser, words: Sequence[str], rest: Sequence[str]
) -> UsageError:
    """Return the error for arguments that the parser does not know.

    An unexpected argument may be a password: the message repeats options only.

    Args:
        words: all arguments, which contain the verb.
        rest: the unexpected ones.
    """
    from concil.errors import safe_repr  # noqa: PLC0415  # not for --version and --help
    from concil.runtime.suggestions import did_you_mean  # noqa: PLC0415  # only for errors

    verb_parser = _find_verb_parser(parser, words)
    names = list(dict.fromkeys(_option_name(word) for word in rest if word.startswith("-")))
    if not names:
        return _create_error(verb_parser, f"too many arguments for {_verb_of(verb_parser)}")
    known_options = verb_parser._option_string_actions  # noqa: SLF001 - it has no public name
    question = did_you_mean(names[0], [name for name in known_options if name.startswith("--")])
    options = ", ".join(safe_repr(name).strip("'") for name in names)
    return _create_error(verb_parser, f"{_verb_of(verb_parser)} has no option {options}", question)


def join_words(words: Sequence[str], conjunction: str) -> str:
    """Return words as a list in a sentence: a, b and c."""
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _create_error(parser: argparse.ArgumentParser, message: str, question: str = "") -> UsageError:
    from concil.errors import UsageError  # noqa: PLC0415  # not for --version and --help

    remedy = f"see: {parser.prog} --help"
    return UsageError(message, remedy=f"{question} {remedy}" if question else remedy)


def _describe_missing(parser: argparse.ArgumentParser, names: Sequence[str]) -> str:
    verbs = [name for action in _verb_actions(parser) for name in action.choices]
    if list(names) == ["VERB"] and verbs:
        if parser.prog == "concil":
            return "no verb is given"
        return f"{_verb_of(parser)} needs a verb: {join_words(verbs, 'or')}"
    return (
        f"{_verb_of(parser)} needs {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"
    )


def _verb_of(parser: argparse.ArgumentParser) -> str:
    """Return the verb of a parser, without the name of the program."""
    return parser.prog.removeprefix("concil ")


def _verb_actions(
    parser: argparse.ArgumentParser,
) -> Iterable[argparse._SubParsersAction[argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001 - it has no public name
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            yield action


def _find_verb_parser(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> argparse.ArgumentParser:
    """Return the parser of the verb, or of the verb below it, in the arguments."""
    for action in _verb_actions(parser):
        for position, word in enumerate(words):
            if word in action.choices:
                return _find_verb_parser(action.choices[word], words[position + 1 :])
    return parser


def _option_name(word: str) -> str:
    """Return the option of an argument, without a value joined by `=`."""
    return word.partition("=")[0] if word.startswith("--") else word[:2]
