"""Each endpoint says what it is for, over a real socket."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from jsonschema import Draft202012Validator

from concil.errors import RegistryDenied, StoreError
from concil.progress.events import State
from concil.service.service_status import RunKind, RunResult
from concil.web.live_server import LiveServer
from tests.service.conftest import FakeClock
from tests.web.conftest import Client, Serve
from tests.web.live_setup import HOST, LiveSetup, follow

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def check_schema(document: object, name: str) -> None:
    schema = json.loads((REFERENCE / name).read_text())
    errors = Draft202012Validator(schema).iter_errors(document)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def status_of(ask: Client, query: str = "") -> dict[str, object]:
    answer = ask(f"/api/status{query}")
    assert answer.status_code == 200
    document: dict[str, object] = answer.json()
    check_schema(document, "status.schema.json")
    return document


def test_the_status_before_the_first_run(ask: Client, setup: LiveSetup) -> None:
    setup.status.record_turn(60, None)

    found = status_of(ask)

    assert (found["state"], found["run"], found["runs"]) == ("waiting", None, [])
    assert found["next_run"] == "2026-01-01T00:01:00+00:00"


def test_the_status_of_a_run(ask: Client, setup: LiveSetup) -> None:
    setup.begin()
    setup.live.set_expected_images(3)
    setup.image("app:1")
    setup.image("app:2", State.PRESENT)
    setup.blob("a", State.WAITING)
    setup.blob("b", State.STARTED)
    setup.blob("b", State.RETRYING, 400, "connection reset")
    setup.pause(30)

    found = status_of(ask)
    run = found["run"]

    assert isinstance(run, dict)
    assert (found["state"], run["images"], run["copied"], run["up_to_date"]) == ("running", 3, 1, 1)
    assert (run["waiting"], run["running"]) == (1, 1)
    [transfer] = run["transfers"]
    assert (transfer["state"], transfer["position"]) == ("retrying", 400)
    assert [pause["host"] for pause in run["paused_hosts"]] == [HOST]


def test_the_status_after_runs(ask: Client, setup: LiveSetup, clock: FakeClock) -> None:
    setup.begin()
    setup.image("app:1")
    setup.image("app:2")
    setup.end()
    clock.advance(600)
    setup.begin()
    setup.image("app:1", State.PRESENT)
    setup.fail("app:2")
    setup.fail("app:3")
    setup.status.record_failed_listing("quay.io/gone", StoreError("no list", remedy="look"))
    setup.end()
    clock.advance(60)

    found = status_of(ask)

    assert [run["result"] for run in found["runs"]] == ["failures", "done"]  # type: ignore[attr-defined]
    assert found["images"] == {
        "total": 3, "current": 1, "failed": 2, "unconfirmed": 1, "longest_behind_seconds": 660,
    }  # fmt: skip
    behind = [
        (image["source"], image["behind_seconds"])
        for image in found["behind"]  # type: ignore[attr-defined]
    ]
    assert behind == [("quay.io/app:3", None), ("quay.io/app:2", 660), ("quay.io/app:1", 60)]
    assert found["behind"][1]["remedy"] == "check the tag"  # type: ignore[index]
    assert found["failed_listings"] == [
        {"source": "quay.io/gone", "error": "no list", "remedy": "look"}
    ]


def test_the_status_has_as_many_images_as_it_is_asked_for(ask: Client, setup: LiveSetup) -> None:
    setup.begin()
    for number in range(120):
        setup.image(f"app:{number}")
    setup.end()

    assert len(status_of(ask)["behind"]) == 100  # type: ignore[arg-type]
    assert len(status_of(ask, "?images=7")["behind"]) == 7  # type: ignore[arg-type]
    assert len(status_of(ask, "?images=0")["behind"]) == 0  # type: ignore[arg-type]
    for wrong in ("x", "-1", "1000000", "\u0661"):
        assert ask("/api/status", params={"images": wrong}).status_code == 400


def test_events_are_those_of_progress_json_and_the_runs(serve: Serve, setup: LiveSetup) -> None:
    with follow(serve().url, "/api/events") as reader:
        setup.begin(RunKind.RETRY)
        setup.blob("a", State.STARTED)
        setup.pause(3)
        setup.live.record_message("warning", "concil: warning: x")
        setup.image("app:1")
        setup.end(RunResult.INTERRUPTED)
        found = [reader.next().data for _ in range(7)]

    for event in found:
        check_schema(event, "event.schema.json")
    assert [(event["kind"], event.get("state")) for event in found] == [
        ("run", "started"), ("blob", "started"), ("host", "paused"), ("log", None),
        ("image", "started"), ("image", "done"), ("run", "interrupted"),
    ]  # fmt: skip
    assert (found[-1]["run"], found[-1]["copied"]) == ("retry", 1)


def test_a_waiting_service_is_healthy_while_its_loop_turns(
    ask: Client, setup: LiveSetup, clock: FakeClock
) -> None:
    clock.advance(59)
    assert (ask("/healthz").status_code, ask("/healthz").text) == (200, "ok\n")
    clock.advance(2)

    assert ask("/healthz").status_code == 503
    assert "main loop is stuck" in ask("/healthz").text
    setup.status.record_turn(10, None)
    assert ask("/healthz").status_code == 200


def test_a_run_is_healthy_while_it_says_something(
    ask: Client, setup: LiveSetup, clock: FakeClock
) -> None:
    setup.begin()
    setup.pause(7200)
    clock.advance(7200 + 3599)
    assert ask("/healthz").status_code == 200
    clock.advance(2)
    assert ask("/healthz").status_code == 503
    setup.blob("a", State.STARTED)
    assert ask("/healthz").status_code == 200


def test_a_service_is_ready_until_it_has_missed_three_runs(
    ask: Client, setup: LiveSetup, clock: FakeClock
) -> None:
    setup.status.record_schedule(1000)
    clock.advance(2999)
    assert ask("/readyz").status_code == 200
    clock.advance(2)
    assert ask("/readyz").status_code == 503
    assert "no run has come to its end for 3001 seconds" in ask("/readyz").text
    setup.begin()
    assert ask("/readyz").status_code == 200
    setup.end(RunResult.INTERRUPTED)
    setup.live.leave_out_run(RunKind.PLAN)
    assert ask("/readyz").status_code == 503
    setup.begin()
    setup.fail("app:1")
    setup.end()
    assert ask("/readyz").status_code == 200


def test_metrics_are_those_of_the_collector(serve: Serve) -> None:
    answer = Client(serve(metrics=lambda: b"# EOF\n").url)("/metrics")

    assert (answer.status_code, answer.content) == (200, b"# EOF\n")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")


def test_without_a_collector_metrics_say_why_there_are_none(ask: Client) -> None:
    assert ask("/metrics").status_code == 404
    assert "concil[service]" in ask("/metrics").text


def test_a_defect_of_the_collector_is_an_answer_and_a_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bytes:
        raise RuntimeError("no")

    ask = Client(serve(metrics=fail).url)

    assert ask("/metrics").status_code == 500
    assert ask("/healthz").status_code == 200
    assert "cannot answer" in caplog.text


def test_other_paths_and_methods_are_refused(ask: Client) -> None:
    assert ask("/other").status_code == 404
    assert ask("/api/status", "POST").status_code == 405
    assert ask("/api/run").headers["Allow"] == "POST"
    assert ask("/api/live", "HEAD").headers["Allow"] == "GET"
    assert ask("/api/events", "POST").status_code == 405
    head = ask("/", "HEAD")
    assert (head.status_code, head.content) == (200, b"")


def test_the_page_allows_nothing_but_itself(ask: Client) -> None:
    answer = ask("/")
    policy = answer.headers["Content-Security-Policy"]
    [script] = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)

    for kind, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=\"(?!data:)", answer.text)
    for path in ("/", "/api/status", "/other", "/login"):
        headers = ask(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Docker-Distribution-Api-Version" not in headers


def test_a_request_that_is_none_gets_an_answer_and_no_more(ask: Client) -> None:
    address = urlsplit(ask.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 400 ")


def test_an_address_in_use_is_one_line_with_a_remedy(serve: Serve, setup: LiveSetup) -> None:
    port = urlsplit(serve().url).port or 0

    with pytest.raises(StoreError, match="in use") as caught:
        LiveServer(setup.live, ("127.0.0.1", port))
    assert "port 0" in caught.value.remedy


def test_secrets_of_a_failure_are_not_shown(ask: Client, setup: LiveSetup) -> None:
    response = requests.Response()
    response.status_code = 403
    setup.begin()
    setup.fail("app:1", RegistryDenied("denied", response=response))
    setup.status.record_failed_listing(
        "https://alice:secret-of-alice@quay.io/gone", StoreError("no list")
    )
    setup.end()

    text = ask("/api/status").text

    assert "denied" in text
    assert "secret-of-alice" not in text
