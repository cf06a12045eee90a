"""Webhooks and commands: what they receive, and what counts as delivered."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from concil.config import RetryPolicy
from concil.errors import UsageError
from concil.notify import delivery
from concil.notify.channels import (
    NotDelivered,
    load_secret,
    post_webhook,
    run_command,
    signature_headers,
)
from concil.notify.delivery import Delivery
from concil.notify.notification import Notification, Subject
from concil.plan.notify_settings import NotifySettings
from tests.notify.webhook_server import PATIENCE, WebhookServer

NOTE = Notification("failure", "plan.toml", "r.example/mirror", [Subject("image", "a", "b")])
FAST = RetryPolicy(max_attempts=3, backoff_base=0.001, max_backoff=0.001)


def settings(server: WebhookServer | None = None, timeout: float = PATIENCE) -> NotifySettings:
    return NotifySettings("plan.toml:1", server.url if server else None, timeout=timeout)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification and of its libraries.
    secret = load_secret(
        NotifySettings("plan.toml:1", secret_variable="HOOK"),
        {"HOOK": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    )

    headers = signature_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret, 1614265330
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_webhook_receives_the_signed_body() -> None:
    with WebhookServer() as server:
        post_webhook(settings(server), NOTE, b"body", b"secret")
        headers, body = server.received.get(timeout=PATIENCE)

    stamp = int(headers["webhook-timestamp"])
    signed = signature_headers(NOTE.id, b"body", b"secret", stamp)["webhook-signature"]
    assert body == b"body"
    assert headers["webhook-signature"] == signed
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "reason", "is_transient"),
    [
        (307, "it redirects", False),
        (404, "status 404", False),
        (429, "status 429", True),
        (500, "status 500", True),
    ],
)
def test_what_is_not_accepted_names_the_host_alone(
    status: int, reason: str, is_transient: bool
) -> None:
    with WebhookServer(status) as server, pytest.raises(NotDelivered) as caught:
        post_webhook(settings(server), NOTE, b"body", b"secret")

    assert str(caught.value) == f"cannot notify the webhook at {server.host}: {reason}"
    assert caught.value.transient == is_transient
    assert server.received.qsize() == 1  # a redirect is not followed


def test_a_webhook_that_hangs_and_one_that_is_gone_are_errors_without_its_path() -> None:
    with WebhookServer(None) as server, pytest.raises(NotDelivered) as hanging:
        post_webhook(settings(server, timeout=0.05), NOTE, b"body", None)
    with pytest.raises(NotDelivered) as gone:
        post_webhook(settings(server), NOTE, b"body", None)

    for caught in (hanging, gone):
        assert caught.value.transient
        assert server.host in str(caught.value)
        assert "T0KEN" not in str(caught.value)


def test_a_command_receives_the_body_on_its_standard_input(tmp_path: Path) -> None:
    copy = "import shutil, sys; shutil.copyfileobj(sys.stdin, open(sys.argv[1], 'w'))"
    command = (sys.executable, "-c", copy, str(tmp_path / "body"))

    run_command(NotifySettings("plan.toml:1", command=command), NOTE.to_json())

    assert json.loads((tmp_path / "body").read_text())["event"] == "failure"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise SystemExit(3)", "has failed with 3"),
        ("import time; time.sleep(3600)", "takes longer than 0.5 s"),
    ],
)
def test_a_command_that_fails_or_hangs_is_an_error(source: str, reason: str) -> None:
    command = (sys.executable, "-c", source)

    with pytest.raises(NotDelivered, match=reason):
        run_command(NotifySettings("plan.toml:1", command=command, timeout=0.5), b"{}" * 100_000)


def test_a_command_that_hangs_does_not_outlive_the_end(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    source = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    command = (sys.executable, "-c", source)
    queue = Delivery({}, FAST)

    queue.submit(NOTE, NotifySettings("plan.toml:1", command=command, timeout=PATIENCE), bool)
    thread = queue._thread
    assert thread is not None
    while not (marker.exists() and marker.read_text()):
        thread.join(0.01)
    queue.close(0.01)

    thread.join(PATIENCE)  # the command was killed, and nothing is tried again
    assert not thread.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)


def test_a_command_that_does_not_exist_is_not_tried_again() -> None:
    with pytest.raises(NotDelivered, match="No such file") as caught:
        run_command(NotifySettings("plan.toml:1", command=("/no/such/program",)), b"{}")

    assert not caught.value.transient


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot read"),
        ("", "no secret"),
        ("whsec_!", "no base64"),
        ("x" * 5000, "larger than 4 KiB"),
    ],
)
def test_a_secret_that_cannot_be_used_is_an_error(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if text is not None:
        path.write_text(text)

    with pytest.raises(UsageError, match=reason):
        load_secret(NotifySettings("plan.toml:1", secret_file=str(path)), {})


def deliver(queue: Delivery, wanted: NotifySettings, count: int = 1) -> list[bool]:
    """Deliver notifications; return how they ended."""
    ends: list[bool] = []
    for _ in range(count):
        queue.submit(NOTE, wanted, ends.append)
    queue.close(PATIENCE)
    return ends


def test_a_webhook_that_answers_500_is_tried_again() -> None:
    with WebhookServer() as server:
        server.statuses = [500, 503]

        assert deliver(Delivery({}, FAST), settings(server)) == [True]

        assert server.received.qsize() == 3
        identifiers = {server.received.get()[0]["webhook-id"] for _ in range(3)}
    assert identifiers == {NOTE.id}


def test_after_the_last_attempt_there_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with WebhookServer(500) as server:
        assert deliver(Delivery({}, FAST), settings(server)) == [False]

    (line,) = [message for message in caplog.messages if "not notified" in message]
    assert line == (
        f"cannot notify the webhook at {server.host}: status 500; not notified: concil plan.toml: "
        "1 image failed: b"
    )


def test_a_webhook_that_hangs_holds_neither_the_queue_nor_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING", 5)
    ends: list[bool] = []
    with WebhookServer(None) as server:
        queue = Delivery({}, FAST)
        queue.submit(NOTE, settings(server), ends.append)
        server.received.get(timeout=PATIENCE)  # now it hangs
        for _ in range(8):
            queue.submit(NOTE, settings(server), ends.append)
        queue.close(0.01)

        assert ends == [False] * 3  # those that the queue had no room for
    assert caplog.messages.count("notifications were not delivered before the end") == 1


def test_without_a_thread_a_notification_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    queue, ends = Delivery({}), list[bool]()

    queue.submit(NOTE, NotifySettings("plan.toml:1", "https://h.example"), ends.append)
    queue.close(1)

    assert ends == [False]
    assert "a notification is left out" in caplog.text
