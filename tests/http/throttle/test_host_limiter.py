"""Rates, pauses and quotas of a host, for all who want to talk to it."""

from __future__ import annotations

import logging
import threading

import pytest
import requests

from concil.config import HostLimits
from concil.errors import Cancelled, QuotaExceeded
from concil.http.throttle.adaptive_rate import DECREASE_FACTOR, MIN_FIRST_RATE, RECOVERY_TIME
from concil.http.throttle.host_limiter import (
    INITIAL_PAUSE,
    MAX_BARE_503_SCORE,
    MAX_DOUBLINGS,
    HostLimiter,
)
from concil.http.throttle.host_limiters import HostLimiters
from concil.progress.events import Event, State
from tests.support.clock import Clock
from tests.support.rate_limited_front import FixedWindow, Limit, TokenBucket
from tests.transfer.transfer_setup import run_concurrently

WINDOW = "100;w=21600"


@pytest.fixture
def cancel() -> threading.Event:
    return threading.Event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, cancel: threading.Event) -> Clock:
    return Clock(monkeypatch, cancel)


def answer(status: int = 200, **headers: str) -> requests.Response:
    """Return an answer without a body."""
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


def ask(
    gate: HostLimiter,
    cancel: threading.Event,
    got: requests.Response | None = None,
    *,
    pull: bool = False,
    content: bytes = b"",
) -> None:
    """Make one request that is answered at once."""
    given = gate.acquire(cancel, is_pull=pull)
    gate.record_response(given, got if got is not None else answer(), content)


# Pauses as events --------------------------------------------------------------------------


def test_a_pause_is_one_event_for_all_who_wait(clock: Clock, cancel: threading.Event) -> None:
    events: list[Event] = []
    gate = HostLimiter("reg:5000")
    gate.progress = events.append
    permits = [gate.acquire(cancel) for _ in range(3)]
    for permit in permits:
        gate.record_response(permit, answer(429, Retry_After="30"))

    for _ in range(3):
        ask(gate, cancel)

    [event] = events
    assert event == Event(
        "host", "reg:5000", "", State.PAUSED, 0, None, "too many requests", seconds=event.seconds
    )
    assert event.seconds == pytest.approx(30, abs=1)


def test_a_quota_that_is_waited_for_is_a_pause(clock: Clock, cancel: threading.Event) -> None:
    events: list[Event] = []
    limiters = HostLimiters(progress=events.append)
    gate = limiters.limiter_for("reg:5000")
    ask(gate, cancel, answer(RateLimit_Remaining="0", RateLimit_Limit="5", RateLimit_Reset="20"))

    ask(gate, cancel)

    assert [(e.subject, e.state, e.detail) for e in events] == [
        ("reg:5000", State.PAUSED, "the quota is used up")
    ]


def test_one_warning_for_a_row_of_pauses(
    clock: Clock, cancel: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    gate = HostLimiter("reg:5000")

    with caplog.at_level(logging.WARNING):
        for status in (429, 429, 429, 200, 429):
            ask(gate, cancel, answer(status, **({"Retry_After": "30"} if status == 429 else {})))

    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "reg:5000: too many requests"
    ] * 2


# Requests at once --------------------------------------------------------------------------


def test_so_many_requests_wait_for_their_answer(cancel: threading.Event) -> None:
    gate, most, under_way, lock = HostLimiter("h", max_concurrent=3), [0], [0], threading.Lock()

    def request() -> None:
        given = gate.acquire(cancel)
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        with lock:
            under_way[0] -= 1
        gate.record_response(given, answer())

    run_concurrently(*[request] * 20)

    assert 0 < most[0] <= 3


def test_who_waits_for_others_can_be_cancelled(cancel: threading.Event) -> None:
    gate = HostLimiter("h", max_concurrent=1)
    first = gate.acquire(cancel)
    cancel.set()

    with pytest.raises(Cancelled):
        gate.acquire(cancel)

    cancel.clear()
    gate.record_response(first, None)
    gate.record_response(gate.acquire(cancel), answer())


