"""What a command imports: modules are counted, because times depend on the machine."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli.argument_parser import _terminal_width, create_parser
from concil.cli.options.referrers import FOREIGN_LAYERS
from concil.cli.options.user_settings import apply_user_settings
from concil.cli.verbs import VERBS, load_function
from concil.config import RetryPolicy, TransferConfig
from concil.server import EmbeddedRegistry
from concil.transfer.image.job import ForeignLayers
from tests.cli.runner import PATIENCE, Program
from tests.support.images import make_image, put_image

# Runs the command as the program `concil`, and lists the modules that were imported.
DRIVER = """
import sys
sys.argv[0] = "concil"
from concil.__main__ import main
code = main()
open("modules", "w").write(" ".join(sys.modules))
sys.exit(code)
"""
# What other modules than those of concil may have imported, such as a measurement of coverage.
BEFORE = "import sys; print(*sys.modules)"
SLOW = {"requests", "urllib3", "ssl", "tenacity", "tqdm", "sqlite3", "yaml", "dataclasses"}
SLOW |= {"logging", "typing", "inspect", "socket", "json", "shutil", "threading"}
SLOW |= {"concil.engine", "concil.http", "concil.config", "concil.transfer", "concil.cli.commands"}
UNNEEDED = {"tenacity", "tqdm", "yaml", "concil.server", "concil.report", "concil.cluster"}
UNNEEDED |= {"concil.display.bars", "concil.plan.formats"}
UNNEEDED |= {"concil.metrics", "concil.notify", "concil.tracing"}
UNNEEDED |= {"prometheus_client", "opentelemetry"}
UNNEEDED |= {"charset_normalizer", "chardet"}  # of requests
TRANSFERS = {"sqlite3", "concil.plan", "concil.transfer", "concil.engine.engine"}
IMAGE = make_image(1)


@pytest.fixture
def image(registry: EmbeddedRegistry) -> str:
    put_image(registry.url, "app", "v1", IMAGE)
    return f"{registry.host}/app:v1"


def imported(program: Program, *words: str | Path, code: int = 0) -> set[str]:
    """Run a command and return the modules that it imported."""
    before = run(program, BEFORE)
    assert before.returncode == 0, before.stderr
    done = run(program, DRIVER, *words)
    assert done.returncode == code, done.stderr
    return set((program.directory / "modules").read_text().split()) - set(before.stdout.split())


def run(program: Program, source: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, words)],
        cwd=program.directory,
        env=program.environment(),
        timeout=PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )


def forbidden(names: set[str], unwanted: set[str]) -> set[str]:
    """The modules that are unwanted, or inside of unwanted packages."""
    return {
        name
        for name in names
        if any(name == each or name.startswith(f"{each}.") for each in unwanted)
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--version",), 0),
        (("--help",), 0),
        (("copy", "--help"), 0),
        (("copy", "--bogus"), 2),
        (("nothing",), 2),
        *(((verb, "--help"), 0) for verb in VERBS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_help_and_usage_errors_import_neither_requests_nor_the_engine(
    program: Program, words: tuple[str, ...], code: int
) -> None:
    names = imported(program, *words, code=code)

    assert "concil.cli.main" in names
    assert forbidden(names, SLOW) == set()


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("copy", "--help")])
def test_help_does_not_read_the_config_file(
    program: Program, home: Path, words: tuple[str, ...]
) -> None:
    write_config(home, "not = valid = toml")

    names = imported(program, *words)

    assert forbidden(names, {"tomllib", "concil.cli.options.config_file"}) == set()


def test_without_a_config_file_nothing_is_imported_to_read_one(
    program: Program, home: Path, image: str
) -> None:
    readers = {"tomllib", "concil.cli.options.config_file", "concil.plan"}

    assert forbidden(imported(program, "digest", image), readers) == set()

    write_config(home, "jobs = 3")
    assert forbidden(imported(program, "digest", image), readers) >= {"tomllib"}


def write_config(home: Path, text: str) -> None:
    path = home / "config/concil/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_the_parser_of_one_verb_alone_is_imported(program: Program) -> None:
    names = imported(program, "copy", "--help")

    assert {name for name in names if name.startswith("concil.cli.parsers.")} == {
        "concil.cli.parsers.copy"
    }


def test_digest_imports_no_transfers(program: Program, image: str) -> None:
    names = imported(program, "digest", image)

    assert "concil.store.registry.repository" in names
    assert forbidden(names, UNNEEDED | TRANSFERS) == set()


def test_copy_imports_what_a_copy_needs(program: Program, image: str) -> None:
    names = imported(program, "copy", "--progress=none", image, image.replace("/app:", "/copy:"))

    assert "concil.transfer.image.copier" in names
    assert (
        forbidden(names, (UNNEEDED - {"sqlite3", "concil.plan"}) | {"concil.plan.formats"}) == set()
    )


def test_every_command_exists() -> None:
    paths = [path for parser in parsers(create_parser()) for path in commands(parser)]

    assert len(paths) >= len(VERBS)
    assert all(callable(load_function(path)) for path in paths)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of the verbs below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The functions that a parser names."""
    for name in ("command", "prepare"):
        if path := parser.get_default(name):
            yield path


def test_defaults_of_options_are_those_of_the_settings() -> None:
    parsed = create_parser().parse_args(["copy", "a", "b"], argparse.Namespace(quiet=False))

    apply_user_settings(parsed)
    assert parsed.jobs == TransferConfig().workers
    assert parsed.retry == RetryPolicy().max_attempts - 1
    assert parsed.foreign_layers == ForeignLayers.SKIP
    assert list(FOREIGN_LAYERS) == [str(mode) for mode in ForeignLayers]


@pytest.mark.parametrize("columns", [None, "", "0", "-3", "wide", "40", "123"])
def test_help_is_as_wide_as_that_of_argparse(
    monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)

    assert _terminal_width() == shutil.get_terminal_size().columns
