"""What is tried again, how long is waited first, and when it is enough."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

import pytest
import requests

from concil import retry
from concil.config import RetryPolicy, Timeouts, TransferConfig
from concil.errors import (
    AccessDenied,
    Cancelled,
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    ProtocolViolation,
    RegistryDenied,
    SessionLost,
    StatusError,
    TLSFailure,
    Unreachable,
    UsageError,
)

FAST = RetryPolicy(max_attempts=4, backoff_base=0, max_backoff=0, max_lost_sessions=3)


def status(code: int, retry_after: float | None = None) -> StatusError:
    response = requests.Response()
    response.status_code = code
    kind = RegistryDenied if code in (401, 403) else StatusError
    error = kind(f"{code} x", response=response)
    error.retry_after = retry_after
    return error


def away(*, answered_before: bool) -> Unreachable:
    error = Unreachable("refused")
    error.has_answered_before = answered_before
    return error


class Waits(threading.Event):
    """A cancel event that notes the waits, and never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0)
        return self.is_set()


@pytest.fixture
def cancel() -> Waits:
    return Waits()


class Calls:
    """Fails with each error in turn, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


def repeat(
    request: Callable[[], str],
    policy: RetryPolicy,
    cancel: threading.Event,
    describe: Callable[[], str],
) -> str:
    for attempt in retry.attempts(policy, cancel, describe):
        with attempt:
            return request()
    raise AssertionError("neither an answer nor an error")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        *((status(code), True) for code in (408, 425, 429, 499, 500, 502, 503, 504, 522)),
        *((status(code), False) for code in (400, 401, 403, 404, 405, 409, 413, 416, 501)),
        (ConnectionLost("cut"), True),
        (away(answered_before=True), True),
        (away(answered_before=False), False),
        (TLSFailure("x"), False),
        (ProtocolViolation("x"), False),
        (SessionLost("x"), False),
        (DigestMismatch("x"), False),
        (AccessDenied("x"), False),
        (ValueError("a bug of ours"), False),
    ],
)
def test_what_may_pass_is_transient(error: Exception, transient: bool) -> None:
    assert retry.is_retryable(error) is transient


def test_a_call_is_repeated_until_it_answers(cancel: Waits) -> None:
    calls = Calls(ConnectionLost("a"), status(503), away(answered_before=True))

    assert repeat(calls, FAST, cancel, lambda: "GET x") == "answer"
    assert calls.count == 4


def test_the_last_error_comes_through_as_it_is(cancel: Waits) -> None:
    last = ConnectionLost("the last")
    calls = Calls(*[ConnectionLost("x")] * 3, last, ConnectionLost("never"))

    with pytest.raises(ConnectionLost) as caught:
        repeat(calls, FAST, cancel, lambda: "GET x")

    assert caught.value is last
    assert calls.count == 4


@pytest.mark.parametrize("error", [status(404), DigestMismatch("x"), KeyError("a bug of ours")])
def test_what_is_meant_is_not_repeated(cancel: Waits, error: Exception) -> None:
    calls = Calls(error)

    with pytest.raises(type(error)):
        repeat(calls, FAST, cancel, lambda: "GET x")

    assert calls.count == 1
    assert not cancel.seconds


def test_back_off_grows_and_has_full_jitter(cancel: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    policy = RetryPolicy(max_attempts=6, backoff_base=0.5, max_backoff=3)

    with pytest.raises(ConnectionLost):
        repeat(Calls(*[ConnectionLost("x")] * 9), policy, cancel, lambda: "GET x")

    assert asked[:5] == [(0, 0.5), (0, 1), (0, 2), (0, 3), (0, 3)]
    assert cancel.seconds == [0.5, 1, 2, 3, 3]


@pytest.mark.parametrize("asked", [0, 17, 5000])
def test_after_a_retry_after_there_is_no_back_off(cancel: Waits, asked: float) -> None:
    """The limiter of the host waits: tests/registry/test_endpoint.py."""
    policy = RetryPolicy(backoff_base=1000, max_backoff=1000)

    assert repeat(Calls(status(503, asked)), policy, cancel, lambda: "GET x") == "answer"

    assert cancel.seconds == [0]


def test_a_wait_ends_with_a_cancel() -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.01, cancel.set)
    timer.start()
    slow = RetryPolicy(backoff_base=1e9, max_backoff=1e9)

    with pytest.raises(Cancelled):
        repeat(Calls(status(503)), slow, cancel, lambda: "GET x")

    timer.join()


def test_each_repetition_is_warned_about(cancel: Waits, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        repeat(Calls(ConnectionLost("cut off")), FAST, cancel, lambda: "GET x")

    [record] = caplog.records
    assert record.getMessage() == "GET x: cut off; retrying in 0.0 s"


# Patience ----------------------------------------------------------------------------------


def lose(patience: retry.ProgressRetry, error: ConcilError, position: int, times: int = 1) -> None:
    for _ in range(times):
        patience.wait_or_raise(error, position, "blob")


@pytest.fixture
def patience(cancel: Waits) -> retry.ProgressRetry:
    return retry.ProgressRetry(FAST, cancel)


def test_losses_without_progress_are_counted(patience: retry.ProgressRetry) -> None:
    lose(patience, ConnectionLost("x"), 100, 3)

    with pytest.raises(ConnectionLost, match="the fourth"):
        lose(patience, ConnectionLost("the fourth"), 100)


def test_any_progress_begins_the_count_anew(patience: retry.ProgressRetry) -> None:
    for position in range(1, 30):
        lose(patience, ConnectionLost("x"), position, 3)


def test_going_back_and_forth_is_no_progress(patience: retry.ProgressRetry) -> None:
    lose(patience, ConnectionLost("x"), 100)
    lose(patience, ConnectionLost("x"), 0)
    lose(patience, ConnectionLost("x"), 50)

    with pytest.raises(ConnectionLost):
        lose(patience, ConnectionLost("x"), 100)


@pytest.mark.parametrize("error", [status(403), DigestMismatch("x"), ProtocolViolation("x")])
def test_what_is_meant_ends_at_once(patience: retry.ProgressRetry, error: ConcilError) -> None:
    with pytest.raises(type(error)) as caught:
        lose(patience, error, 100)

    assert caught.value is error


def test_a_lost_session_is_a_loss_as_any_other(patience: retry.ProgressRetry) -> None:
    lose(patience, SessionLost("x"), 100, 3)

    with pytest.raises(SessionLost):
        lose(patience, SessionLost("x"), 100)


def test_a_body_waits_once_for_a_retry_after(cancel: Waits) -> None:
    patience = retry.ProgressRetry(RetryPolicy(backoff_base=1000), cancel)

    lose(patience, status(429, 40), 1)

    assert cancel.seconds == [0]  # the next request waits


def test_who_cancels_is_not_kept_waiting(cancel: Waits) -> None:
    patience = retry.ProgressRetry(FAST, cancel)
    cancel.set()

    with pytest.raises(Cancelled, match="blob: cancelled"):
        lose(patience, ConnectionLost("x"), 1)

    assert not cancel.seconds


def test_the_wait_is_told(cancel: Waits) -> None:
    assert retry.ProgressRetry(FAST, cancel).wait_or_raise(ConnectionLost("x"), 1, "blob") >= 0


# Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_attempts=0),
        lambda: RetryPolicy(max_lost_sessions=-1),
        lambda: RetryPolicy(backoff_base=-1),
        lambda: RetryPolicy(max_backoff=-1),
        lambda: TransferConfig(workers=-1),
        lambda: TransferConfig(helpers=-1),
        lambda: TransferConfig(concurrent_images=0),
        lambda: TransferConfig(chunk_size=0),
        lambda: TransferConfig(max_manifest_size=0),
    ],
)
def test_numbers_that_cannot_work_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_the_defaults_work() -> None:
    assert TransferConfig().retry == RetryPolicy()
    assert Timeouts().idle == 60
