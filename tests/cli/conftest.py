"""A registry of its own for each test, and two ways to run the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli import main
from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, Outcome, Program


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def registry(directory: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(directory) as registry:
        yield registry


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Return what runs `main` in this process."""

    def run(*words: str | Path) -> Outcome:
        capsysbinary.readouterr()
        code = main([str(word) for word in words])
        found = capsysbinary.readouterr()
        return Outcome(code, found.out, found.err.decode())

    return run


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return what runs the command line in a process of its own."""
    return Program(tmp_path)


@pytest.fixture
def jobs(workers: int) -> str:
    """Return the option that gives an engine as many workers as the test run is for."""
    return f"--jobs={workers}"
