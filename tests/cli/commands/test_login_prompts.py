"""`concil login` before it logs in: how a person is asked, and what is in the way."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.cli.output.errors import ACCESS_DENIED, FAILED, INTERRUPTED, NOT_FOUND, USAGE
from tests.cli.login_harness import AUTH, AuthRegistry, CommandLineHarness
from tests.cli.runner import PATIENCE, Program, assert_fails, assert_one_line
from tests.cli.terminal import Terminal
from tests.support.credential_helper import FakeCredentialHelper
from tests.support.scripted_server import ScriptedServer, reply
from tests.tokens.conftest import PASSWORD, USER

SILENT = "127.0.0.1:1"  # nobody is there
GIVEN = ("login", "-u", "a", "-p", "x")


@dataclass(frozen=True)
class Person:
    """Somebody at a terminal where `concil login` runs."""

    terminal: Terminal
    process: subprocess.Popen[bytes]

    def answer(self, question: str, text: str) -> None:
        """Wait for a question and answer it."""
        self.terminal.wait_for(question)
        self.terminal.type(text)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(PATIENCE)


Sit = Callable[..., Person]


@pytest.fixture
def sit_down(tmp_path: Path) -> Iterator[Sit]:
    with Terminal() as terminal, (tmp_path / "results").open("wb") as results:
        started: list[subprocess.Popen[bytes]] = []

        def start(*words: str) -> Person:
            process = subprocess.Popen(
                Program.argv("login", *words),
                cwd=tmp_path,
                env=Program.environment(),
                stdin=terminal.stream,
                stdout=results,
                stderr=terminal.stream,
                start_new_session=True,  # without the terminal that the tests run at
            )
            started.append(process)
            return Person(terminal, process)

        yield start
        for process in started:
            process.kill()
            process.wait(PATIENCE)


@pytest.mark.real
def test_a_person_is_asked_and_the_password_is_not_shown(
    sit_down: Sit, basic_auth_registry: AuthRegistry, harness: CommandLineHarness, tmp_path: Path
) -> None:
    person = sit_down(basic_auth_registry.host)
    person.answer(f"Username for {basic_auth_registry.host}: ", f"{USER}\n")
    person.answer(f"Password for {basic_auth_registry.host}: ", f"{PASSWORD}\n")

    assert person.end() == 0
    person.terminal.wait_for("logged in")
    assert PASSWORD not in person.terminal.written
    assert harness.logins["auths"] == {basic_auth_registry.host: {"auth": AUTH}}
    assert (tmp_path / "results").read_bytes() == b""


def test_a_person_may_think_better_of_it(sit_down: Sit, harness: CommandLineHarness) -> None:
    person = sit_down("-u", USER, SILENT)
    person.terminal.wait_for("Password")
    assert not person.terminal.echoes()

    person.process.send_signal(signal.SIGINT)

    assert person.end() == INTERRUPTED
    person.terminal.wait_for("\nconcil: interrupted; no login was stored\n")
    assert person.terminal.echoes()
    assert "Traceback" not in person.terminal.written
    assert harness.auth_files == []


@pytest.mark.parametrize(
    ("words", "question", "key", "remedy"),
    [(("-u", USER), "Password", "\n", "--password-stdin"), ((), "Username", "\x04", "-u USER")],
    ids=["no password", "no user"],
)
def test_empty_input_is_an_error(
    sit_down: Sit, words: tuple[str, ...], question: str, key: str, remedy: str
) -> None:
    person = sit_down(*words, SILENT)
    person.answer(question, key)

    assert person.end() == USAGE
    person.terminal.wait_for(remedy)


def test_without_a_terminal_there_is_no_prompt(
    program: Program, harness: CommandLineHarness
) -> None:
    assert_fails(program("login", "-u", USER, SILENT), USAGE, "no terminal", "--password-stdin")
    harness.monkeypatch.setattr(sys, "stdin", io.StringIO(f"{USER}\n"))
    assert_fails(harness("login", SILENT), USAGE, "no terminal", "-u USER --password-stdin")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("login",), "HOST"),
        (("login", "--password-stdin", SILENT), "-u USER"),
        (("login", "-u", "a:b", "-p", "x", SILENT), "colon"),
        (("login", "-u", "", "-p", "x", SILENT), "empty"),
        (("login", "-u", "a", "-p", "", SILENT), "empty"),
        ((*GIVEN, "--password-stdin", SILENT), "exclude each other"),
        ((*GIVEN, f"b:hidden@{SILENT}"), "-u USER HOST"),
        ((*GIVEN, "host.example/app:v1"), "HOST/PREFIX"),
        ((*GIVEN, "host.example/UP"), "'UP'"),
        ((*GIVEN, "ftp://host.example"), "'ftp'"),
        ((*GIVEN, ""), "not a host name"),
        ((*GIVEN, "two words"), "not a host name"),
        ((*GIVEN, "--cacert=/nowhere/x", SILENT), "--cacert"),
        (("logout",), "--all"),
        (("logout", "--all", SILENT), "--all"),
        (("logout", "-phidden", SILENT), "logout has no option -p;"),
    ],
)
def test_invalid_login_is_an_error(
    harness: CommandLineHarness, words: tuple[str, ...], message: str
) -> None:
    result = harness(*words)

    assert result.code == USAGE
    assert_one_line(result.err.splitlines(keepends=True)[-1], message)
    assert "hidden" not in result.err
    assert harness.auth_files == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 70_000, "65536")],
    ids=["nothing", "an empty line", "no text", "too much"],
)
def test_standard_input_without_a_password(
    harness: CommandLineHarness, content: bytes, message: str
) -> None:
    assert_fails(harness.log_in(SILENT, password=content), USAGE, message)


def test_standard_input_that_is_closed(harness: CommandLineHarness) -> None:
    harness.monkeypatch.setattr(sys, "stdin", None)

    for words, message in ((("--password-stdin",), "empty"), ((), "no terminal")):
        assert_fails(harness("login", "-u", USER, *words, SILENT), USAGE, message)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{broken", "not a JSON object"),
        ('{"auths": ["x"]}', "auths is not an object"),
        ('{"credsStore": "concil-lab-has-none"}', "docker-credential-concil-lab-has-none"),
        ('{"credsStore": "../sh"}', "'../sh'"),
    ],
)
def test_unwritable_auth_file_is_an_error_before_the_first_request(
    harness: CommandLineHarness, document: str, message: str
) -> None:
    harness.logins = {}
    harness.config.write_text(document)

    # There is nobody to send anything to, and that would be the failure.
    assert_fails(harness.log_in(SILENT), ACCESS_DENIED, message)
    assert harness.config.read_text() == document


def test_a_directory_in_the_place_of_the_file(harness: CommandLineHarness) -> None:
    harness.config.mkdir(parents=True)

    assert_fails(harness.log_in(SILENT), ACCESS_DENIED, "config.json", "not a regular file")


def test_a_file_in_the_place_of_the_directory(harness: CommandLineHarness) -> None:
    harness.config.parent.write_text("")
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))

        assert_fails(harness.log_in(registry.host), FAILED, "cannot write the login", "--authfile")


def test_a_helper_that_fails_keeps_nothing(harness: CommandLineHarness, tmp_path: Path) -> None:
    harness.logins = {"credsStore": "lab"}
    FakeCredentialHelper(
        tmp_path, harness.monkeypatch, script="import sys\nprint('s3cr3t')\nsys.exit(3)\n"
    )
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))

        result = harness.log_in(registry.host)

    assert_fails(result, ACCESS_DENIED, "docker-credential-lab store", "exit code 3")
    assert "s3cr3t" not in result.err
    assert harness.logins == {"credsStore": "lab"}


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(503, FAILED), (404, NOT_FOUND), (403, ACCESS_DENIED), (401, ACCESS_DENIED)],
)
def test_error_response_stores_no_login(
    harness: CommandLineHarness, trouble: int, code: int
) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(trouble, "<html>"))

        assert_fails(harness.log_in("--retry=0", registry.host), code, str(trouble))
    assert harness.auth_files == []


def test_unreachable_host_stores_no_login(harness: CommandLineHarness) -> None:
    assert_fails(harness.log_in(SILENT), FAILED, "refused")
    assert harness.auth_files == []
