"""The man page, and the page of all commands, are what the parser says."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from concil.cli.argument_parser import parse_arguments
from concil.cli.verbs import VERBS
from tests.support.scripts import import_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "site" / "command_reference.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return import_script(SCRIPT)


def test_the_man_page_is_the_one_that_the_parser_makes(reference: ModuleType) -> None:
    written = (ROOT / "docs" / "reference" / "concil.1").read_text()

    assert written == reference.as_man_page(), "run python docs/site/command_reference.py"


def test_the_wheel_has_the_man_page_where_man_looks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]

    assert files == {"docs/reference/concil.1": "share/man/man1/concil.1"}


def test_the_installed_wheel_has_the_man_page() -> None:
    installed = importlib.metadata.distribution("concil")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("not installed from a wheel")

    installed_page = Path(sys.prefix) / "share" / "man" / "man1" / "concil.1"
    assert installed_page.read_text() == (ROOT / "docs" / "reference" / "concil.1").read_text()


def test_every_verb_has_a_section_that_begins_with_its_examples(reference: ModuleType) -> None:
    page: str = reference.as_markdown()

    for verb in VERBS:
        section = page.partition(f"\n## concil {verb}\n")[2].partition("\n## ")[0]
        assert section.index("$ concil ") < section.index("```text\nconcil "), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_the_help_is_on_the_page(reference: ModuleType, verb: str) -> None:
    section = reference.as_markdown().partition(f"\n## concil {verb}\n")[2].partition("\n## ")[0]

    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        parse_arguments([verb, "--help"])
    options = set(re.findall(r"--[a-z-]+", shown.getvalue()))
    assert {name for name in options if name not in section} <= {"--help", "--verbose", "--quiet"}
