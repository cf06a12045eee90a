"""Completion in real shells, and what it does not ask of anybody."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.cli.completion import _complete_address, _find_verb
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.support.images import make_image, put_image, write_layout
from tests.support.system import require_program

Complete = Callable[[str], list[str]]
TAGS = ("latest", "v1", "v2")


class Shell:
    """A directory in which a shell finds the program, some files and a registry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        script = directory / "bin" / "concil"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m concil "$@"\n')
        script.chmod(0o755)
        self.environment = {
            **Program.environment(),
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "ZDOTDIR": str(directory),
        }

    def run(self, *words: str) -> str:
        """Run a program to its end; return what it printed."""
        result = subprocess.run(
            words,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.stderr == ""
        return result.stdout

    def bash(self, line: str) -> list[str]:
        """Complete a line as bash does; it completes the part after the last colon."""
        script = f"""source <(concil completion bash)
            COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
            _python_argcomplete concil; printf '%s\\n' "${{COMPREPLY[@]}}" """
        found = self.run(require_program("bash"), "--norc", "-c", script).splitlines()
        typed, colon, _ = line.rsplit(" ", maxsplit=1)[-1].rpartition(":")
        return [f"{typed}{colon}{each.strip()}" for each in found if each]

    def fish(self, line: str) -> list[str]:
        """Complete a line as fish does."""
        script = f"concil completion fish | source; complete -C {shlex.quote(line)}"
        lines = self.run(require_program("fish"), "--no-config", "-c", script).splitlines()
        return [each.partition("\t")[0] for each in lines]

    def zsh(self, line: str, completed: str) -> None:
        """Type a line and a tab into a zsh, and wait until the line has become another one."""
        (self.directory / ".zshrc").write_text(
            "unsetopt prompt_cr prompt_sp beep\n"
            "autoload -Uz compinit; compinit -u -d $ZDOTDIR/.zcompdump\n"
            "source <(concil completion zsh)\n"
            "PROMPT='ready> '\n"
        )
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.directory)
            environment = {**self.environment, "TERM": "dumb"}
            os.execve(require_program("zsh"), ["zsh", "-i", "--no-globalrcs"], environment)
        try:
            _read_until(terminal, "ready> ")
            os.write(terminal, f"{line}\t".encode())
            _read_until(terminal, re.escape(completed))
        finally:
            os.close(terminal)  # it gets a SIGHUP
            os.waitpid(process, 0)


def _read_until(terminal: int, pattern: str) -> None:
    """Read until a pattern occurs."""
    text, deadline = "", time.monotonic() + PATIENCE
    while re.search(pattern, text) is None:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, text
        text += os.read(terminal, 65536).decode(errors="replace")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    write_layout(tmp_path / "images", {"app": make_image(2)})
    (tmp_path / "list.txt").touch()
    return Shell(tmp_path)


@pytest.fixture(params=["bash", "fish"])
def complete(request: pytest.FixtureRequest, shell: Shell) -> Complete:
    found: Complete = getattr(shell, request.param)
    return found


pytestmark = pytest.mark.process


@pytest.mark.real
def test_verbs_are_completed(complete: Complete) -> None:
    assert complete("concil che") == ["check"]
    assert {"mirror", "manifest"} <= set(complete("concil m"))
    assert complete("concil blob pul") == ["pull"]


@pytest.mark.real
def test_the_options_of_the_verb_are_completed(complete: Complete) -> None:
    assert complete("concil check --dee") == ["--deep"]
    assert complete("concil -v check --dee") == ["--deep"]
    assert complete("concil copy --dee") == []
    assert set(complete("concil check --format ")) >= {"table", "json"}
    assert complete("concil copy --platform linux/amd") == ["linux/amd64"]


@pytest.mark.real
def test_tags_are_completed(complete: Complete, registry: EmbeddedRegistry) -> None:
    for tag in TAGS:
        put_image(registry.url, "team/app", tag, make_image(1))

    assert set(complete(f"concil digest {registry.host}/team/app:")) >= {
        f"{registry.host}/team/app:{tag}" for tag in TAGS
    }
    assert sorted(complete(f"concil copy -j 2 {registry.host}/team/app:v")) == [
        f"{registry.host}/team/app:v1",
        f"{registry.host}/team/app:v2",
    ]
    assert complete("concil digest oci:images:a") == ["oci:images:app"]


@pytest.mark.real
def test_config_can_show_the_settings(complete: Complete) -> None:
    assert complete("concil config sho") == ["show"]


def test_files_are_completed(complete: Complete) -> None:
    assert complete("concil check li") == ["list.txt"]
    assert complete("concil check oci:im") == ["oci:images/"]


@pytest.mark.real
def test_zsh_completes(shell: Shell, registry: EmbeddedRegistry) -> None:
    put_image(registry.url, "team/app", "v1", make_image(1))

    repository = f"{registry.host}/team/app"

    shell.zsh("concil che", "concil check ")
    shell.zsh("concil check --dee", "concil check --deep ")
    shell.zsh(f"concil digest {repository}:v", f"concil digest {repository}:v1 ")


def test_a_script_is_printed_for_each_shell(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = cli("completion", shell)
        assert (done.code, done.err) == (0, "")
        assert "concil" in done.out


def test_another_shell_is_refused(cli: Cli) -> None:
    assert_fails(cli("completion", "tcsh"), 2, "tcsh")


def test_without_the_extra_it_says_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)

    assert_fails(cli("completion", "bash"), 2, "pip install 'concil[completion]'")


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        ("concil che", ""),
        ("concil check", ""),
        ("concil check ", "check"),
        ("concil -v check x", "check"),
        ("concil check --de", "check"),
        ("concil nonsense ", ""),
        ("concil", ""),
        ("", ""),
    ],
)
def test_the_verb_is_the_first_complete_word(line: str, verb: str) -> None:
    assert _find_verb(line) == verb


@pytest.mark.parametrize("prefix", ["alpine:", "127.0.0.1:50", "registry.example:", "x:y/z"])
def test_no_request_is_sent_for_what_names_no_repository(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.cli.completion._list_tags", None)

    assert list(_complete_address(prefix)) == []


def test_a_registry_that_does_not_answer_completes_to_nothing(cli: Cli) -> None:
    del cli

    assert list(_complete_address("127.0.0.1:1/team/app:")) == []
