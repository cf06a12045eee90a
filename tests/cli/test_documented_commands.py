"""Every command of concil in the documentation is one that the parser accepts."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from concil.cli.argument_parser import parse_arguments
from concil.errors import UsageError

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# What is no shell script, though it may begin with the program's name.
NO_SHELL = {"python", "json", "toml"}
SEPARATORS = {"|", "||", "&&", "&", ";", "(", ")", ";;"}
REDIRECTION = re.compile(r"[<>]")


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each command of concil in the blocks and table cells of a page."""
    for language, block in FENCED.findall(text):
        if language not in NO_SHELL:
            for line in re.sub(r"\\\n|\d>&\d", " ", block).splitlines():
                yield from commands_of_line(line)
    # In a table, which has one command in a cell; elsewhere a sentence may name half of one.
    for cell in re.findall(r"^\|.*?\| `(concil [^`]+)` +\|$", text, re.MULTILINE):
        yield from commands_of_line(cell)


def commands_of_line(line: str) -> Iterator[list[str]]:
    """Yield those of one line: after a prompt, a pipe or the key of a YAML or systemd file."""
    start = re.search(r"(?:^|(?<!from)[\s=(/])concil ", line)
    if start is None or line.lstrip().startswith("#"):
        return
    lexer = shlex.shlex(line[line.index("concil ", start.start()) :], posix=True,
                        punctuation_chars="|&;()<>")  # fmt: skip
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:  # a quote that YAML opens before the command, or prose
        tokens = line[line.index("concil ", start.start()) :].rstrip("'\"").split()
    for token in [*tokens, ";"]:
        if token in SEPARATORS:
            if words[:1] == ["concil"] and len(words) > 1:
                yield without_redirections(words[1:])
            words = []
        else:
            words.append(token)


def without_redirections(words: list[str]) -> list[str]:
    end = next((n for n, word in enumerate(words) if REDIRECTION.fullmatch(word[:1])), len(words))
    return words[:end]


def problem(arguments: list[str]) -> str:
    """Return what the parser says against arguments; "" if it accepts them."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            parse_arguments(arguments)
        except UsageError as error:
            return f"{shlex.join(arguments)}: {error}"
        except SystemExit:
            pass
    return ""


def test_the_commands_of_a_page_are_found() -> None:
    text = (
        "```console\n$ concil ls a   # comment concil tags b\n"
        "pass x | concil login -u y --password-stdin h; concil cp a \\\n  b > log 2>&1 &\n"
        "from concil import a\nconcil: an error\n```\n```python\nconcil ls c\n```\n"
        "```yaml\n  - run: concil tags d\n```\n"
        "| `crane ls e` | `concil ls e` |\n| `concil check` | is mentioned |\n"
    )

    assert list(commands(text)) == [
        ["ls", "a"],
        ["login", "-u", "y", "--password-stdin", "h"],
        ["cp", "a", "b"],
        ["tags", "d"],
        ["ls", "e"],
    ]


def test_a_command_that_does_not_exist_is_found() -> None:
    assert "--nonsense" in problem(["ls", "a", "--nonsense"])
    assert problem(["ls", "a"]) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_valid(page: Path) -> None:
    found = [problem(arguments) for arguments in commands(page.read_text())]

    assert [text for text in found if text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_on_a_page_can_be_parsed(page: Path) -> None:
    parsers: dict[str, Callable[[str], object]] = {
        "json": json.loads,
        "toml": tomllib.loads,
        "yaml": yaml.safe_load,
    }

    for language, block in FENCED.findall(page.read_text()):
        parsers.get(language, str)(textwrap.dedent(block))


def test_the_pages_have_commands() -> None:
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 100
