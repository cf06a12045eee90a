"""`concil mirror --http`: the page of a service, from its first run to its end."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.cli.service_program import Service, service
from tests.support.images import assert_same_image, make_image, put_image
from tests.web.live_setup import follow
from tests.web.test_endpoints import check_schema

IMAGE = make_image(1, (3000,))
OTHER = make_image(2, (3000,))
TOKEN = "token-of-the-page-1"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "the live page is at "


@pytest.fixture
def plan(tmp_path: Path, registry: EmbeddedRegistry) -> Path:
    put_image(registry.url, "app", "v1", IMAGE)
    path = tmp_path / "list"
    path.write_text(f"{registry.host}/app:v1\n{registry.host}/app:late\n")
    return path


@pytest.fixture
def target(registry: EmbeddedRegistry) -> str:
    return f"{registry.host}/mirror"


def url_of(running: Service) -> str:
    return running.wait_for(PAGE).partition(PAGE)[2].strip()


def ask(url: str, path: str, method: str = "GET") -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url + path, headers=BEARER, timeout=PATIENCE)


@pytest.mark.process
def test_the_page_of_a_service_says_what_it_does(
    program: Program, registry: EmbeddedRegistry, plan: Path, target: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    words = (plan, target, "--every=1h", "--jitter=0s", "--http=127.0.0.1:0", "-vv")
    with service(program, *words, "--http-token-file", token) as running:
        url = url_of(running)
        running.wait_for("next run at ")
        first = ask(url, "api/status").json()
        with (
            follow(url, "/api/events", BEARER) as events,
            follow(url, "/api/live", BEARER) as page,
        ):
            assert page.next().event == "state"
            put_image(registry.url, "app", "late", OTHER)
            put_image(registry.url, "app", "v1", OTHER)
            assert ask(url, "api/run", "POST").status_code == 202
            seen = [events.next_with("message", '"run": "plan"').data for _ in range(2)]
            running.wait_for("2 images: ")
            # Before or after the end of the run, which is short.
            while '"number": 2' not in json.dumps(page.next().data["service"]):
                pass
            last = ask(url, "api/status").json()
            assert running.stop() == 0
            assert page.is_at_end()

    check_schema(first, "status.schema.json")
    check_schema(last, "status.schema.json")
    assert [run["result"] for run in first["runs"]][-1] == "failures"
    assert first["images"]["failed"] == 1
    [gone, _] = first["behind"]
    assert gone["source"].endswith("/app:late")
    assert gone["error"]
    assert gone["remedy"].startswith("check the tag")
    assert [event["state"] for event in seen] == ["started", "done"]
    assert last["images"]["failed"] == 0
    assert_same_image(registry.url, "mirror/app", "v1", OTHER)
    assert_same_image(registry.url, "mirror/app", "late", OTHER)
    assert TOKEN not in "".join(running.lines)


def test_a_single_run_has_a_page_as_long_as_it_goes_on(
    cli: Cli, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    put_image(registry.url, "app", "late", OTHER)
    outcome = cli("mirror", plan, target, "--http=127.0.0.1:0")
    [port] = re.findall(r"live page is at http://127\.0\.0\.1:(\d+)/", outcome.err)

    assert outcome.code == 0
    assert_same_image(registry.url, "mirror/app", "v1", IMAGE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--http=0.0.0.0:0"], "could read the live page; give a token with --http-token-file"),
        (["--http=:8080"], "could read the live page"),
        (["--http=mirror.example.org:8080"], "could read the live page"),
        (["--http=8080"], "not a listen address: '8080'"),
        (["--http=127.0.0.1:0", "--http-token=short"], "has 5 characters, and needs 16 to 1000"),
        (["--http=127.0.0.1:0", f"--http-token={'a b' * 9}"], "has blanks"),
        (["--http=127.0.0.1:0", "--http-token-file=none"], "cannot read the token file 'none'"),
        (["--http=127.0.0.1:0", "--http-token-file=/dev/null"], "has 0 characters"),
        ([f"--http-token={TOKEN}"], "--http-token is for the live page, and there is none"),
        (["--http-token-file=x"], "--http-token-file is for the live page"),
        (["--http=127.0.0.1:0", "--http-token=a", "--http-token-file=b"], "exclude each other"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--every=1m",)])
def test_what_cannot_be_served_is_refused_before_a_run(  # noqa: PLR0917  # fixtures
    cli: Cli,
    registry: EmbeddedRegistry,
    plan: Path,
    target: str,
    words: list[str],
    more: tuple[str, ...],
    expected: str,
) -> None:
    registry.clear_requests()

    assert_fails(cli("mirror", plan, target, *words, *more), 2, expected)
    assert registry.requests == []


def test_a_short_token_of_the_environment_is_refused_and_not_printed(
    cli: Cli, plan: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCIL_HTTP_TOKEN", "too-short-tok")

    outcome = cli("mirror", plan, target, "--http=127.0.0.1:0")

    assert_fails(outcome, 2, "the token of CONCIL_HTTP_TOKEN has 13 characters")
    assert "too-short-tok" not in outcome.err


def test_a_dry_run_has_no_page(cli: Cli, plan: Path, target: str) -> None:
    words = ("--http=127.0.0.1:0", "--dry-run")

    assert_fails(cli("mirror", plan, target, *words), 2, "--dry-run copies nothing")


def test_a_port_in_use_is_one_line(
    cli: Cli, registry: EmbeddedRegistry, plan: Path, target: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        outcome = cli("mirror", plan, target, f"--http=127.0.0.1:{port}", "--every=1m")

    assert_fails(outcome, 1, f"127.0.0.1:{port}", "in use", "choose another address; port 0")
