"""User names and passwords, and asking a person for them."""

from __future__ import annotations

import base64
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from concil.auth.credentials.credentials import CredentialPrompt, Credentials
from concil.errors import AccessDenied, UsageError


def test_credentials_of_the_command_line() -> None:
    read = Credentials.parse("user:pa:ss")

    assert (read.username, read.password) == ("user", "pa:ss")
    assert "pa:ss" not in repr(read)
    assert Credentials.parse("user:") == Credentials("user", "")


@pytest.mark.parametrize("text", ["", "user", ":password"])
def test_half_of_them_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Credentials.parse(text)

    assert "password" not in str(caught.value).replace("no password", "")


def test_basic_is_utf_8() -> None:
    header = Credentials("j\u00fcrgen", "p\u00e4:ss").basic_header()

    scheme, _, encoded = header.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == "j\u00fcrgen:p\u00e4:ss"


class Asked:
    """A terminal that counts its questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: list[str] = []
        monkeypatch.setattr("builtins.input", lambda prompt="": self._note(prompt, "alice"))
        monkeypatch.setattr("getpass.getpass", lambda prompt="": self._note(prompt, "secret"))

    def _note(self, prompt: str, answer: str) -> str:
        self.questions.append(prompt)
        return answer


def test_a_person_is_asked_once_whichever_thread_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(monkeypatch)
    kept: list[Credentials] = []
    prompt = CredentialPrompt("reg.example", lambda: None, kept.append)
    start = threading.Barrier(8)

    def one(_: int) -> Credentials | None:
        start.wait(10)
        return prompt()

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(one, range(8)))

    assert answers == {Credentials("alice", "secret")}
    assert kept == [Credentials("alice", "secret")]
    assert asked.questions == ["Username for reg.example: ", "Password for reg.example: "]


def test_a_user_who_is_known_is_asked_for_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)

    assert CredentialPrompt("h", lambda: "bob", lambda _: None)() == Credentials("bob", "secret")
    assert asked.questions == ["Password for h: "]


def test_an_empty_user_means_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)

    assert CredentialPrompt("h", lambda: "", lambda _: None)() is None
    assert not asked.questions


class Terminal:
    """A standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "said"), [(None, "no terminal"), (Terminal(), "requires a user name and password")]
)
def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch, stdin: object, said: str) -> None:
    def end(prompt: str = "") -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    monkeypatch.setattr(sys, "stdin", stdin)

    with pytest.raises(AccessDenied, match=said) as caught:
        CredentialPrompt("reg.example", lambda: None, lambda _: None)()

    assert ("no terminal" in str(caught.value)) == (stdin is None)
