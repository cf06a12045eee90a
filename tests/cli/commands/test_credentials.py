"""Stored logins that are no good: one line that names the culprit, the exit code, one attempt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.helper import CredentialHelper
from concil.cli.output.errors import ACCESS_DENIED, NOT_FOUND
from concil.server import EmbeddedRegistry
from tests.cli.login_harness import AuthRegistry, CommandLineHarness
from tests.cli.runner import assert_fails
from tests.support.credential_helper import FakeCredentialHelper
from tests.support.images import make_image, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
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
    locked: AuthRegistry
    seen: RequestLog
    asked_before: int

    @property
    def passwords(self) -> int:
        """How often one was sent, to the registry or the service for its tokens."""
        if self.locked.service is not None:
            asked = self.locked.service.requests[self.asked_before :]
            return sum(one.grant in ("basic", "password") for one in asked)
        return sum("authorization" in request.headers for request in self.seen.requests)


@pytest.fixture
def watched(auth_registry: AuthRegistry) -> Iterator[Watched]:
    seen = RequestLog()
    before = 0 if auth_registry.service is None else len(auth_registry.service.requests)
    with Relay(auth_registry.host, observer=seen) as relay:
        yield Watched(relay.host, auth_registry, seen, before)


def test_a_wrong_password_is_sent_once(harness: CommandLineHarness, watched: Watched) -> None:
    refused = harness("tags", f"--creds={USER}:{WRONG}", f"{watched.host}/nothing")

    assert_fails(refused, ACCESS_DENIED, "401", USER, "check the credentials")
    assert WRONG not in refused.err
    assert watched.passwords == 1


def test_a_password_of_a_helper_that_has_expired_is_sent_once(
    harness: CommandLineHarness, watched: Watched, tmp_path: Path
) -> None:
    harness.logins = {"credHelpers": {watched.host: "lab"}}
    helper = FakeCredentialHelper(tmp_path, harness.monkeypatch)
    helper.stored = {watched.host: [USER, WRONG]}

    refused = harness("tags", f"{watched.host}/nothing")

    assert_fails(
        refused, ACCESS_DENIED, "401", f"{USER!r} of docker-credential-lab", "check the cred"
    )
    assert WRONG not in refused.err
    assert watched.passwords == 1
    assert len(helper.calls) == 2  # it might have had a new one


def test_rejected_stored_password_names_its_file(
    harness: CommandLineHarness, auth_registry: AuthRegistry
) -> None:
    auth = Credentials(USER, WRONG).basic_header().removeprefix("Basic ")
    harness.logins = {"auths": {auth_registry.host: {"auth": auth}}}

    refused = harness("tags", f"{auth_registry.host}/nothing")

    assert_fails(refused, ACCESS_DENIED, "401", f"{USER!r} of '{harness.config}'")


def test_a_helper_that_has_a_new_password_is_asked_for_it(
    harness: CommandLineHarness, auth_registry: AuthRegistry, tmp_path: Path
) -> None:
    harness.logins = {"credHelpers": {auth_registry.host: "lab"}}
    FakeCredentialHelper(tmp_path, harness.monkeypatch, script=RENEWS)

    # Who is let in is told that there is nothing.
    assert_fails(harness("tags", f"{auth_registry.host}/nothing"), NOT_FOUND)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "is not installed; install it"),
        ("import time; time.sleep(600)", "did not finish within 0.2 s; try it: echo"),
        ("import sys; print('s3cr3t'); sys.exit(3)", "failed with exit code 3"),
        ("print('<html>s3cr3t')", "printed something that is not a login"),
        ("print('s3cr3t' * 20_000)", "wrote more than 65536 bytes"),
    ],
    ids=["missing", "hangs", "fails", "talks nonsense", "talks without end"],
)
def test_failing_helper_is_an_error(
    harness: CommandLineHarness,
    basic_auth_registry: AuthRegistry,
    tmp_path: Path,
    script: str | None,
    message: str,
) -> None:
    harness.logins = {"credHelpers": {basic_auth_registry.host: "lab"}}
    if script is not None:
        FakeCredentialHelper(tmp_path, harness.monkeypatch, script=script)
        if "sleep" in script:
            harness.monkeypatch.setattr(CredentialHelper.__init__, "__kwdefaults__", HASTY)

    result = harness("tags", f"{basic_auth_registry.host}/nothing")

    assert_fails(result, ACCESS_DENIED, "docker-credential-lab", basic_auth_registry.host, message)
    assert "s3cr3t" not in result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"auths": {"h": {"auth": "czNjcjN0"', "is not a JSON object; repair it"),
        ('["s3cr3t"]', "is not a JSON object; repair it"),
        ('{"auths": "s3cr3t"}', "auths is not an object; repair it"),
        ('{"credsStore": ["s3cr3t"]}', "credsStore is not a string; repair it"),
    ],
)
def test_a_file_that_is_broken(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry, content: str, message: str
) -> None:
    harness.logins = {}
    harness.config.write_text(content)

    result = harness("tags", f"{basic_auth_registry.host}/nothing")

    assert_fails(result, ACCESS_DENIED, f"{harness.config}", message)
    assert "s3cr3t" not in result.err
    assert "czNjcjN0" not in result.err


@pytest.mark.parametrize("auth", ["###", "czNjcjN0", "/zpzM2NyM3Q=", ["s3cr3t"]])
def test_an_entry_that_is_broken(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry, auth: object
) -> None:
    harness.logins = {"auths": {basic_auth_registry.host: {"auth": auth}}}

    result = harness("tags", f"{basic_auth_registry.host}/nothing")

    assert_fails(
        result,
        ACCESS_DENIED,
        str(harness.config),
        basic_auth_registry.host,
        "log in to that registry again",
    )
    assert not any(secret in result.err for secret in ("s3cr3t", "czNjcjN0", "/zpz"))


def test_a_file_that_cannot_be_read(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry, tmp_path: Path
) -> None:
    harness.config.mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    words = ("tags", f"{basic_auth_registry.host}/nothing")

    assert_fails(
        harness(*words), ACCESS_DENIED, str(harness.config), "not a regular file", "--authfile"
    )
    harness.monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "pipe"))
    assert_fails(harness(*words), ACCESS_DENIED, str(tmp_path / "pipe"), "not a regular file")


def test_a_variable_that_is_broken(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry
) -> None:
    harness.monkeypatch.setenv("DOCKER_AUTH_CONFIG", "{s3cr3t")

    result = harness("tags", f"{basic_auth_registry.host}/nothing")

    assert_fails(result, ACCESS_DENIED, "DOCKER_AUTH_CONFIG is not a JSON object")
    assert "s3cr3t" not in result.err


def test_broken_auth_file_does_not_affect_anonymous_access(
    harness: CommandLineHarness, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", make_image(1))
    harness.logins = {}
    harness.config.write_text("{broken")

    assert harness("tags", f"{registry.host}/app").lines == ["v1"]


def test_without_any_login_the_remedy_is_one(
    harness: CommandLineHarness, auth_registry: AuthRegistry
) -> None:
    result = harness("tags", f"{auth_registry.host}/nothing")

    assert_fails(result, ACCESS_DENIED, "401", auth_registry.host, "concil login")
