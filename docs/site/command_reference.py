# ruff: noqa: INP001, SLF001  # a script, not a package; argparse has no public list of arguments
"""The commands of concil as a page and as a man page, from the parser of the command line.

    python docs/site/command_reference.py

writes `docs/reference/concil.1`, which is part of the wheel. The page is made while the site is
built.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from concil import __version__
from concil.cli.argument_parser import create_parser
from concil.cli.examples import EXAMPLES
from concil.cli.options import common

MAN_PAGE = Path(__file__).parent.parent / "reference" / "concil.1"
_EXIT_CODE = re.compile(r"(\d+) ([^,]+)")
# Groups that every command has; they are described once.
_COMMON = "messages"
_ENVIRONMENT = {
    "XDG_STATE_HOME": "directory of the journal of unfinished transfers, concil/journal.sqlite",
    "REGISTRY_AUTH_FILE": "file with stored logins; without it, those of podman and docker are "
    "searched (XDG_RUNTIME_DIR, XDG_CONFIG_HOME, DOCKER_AUTH_CONFIG, DOCKER_CONFIG)",
    "https_proxy, http_proxy, all_proxy, no_proxy": "proxies, and hosts that need none",
    "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE": "certificates of CAs to trust (PEM)",
    "NO_COLOR": "no colours, whatever its value",
    "TMPDIR": "directory of temporary files",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command as the references show it.

    Attributes:
        name: with the program, for example "concil blob push".
        summary: its line in the list of commands.
        usage: one line for each form.
        description: a paragraph; "" if there is none.
        examples: complete command lines.
        groups: by title, its arguments and options: how each is written, and what it means.
    """

    name: str
    summary: str
    usage: str
    description: str
    examples: tuple[str, ...]
    groups: dict[str, list[tuple[str, str]]]


def read_commands() -> Iterator[Command]:
    """Yield every command that the parser knows, in the order of the help."""
    yield from _read_below(create_parser())


def _read_below(parser: argparse.ArgumentParser) -> Iterator[Command]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._get_subactions()}
            for name, below in action.choices.items():
                yield _read(below, summaries[name])
                yield from _read_below(below)


def _read(parser: argparse.ArgumentParser, summary: str) -> Command:
    groups = {}
    for group in parser._action_groups:
        rows = [
            (_written(action), _meaning(action))
            for action in group._group_actions
            if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
        ]
        if rows:
            groups[str(group.title).replace("positional arguments", "arguments")] = rows
    return Command(
        parser.prog,
        summary,
        _usage(parser),
        parser.description or "",
        tuple(f"concil {words}" for words in EXAMPLES.get(parser.prog.partition(" ")[2], ())),
        groups,
    )


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return the usage without the optional options, of which there are too many for a line."""
    if parser.usage:
        return re.sub(r"\n +", "\n", parser.usage)
    required, positional, has_options = [], [], False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            positional.append("COMMAND")
        elif action.required and action.option_strings:
            required.append(_written(action).partition(", ")[0])
        elif action.option_strings:
            has_options |= not isinstance(action, argparse._HelpAction)
        else:
            positional.append(_positional(action))
    options = ["[options]"] if has_options else []
    return " ".join([parser.prog, *options, *required, *positional])


def _positional(action: argparse.Action) -> str:
    name = _value(action)
    forms = {"?": f"[{name}]", "*": f"[{name}...]", "+": f"{name}..."}
    return forms.get(str(action.nargs), name)


def _value(action: argparse.Action) -> str:
    """Return the name of the value of an argument."""
    if action.metavar is not None:
        return str(action.metavar)
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _written(action: argparse.Action) -> str:
    """Return how an argument is written: with its names, the short one first."""
    if not action.option_strings:
        return _value(action)
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {_value(action)}"


def _meaning(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "concil"}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." if text else ""


def as_markdown() -> str:
    """Return the commands as sections of a page."""
    return "\n".join(line for command in read_commands() for line in _section(command))


def _section(command: Command) -> Iterator[str]:
    depth = len(command.name.split())
    yield f"\n{'#' * depth} {command.name}\n"
    yield _sentence(command.summary)
    if command.examples:
        yield "\n```console"
        yield from (f"$ {example}" for example in command.examples)
        yield "```"
    yield f"\n```text\n{command.usage}\n```\n"
    yield command.description
    for title, rows in command.groups.items():
        if title == _COMMON:
            continue
        yield f"\n| {title} | |\n|---|---|"
        for written, meaning in rows:
            yield f"| {_code(written)} | {_escape(meaning)} |"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _escape(text: str) -> str:
    return re.sub(r"([|*<>_`\[\]])", r"\\\1", text)


def as_man_page() -> str:
    """Return the man page concil(1), in roff."""
    root = create_parser()
    lines = [
        '.\\" Written by docs/site/command_reference.py from the parser of the command line.',
        f'.TH CONCIL 1 "" "concil {__version__}" "User Commands"',
        ".SH NAME",
        "concil \\- copy and mirror images and blobs between OCI registries, layouts and files",
        ".SH SYNOPSIS",
        ".B concil",
        "COMMAND [options] [arguments]",
        ".SH DESCRIPTION",
        _roff(root.description or ""),
        "Interrupted transfers are resumed when the same command is run again.",
        _roff(f"Addresses are host/repository@digest and {common.REF_HELP}."),
        ".SH COMMANDS",
    ]
    for command in read_commands():
        lines += _man_section(command)
    lines.append(".SH OPTIONS OF EVERY COMMAND")
    every = next(group for group in root._action_groups if group.title == _COMMON)
    for action in every._group_actions:
        lines += _man_item(_written(action), _meaning(action))
    lines.append(".SH EXIT STATUS")
    for code, meaning in _EXIT_CODE.findall(" ".join((root.epilog or "").split())):
        lines += _man_item(code, meaning)
    lines.append(".SH ENVIRONMENT")
    for names, meaning in _ENVIRONMENT.items():
        lines += _man_item(names, meaning)
    return "\n".join([*lines, ""])


def _man_section(command: Command) -> Iterator[str]:
    yield f'.SS "{_roff(command.name)}"'
    yield from "\n.br\n".join(map(_roff, command.usage.split("\n"))).split("\n")
    yield ".PP"
    yield _roff(command.description or _sentence(command.summary))
    for title, rows in command.groups.items():
        if title != _COMMON:
            for written, meaning in rows:
                yield from _man_item(written, meaning)
    if command.examples:
        yield ".PP\n.EX"
        yield from map(_roff, command.examples)
        yield ".EE"


def _man_item(term: str, text: str) -> list[str]:
    return [".TP", f"\\fB{_roff(term)}\\fR", _roff(text)]


def _roff(text: str) -> str:
    """Escape text: hyphens that are typed, backslashes, and dots and quotes that begin a line."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", "\\e").replace("-", "\\-"))


if __name__ == "__main__":
    MAN_PAGE.write_text(as_man_page())
