"""The program `concil` as it is installed: it ends without taking the interpreter apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from concil.cli.output.errors import PIPE_CLOSED
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Outcome, Program
from tests.support.images import make_image, put_image, write_layout

pytestmark = pytest.mark.process

# As the script that pip installs, which may be missing where the package is not installed.
SCRIPT = """
import atexit, sys
from concil.__main__ import run_program
atexit.register(print, "the end", file=sys.stderr)
sys.exit(run_program())
"""


def run(program: Program, *words: str | Path, stdout: int = subprocess.PIPE) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, words)],
        cwd=program.directory,
        env=program.environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout or b"", done.stderr.decode())


@pytest.mark.parametrize(
    ("words", "code"), [((), 0), (("--version",), 0), (("ls",), 2), (("digest", "oci:none"), 4)]
)
def test_exit_code_is_kept_and_functions_for_the_exit_run(
    program: Program, words: tuple[str, ...], code: int
) -> None:
    outcome = run(program, *words)

    assert outcome.code == code, outcome.err
    assert outcome.err.endswith("the end\n")


def test_all_of_a_long_output_is_written(program: Program) -> None:
    image = make_image(1)
    names = sorted(f"v{number}{'x' * 100}" for number in range(2000))  # more than a pipe holds
    write_layout(program.directory / "layout", dict.fromkeys(names, image))

    outcome = run(program, "tags", "oci:layout")

    assert (outcome.code, outcome.lines) == (0, names), outcome.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written_is_an_error(
    program: Program, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", make_image(1))
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        outcome = run(program, "tags", f"{registry.host}/app", stdout=full)
    finally:
        os.close(full)

    assert outcome.code == 1
    assert "No space left on device" in outcome.err


def test_output_that_nobody_reads_ends_quietly(
    program: Program, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", make_image(1))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        outcome = run(program, "tags", f"{registry.host}/app", stdout=writing)
    finally:
        os.close(writing)

    assert outcome.code == PIPE_CLOSED
    assert "Traceback" not in outcome.err


def test_a_copy_is_complete_at_the_end(program: Program, registry: EmbeddedRegistry) -> None:
    put_image(registry.url, "app", "v1", make_image(1, (3_000_000,)))

    outcome = run(program, "copy", f"{registry.host}/app:v1", "oci:out:app:v1")
    checked = program("check", "oci:out")

    assert outcome.code == 0, outcome.err
    assert checked.code == 0, checked.err