def test_one_that_was_not_let_through_takes_no_place(cancel: threading.Event) -> None:
    gate = HostLimiter("h", max_concurrent=1)
    gate.pause(0.2)
    cancel.set()
    with pytest.raises(Cancelled):
        gate.acquire(cancel)
    cancel.clear()

    gate.record_response(gate.acquire(cancel), answer())


# A limit that somebody set -----------------------------------------------------------------


def test_requests_keep_their_distance(clock: Clock, cancel: threading.Event) -> None:
    gate, began = HostLimiter("h", 5), clock.now

    for _ in range(51):
        ask(gate, cancel)

    assert clock.now - began == pytest.approx(10, abs=0.2)
    assert max(clock.waits) <= 0.2 + 1e-6


def test_what_was_not_used_is_not_saved_up(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h", 5)
    ask(gate, cancel)
    clock.now += 3600
    began = clock.now

    for _ in range(11):
        ask(gate, cancel)

    assert clock.now - began == pytest.approx(2, abs=0.2)


def test_without_a_limit_nobody_waits(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")

    for _ in range(1000):
        ask(gate, cancel)

    assert clock.waits == []


def test_a_host_of_its_own_has_its_own_limit(clock: Clock, cancel: threading.Event) -> None:
    gates = HostLimiters(10, {"slow": HostLimits(requests=1), "unsaid": HostLimits()})

    spent = []
    for host in ("slow", "unsaid", "other"):
        began = clock.now
        for _ in range(11):
            ask(gates.limiter_for(host), cancel)
        spent.append(clock.now - began)

    assert spent == pytest.approx([10, 1, 1], abs=0.2)
    assert gates.limiter_for("slow") is gates.limiter_for("slow")


# A pause that an answer asked for ----------------------------------------------------------


def test_a_pause_is_for_everybody(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    ask(gate, cancel, answer(429, Retry_After="20"))

    gate.acquire(cancel)

    assert clock.waits == [20]


def test_a_pause_is_no_longer_than_the_configured_maximum(
    clock: Clock, cancel: threading.Event
) -> None:
    limiters = HostLimiters(max_retry_after=1)
    began = clock.now
    ask(limiters.limiter_for("h"), cancel, answer(429, Retry_After="8"))
    ask(limiters.limiter_for("h"), cancel)

    assert 1 <= clock.now - began < 2


def test_a_shorter_pause_does_not_end_a_longer_one(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    gate.pause(30)
    gate.pause(5)

    gate.acquire(cancel)

    assert clock.waits == [30]


def test_a_refusal_without_a_time_is_a_pause_too(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    paused = []

    for _ in range(MAX_DOUBLINGS + 3):
        ask(gate, cancel, answer(429))
        began = clock.now
        given = gate.acquire(cancel)
        paused.append(clock.now - began)
        gate.record_response(given, None)

    doubled = [INITIAL_PAUSE * 2**n for n in range(MAX_DOUBLINGS + 1)]
    # The next turn may come a little after the pause, at the slower rate.
    assert paused[: len(doubled)] == pytest.approx(doubled, abs=2.1)
    assert paused[-1] == pytest.approx(doubled[-1], abs=2.1)
    assert paused == sorted(paused)


def test_a_success_ends_the_doubling(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    for _ in range(5):
        ask(gate, cancel, answer(429))
    ask(gate, cancel, answer(200))
    ask(gate, cancel, answer(429))
    clock.waits.clear()

    gate.acquire(cancel)

    assert clock.waits[0] == INITIAL_PAUSE


def test_503_alone_is_nobodys_pause(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")

    ask(gate, cancel, answer(503))
    gate.acquire(cancel)

    assert clock.waits == []


def test_several_503_in_a_row_are_a_refusal(clock: Clock, cancel: threading.Event) -> None:
    """A front of nginx that limits requests answers so, and asks for no pause."""
    gate = HostLimiter("h")
    ask(gate, cancel)
    for _ in range(MAX_BARE_503_SCORE):
        ask(gate, cancel, answer(503))

    began = clock.now
    for _ in range(10):
        ask(gate, cancel)

    assert clock.waits[0] == INITIAL_PAUSE
    assert clock.now - began == pytest.approx(
        INITIAL_PAUSE + 10 / (MIN_FIRST_RATE * DECREASE_FACTOR), rel=0.3
    )


def test_a_registry_that_is_down_is_no_flood(clock: Clock, cancel: threading.Event) -> None:
    """Nobody has to wait longer and longer to be told so."""
    gate = HostLimiter("h")

    for _ in range(50):
        ask(gate, cancel, answer(503))

    assert clock.waits == []


def test_other_errors_of_a_registry_that_is_down_are_no_sign_of_life(
    clock: Clock, cancel: threading.Event
) -> None:
    gate = HostLimiter("h")

    for _ in range(20):
        for status in (502, 503, 503, 503, 504):
            ask(gate, cancel, answer(status))

    assert clock.waits == []


def test_a_503_now_and_then_is_none(clock: Clock, cancel: threading.Event) -> None:
    """One blob that cannot be had must not slow down all others."""
    gate = HostLimiter("h")

    for _ in range(20):
        ask(gate, cancel, answer(503))
        for _ in range(30):
            ask(gate, cancel)

    assert clock.waits == []


def test_what_was_under_way_together_is_one_refusal(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    together = [gate.acquire(cancel) for _ in range(30)]
    for given in together:
        gate.record_response(given, answer(429))
    clock.waits.clear()

    gate.acquire(cancel)
    began = clock.now
    for _ in range(10):
        ask(gate, cancel)

    assert clock.waits[0] == INITIAL_PAUSE
    assert clock.now - began == pytest.approx(10 / (MIN_FIRST_RATE * DECREASE_FACTOR), rel=0.3)


def test_a_turn_from_before_a_refusal_is_taken_anew(
    clock: Clock, cancel: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = HostLimiter("h", 1)
    early = gate.acquire(cancel)

    def meanwhile(seconds: float | None = None) -> bool:
        monkeypatch.setattr(cancel, "wait", clock.wait)
        gate.record_response(early, answer(429, Retry_After="50"))
        return clock.wait(seconds)

    monkeypatch.setattr(cancel, "wait", meanwhile)
    began = clock.now
    gate.acquire(cancel)

    assert clock.now - began >= 50


def test_a_pause_can_be_cancelled(cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    gate.pause(300)
    threading.Timer(0.01, cancel.set).start()

    with pytest.raises(Cancelled, match="during a pause of the requests to h"):
        gate.acquire(cancel)


# A rate that was learned -------------------------------------------------------------------


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("rate", [2, 20, 300])
@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_few_requests_are_refused_and_little_is_left_unused(
    clock: Clock, cancel: threading.Event, kind: str, rate: int, tells: bool
) -> None:
    limit: Limit = TokenBucket(rate, rate) if kind == "bucket" else FixedWindow(rate)
    gate, began, seconds = HostLimiter("h"), clock.now, 60 if rate > 100 else 300
    accepted = refused = 0
    while clock.now - began < seconds:
        given = gate.acquire(cancel)
        clock.now += 0.001  # a request takes its time
        wait = limit.ask(clock.now)
        asked = {"Retry_After": str(int(wait) + 1)} if tells and wait else {}
        gate.record_response(given, answer(429 if wait else 200, **asked))
        accepted, refused = accepted + (not wait), refused + bool(wait)

    # A host that allows 2 a second shows it by few answers: there it takes longer.
    assert refused <= (accepted + refused) * (0.03 if rate > 2 else 0.10)
    assert accepted >= seconds * rate * 0.75


def test_an_old_refusal_is_forgotten(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    ask(gate, cancel, answer(429))
    busy = clock.now
    while clock.now - busy < 6 * RECOVERY_TIME:
        ask(gate, cancel)
        clock.now += 0.01
    clock.waits.clear()

    for _ in range(1000):
        ask(gate, cancel)

    assert clock.waits == []


def test_a_quiet_hour_tells_nothing(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    ask(gate, cancel, answer(429))
    ask(gate, cancel)
    clock.now += 3600
    began = clock.now

    for _ in range(10):
        ask(gate, cancel)

    assert clock.now - began == pytest.approx(10 / (MIN_FIRST_RATE * DECREASE_FACTOR), rel=0.3)


# A quota -----------------------------------------------------------------------------------


def pulls(left: int, status: int = 200) -> requests.Response:
    """Return an answer of Docker Hub's."""
    return answer(
        status,
        RateLimit_Limit=WINDOW,
        RateLimit_Remaining=f"{left};w=21600",
        Docker_RateLimit_Source="192.0.2.1",
    )


def test_the_request_after_the_last_of_a_quota_is_not_made(
    clock: Clock, cancel: threading.Event
) -> None:
    gate = HostLimiter("docker.io")
    ask(gate, cancel, pulls(1), pull=True)
    ask(gate, cancel, pulls(0), pull=True)

    with pytest.raises(QuotaExceeded) as caught:
        ask(gate, cancel, pull=True)

    assert str(caught.value) == (
        "docker.io: the quota is used up (0 of 100 pulls in 6 h left): no further requests are sent"
    )
    assert caught.value.remedy.endswith("within 6 h")
    assert clock.waits == []


def test_what_does_not_count_goes_on(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("docker.io")
    ask(gate, cancel, pulls(0), pull=True)

    ask(gate, cancel, pulls(0))

    assert clock.waits == []


def test_renewal_is_seen_by_what_does_not_count(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("docker.io")
    ask(gate, cancel, pulls(0), pull=True)
    with pytest.raises(QuotaExceeded):
        gate.acquire(cancel, is_pull=True)

    ask(gate, cancel, pulls(100))

    ask(gate, cancel, pulls(99), pull=True)


def test_an_answer_that_many_have_overtaken_is_no_renewal(
    clock: Clock, cancel: threading.Event
) -> None:
    gate = HostLimiter("docker.io")
    slow = gate.acquire(cancel)  # a HEAD, answered when five were left
    for left in (4, 3, 2, 1, 0):
        ask(gate, cancel, pulls(left), pull=True)

    gate.record_response(slow, pulls(5))

    with pytest.raises(QuotaExceeded):
        gate.acquire(cancel, is_pull=True)


def test_a_spent_quota_is_tried_again_in_a_while(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("docker.io")
    ask(gate, cancel, answer(429), pull=True, content=b"You have reached your pull rate limit.")
    with pytest.raises(QuotaExceeded, match=r"docker\.io"):
        gate.acquire(cancel, is_pull=True)
    ask(gate, cancel)  # a HEAD

    clock.now += 301

    ask(gate, cancel, pull=True)
    assert clock.waits == []


def test_a_known_renewal_is_told_and_waited_for_by_nobody(
    clock: Clock, cancel: threading.Event
) -> None:
    gate = HostLimiter("h")
    ask(gate, cancel, answer(RateLimit_Remaining="0", RateLimit_Reset="7800"))

    with pytest.raises(QuotaExceeded) as caught:
        gate.acquire(cancel)

    assert caught.value.remedy.endswith("in 2 h 10 min")
    clock.now += 7801
    gate.acquire(cancel)
    assert clock.waits == []


def test_a_short_quota_is_waited_for(clock: Clock, cancel: threading.Event) -> None:
    gate = HostLimiter("h")
    ask(gate, cancel, answer(RateLimit_Remaining="0", RateLimit_Reset="30"))

    gate.acquire(cancel)

    assert sum(clock.waits) == pytest.approx(30)


def test_no_more_are_under_way_than_are_left(cancel: threading.Event) -> None:
    gate, lock = HostLimiter("docker.io"), threading.Lock()
    left, refused, failed = [8], [0], [0]
    ask(gate, cancel, pulls(8))

    def pull() -> None:
        try:
            given = gate.acquire(cancel, is_pull=True)
        except QuotaExceeded:
            with lock:
                failed[0] += 1
            return
        with lock:
            refused[0] += left[0] == 0
            left[0] = max(0, left[0] - 1)
            told = left[0]
        gate.record_response(given, pulls(told))

    run_concurrently(*[pull] * 20)

    assert (left, refused, failed) == ([0], [0], [12])


def test_a_low_quota_is_told_once(
    clock: Clock, cancel: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    gate = HostLimiter("docker.io")
    with caplog.at_level(logging.WARNING, "concil"):
        for left in (50, 11, 10, 9, 8):
            ask(gate, cancel, pulls(left), pull=True)

    assert caplog.messages == ["docker.io: 10 of 100 pulls in 6 h left"]
