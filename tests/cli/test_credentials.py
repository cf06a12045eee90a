"""Stored logins that are no good: one line that names the culprit, the exit code, one attempt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.cli.failures import DENIED, NOT_FOUND
from concil.registry.credential_helper import CredentialHelper
from concil.registry.credentials import Credentials
from concil.server import EmbeddedRegistry
from tests.cli.desk import Desk, Locked
from tests.cli.runner import assert_fails
from tests.lab.credential_helper import FakeHelper
from tests.lab.images import make_image, put_image
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog
from tests.tokens.conftest import PASSWORD, USER

pytestmark = pytest.mark.real
WRONG = "wr0ng-s3cret"
HASTY = {"cancel": None, "timeout": 0.2}
RENEWS = f"""
import json, pathlib, sys
server = sys.stdin.read()
asked = pathlib.Path({{home!r}}) / "asked"
secret = {PASSWORD!r} if asked.exists() else {WRONG!r}
asked.touch()
print(json.dumps(dict(ServerURL=server, Username={USER!r}, Secret=secret)))
"""


@dataclass(frozen=True)
class Watched:
    """The line to a registry, on which passwords are counted."""

    host: str
    locked: Locked
    seen: RequestLog
    asked_before: int

    @property
    def passwords(self) -> int:
        """How often one was sent, to the registry or the service for its tokens."""
        if self.locked.service is not None:
            asked = self.locked.service.asked[self.asked_before :]
            return sum(one.grant in ("basic", "password") for one in asked)
        return sum("authorization" in request.headers for request in self.seen.requests)


@pytest.fixture
def watched(locked: Locked) -> Iterator[Watched]:
    seen = RequestLog()
    before = 0 if locked.service is None else len(locked.service.asked)
    with Relay(locked.host, observer=seen) as relay:
        yield Watched(relay.host, locked, seen, before)


def test_a_wrong_password_is_sent_once(desk: Desk, watched: Watched) -> None:
    refused = desk("tags", f"--creds={USER}:{WRONG}", f"{watched.host}/nothing")

    assert_fails(refused, DENIED, "401", USER, "check the credentials")
    assert WRONG not in refused.err
    assert watched.passwords == 1


def test_a_password_of_a_helper_that_has_expired_is_sent_once(
    desk: Desk, watched: Watched, tmp_path: Path
) -> None:
    desk.logins = {"credHelpers": {watched.host: "lab"}}
    helper = FakeHelper(tmp_path, desk.monkeypatch)
    helper.kept = {watched.host: [USER, WRONG]}

    refused = desk("tags", f"{watched.host}/nothing")

    assert_fails(refused, DENIED, "401", f"{USER!r} of docker-credential-lab", "check the cred")
    assert WRONG not in refused.err
    assert watched.passwords == 1
    assert len(helper.runs) == 2  # it might have had a new one


def test_a_wrong_password_in_a_file_is_told_with_its_place(desk: Desk, locked: Locked) -> None:
    auth = Credentials(USER, WRONG).basic().removeprefix("Basic ")
    desk.logins = {"auths": {locked.host: {"auth": auth}}}

    refused = desk("tags", f"{locked.host}/nothing")

    assert_fails(refused, DENIED, "401", f"{USER!r} of '{desk.config}'")


def test_a_helper_that_has_a_new_password_is_asked_for_it(
    desk: Desk, locked: Locked, tmp_path: Path
) -> None:
    desk.logins = {"credHelpers": {locked.host: "lab"}}
    FakeHelper(tmp_path, desk.monkeypatch, script=RENEWS)

    # Who is let in is told that there is nothing.
    assert_fails(desk("tags", f"{locked.host}/nothing"), NOT_FOUND)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "is not installed; install it"),
        ("import time; time.sleep(600)", "did not end in 0.2 s; try it: echo"),
        ("import sys; print('s3cr3t'); sys.exit(3)", "failed with exit code 3"),
        ("print('<html>s3cr3t')", "answered nothing that can be understood"),
        ("print('s3cr3t' * 20_000)", "wrote more than 65536 bytes"),
    ],
    ids=["missing", "hangs", "fails", "talks nonsense", "talks without end"],
)
def test_a_helper_that_is_no_help(
    desk: Desk, by_password: Locked, tmp_path: Path, script: str | None, said: str
) -> None:
    desk.logins = {"credHelpers": {by_password.host: "lab"}}
    if script is not None:
        FakeHelper(tmp_path, desk.monkeypatch, script=script)
        if "sleep" in script:
            desk.monkeypatch.setattr(CredentialHelper.__init__, "__kwdefaults__", HASTY)

    done = desk("tags", f"{by_password.host}/nothing")

    assert_fails(done, DENIED, "docker-credential-lab", by_password.host, said)
    assert "s3cr3t" not in done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"auths": {"h": {"auth": "czNjcjN0"', "is not a JSON object; repair it"),
        ('["s3cr3t"]', "is not a JSON object; repair it"),
        ('{"auths": "s3cr3t"}', "auths is not an object; repair it"),
        ('{"credsStore": ["s3cr3t"]}', "credsStore is not a string; repair it"),
    ],
)
def test_a_file_that_is_broken(desk: Desk, by_password: Locked, content: str, said: str) -> None:
    desk.logins = {}
    desk.config.write_text(content)

    done = desk("tags", f"{by_password.host}/nothing")

    assert_fails(done, DENIED, f"{desk.config}", said)
    assert "s3cr3t" not in done.err
    assert "czNjcjN0" not in done.err


@pytest.mark.parametrize("auth", ["###", "czNjcjN0", "/zpzM2NyM3Q=", ["s3cr3t"]])
def test_an_entry_that_is_broken(desk: Desk, by_password: Locked, auth: object) -> None:
    desk.logins = {"auths": {by_password.host: {"auth": auth}}}

    done = desk("tags", f"{by_password.host}/nothing")

    assert_fails(done, DENIED, str(desk.config), by_password.host, "log in there again")
    assert not any(secret in done.err for secret in ("s3cr3t", "czNjcjN0", "/zpz"))


def test_a_file_that_cannot_be_read(desk: Desk, by_password: Locked, tmp_path: Path) -> None:
    desk.config.mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    words = ("tags", f"{by_password.host}/nothing")

    assert_fails(desk(*words), DENIED, str(desk.config), "not a regular file", "--authfile")
    desk.monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "pipe"))
    assert_fails(desk(*words), DENIED, str(tmp_path / "pipe"), "not a regular file")


def test_a_variable_that_is_broken(desk: Desk, by_password: Locked) -> None:
    desk.monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{s3cr3t")

    done = desk("tags", f"{by_password.host}/nothing")

    assert_fails(done, DENIED, "DOCKER_AUTH_CONFIG is not a JSON object")
    assert "s3cr3t" not in done.err


def test_what_is_broken_harms_nobody_who_needs_no_login(
    desk: Desk, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", make_image(1))
    desk.logins = {}
    desk.config.write_text("{broken")

    assert desk("tags", f"{registry.host}/app").lines == ["v1"]


def test_without_any_login_the_remedy_is_one(desk: Desk, locked: Locked) -> None:
    done = desk("tags", f"{locked.host}/nothing")

    assert_fails(done, DENIED, "401", locked.host, "log in")
