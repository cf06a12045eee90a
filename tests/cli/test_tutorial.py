"""The commands of docs/tutorial.md run as they stand, and print what it says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
KILLED = 137  # the exit code of a program that SIGKILL has ended
LIMIT = 100  # seconds; less than that of pytest, so that no registry is left
MARK = "@@@"


def steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands in the blocks of a page, each with the lines that it prints."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = step.splitlines()
            continued = 1
            while continued < len(lines) and lines[continued].startswith(">"):
                continued += 1
            more = [line.removeprefix(">").removeprefix(" ") for line in lines[1:continued]]
            yield "\n".join([lines[0], *more]), lines[continued:]


def pattern(line: str) -> str:
    """Return what a printed line looks like: amounts, times and digests vary.

    A blob that two images share is counted for the one that is planned first.
    """
    words = re.sub(r"\(\d+ blobs?,.*", "(...", " ".join(line.split()))
    escaped = re.escape(words).replace(r"\.\.\.", ".*")
    return re.sub(r"\d+\\\.\d", r"\\d+\\.\\d", escaped)


def test_the_steps_of_a_page_are_found() -> None:
    text = "```console\n$ a << E\n> b\n>\n> E\nc\n$ d &\n```\n```shell\n$ e\n```\n"

    assert list(steps(text)) == [("a << E\nb\n\nE", ["c"]), ("d &", [])]


@pytest.fixture
def script(tmp_path: Path) -> str:
    """Return the tutorial as a script that prints each exit code.

    The registries get an address of loopback that no other test uses.
    """
    name = tmp_path.as_posix().encode()
    host = f"127.{os.getpid() % 250 + 1}.{sum(name) % 250 + 1}.{len(name) % 250 + 1}"
    lines, logs = [], []
    for command, _ in steps(PAGE.read_text()):
        if command.endswith("&"):
            logs += re.findall(r"> (\S+) &$", command)
        elif logs:  # until the registries listen, as a person would wait
            waiting = "kill -0 %1 %2 || exit 1; sleep 0.02"
            lines += [f"until grep -q serving {log}; do {waiting}; done" for log in logs]
            logs = []
        lines += [command, f'echo "{MARK}$?"']
    return "\n".join(lines).replace("localhost", host)


@pytest.fixture
def output(script: str, tmp_path: Path) -> str:
    """Run the script in an empty home, and return what a user would have seen."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("concil", "-m concil "), ("python3", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        program.chmod(0o700)
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "LC_ALL": "C.UTF-8",
    }
    directory, log = tmp_path / "tutorial", tmp_path / "log"
    directory.mkdir()
    with log.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=directory, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
        try:
            shell.wait(LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):  # none of the registries is left
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    # The page says localhost; the programs show the address.
    return re.sub(r"127\.\d+\.\d+\.\d+", "localhost", log.read_text())


@pytest.mark.process
def test_the_tutorial_runs_as_it_stands(output: str) -> None:
    printed = re.split(rf"^{MARK}(\d+)\n", output, flags=re.MULTILINE)
    assert len(printed) == 2 * len(list(steps(PAGE.read_text()))) + 1, output

    for n, (command, expected) in enumerate(steps(PAGE.read_text())):
        text, code = " ".join(printed[2 * n].split()), int(printed[2 * n + 1])
        is_killed = "--signal=KILL" in command
        assert code == (KILLED if is_killed else 0), f"{command}: {text}"
        if is_killed or command == "concil transfers":
            continue  # how far it came depends on the machine
        for line in expected:
            if not line.startswith(("resuming", "up to date")):
                assert re.search(pattern(line), text), f"{command}: no {line!r} in {text!r}"
