"""Runs of the command line, and what is true of every failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import pytest

from concil.cli.demo import command

PATIENCE = 60  # seconds
# Root may read and write everything, unless it is started without these.
_POWERS = "-dac_override,-dac_read_search"
FORBIDDING = ("setpriv", f"--bounding-set={_POWERS}") if os.geteuid() == 0 else ()

IMAGE_LINES = (
    "copied      ",
    "up to date  ",
    "failed      ",
    "resuming    ",
)  # how those of a mirror begin


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left."""

    code: int
    raw: bytes  # standard output
    err: str

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.raw.decode()

    @property
    def messages(self) -> str:
        """Standard error without the lines of single images of a mirror."""
        lines = self.err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(IMAGE_LINES))

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()


class Cli(Protocol):
    """Runs the command line to its end."""

    def __call__(self, *words: str | Path) -> Outcome: ...


class Program:
    """The command line in processes of its own, warnings being errors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # where it runs

    def __call__(self, *words: str | Path, before: Sequence[str] = ()) -> Outcome:
        """Run it to its end; ``before`` is a program that starts it."""
        result = subprocess.run(
            [*before, *self.argv(*words)],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Outcome(result.returncode, result.stdout, result.stderr.decode())

    def start(
        self, *words: str | Path, stdout: IO[bytes] | int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start it; the caller ends it."""
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )

    @staticmethod
    def argv(*words: str | Path) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "concil", *(str(word) for word in words)]

    @staticmethod
    def environment() -> dict[str, str]:
        # The package that is under test here is the one that runs there.
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def make_demo_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo in this process move a quarter of its bytes, over a faster line."""
    monkeypatch.setattr(command, "_LARGE_LAYER_SIZE", 24 * 1024 * 1024)
    monkeypatch.setattr(command, "_CUT_AFTER", 13 * 1024 * 1024)
    monkeypatch.setattr(command, "_RATE", 100 * 1024 * 1024)


def assert_fails(outcome: Outcome, code: int, *words: str) -> None:
    """Assert one line that names the cause, the exit code, and no result."""
    assert outcome.code == code, outcome.err
    assert_one_line(outcome.messages, *words)
    assert outcome.raw == b""


def assert_one_line(err: str, *words: str) -> None:
    """Assert that messages are one readable line with these words in it."""
    assert err.startswith("concil: "), err
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err[:-1].isprintable(), err
    assert "Traceback" not in err
    assert "unexpected" not in err
    for word in words:
        assert word in err
