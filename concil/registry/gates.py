"""What stands before every request to a host: its rate, its pause, its quota; for all threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import requests

from concil.config import HostLimits
from concil.errors import Cancelled
from concil.pace import Schedule
from concil.reference import written
from concil.registry import quota
from concil.registry.allowance import Allowance
from concil.registry.failures import retry_after
from concil.registry.learned import LearnedRate

logger = logging.getLogger(__name__)

PAUSE = 0.5  # seconds after a refusal that asks for none; doubled until a request is accepted
MOST_DOUBLINGS = 6
# A 503 that asks for no pause may be one broken blob, a registry that is down, or a front of
# nginx that has had enough: so many are a refusal while others are accepted, in so many seconds
# before, and each answer of another kind takes a part of one away.
BARE = 3
LATELY = 2.0
_FORGIVEN = 0.05
_BUSY = frozenset({429, 503})
_GLANCE = 0.2  # seconds between looks whether somebody has cancelled


@dataclass(frozen=True, slots=True)
class Pass:
    """One request that was let through; `Gate.leave` wants it back."""

    refusals: int  # that the gate knew of: a refusal of an older request tells nothing new
    counts: bool  # in the host's quota
    number: int = 0  # in the order in which they were given


class Gate:
    """The gate of one host. Any thread may call any method.

    A pause belongs to the answer that asked for it, and is everybody's. After it they do
    not come all at once: a rate was learned from the refusal.
    """

    def __init__(self, host: str, limit: float | None = None, at_once: int | None = None) -> None:
        """Let requests through.

        Args:
            limit: how many a second; None: as many as come.
            at_once: how many may wait for their answer; None: as many as come.
        """
        self._host = host
        self._places = None if at_once is None else threading.Semaphore(at_once)
        self._lock = threading.Lock()  # guards all below
        self._fixed = None if limit is None else Schedule(limit)
        self._learned = LearnedRate()
        self._allowance = Allowance(host)
        self._until = 0.0  # monotonic seconds; nobody passes before
        self._refusals = 0
        self._row = 0  # refusals since a request was accepted
        self._given = 0  # passes
        self._told = 0  # of these: when an answer told of a quota
        self._bare = 0.0  # 503s that asked for no pause, lately
        self._fine = -LATELY  # monotonic seconds of the last answer that is no trouble

    def enter(self, cancel: threading.Event, *, pull: bool = False) -> Pass:
        """Wait until the next request may go; whoever waits holds nothing.

        Args:
            pull: it is a GET of a manifest.
        Raises:
            QuotaExceeded: it would be refused, and for longer than anybody should wait.
            Cancelled: somebody cancelled meanwhile.
        """
        if self._places is None:
            return self._admitted(cancel, pull=pull)
        while not self._places.acquire(timeout=_GLANCE):
            if cancel.is_set():
                raise self._cancelled()
        try:
            return self._admitted(cancel, pull=pull)
        except BaseException:
            self._places.release()
            raise

    def _admitted(self, cancel: threading.Event, *, pull: bool) -> Pass:
        """Wait for a turn. As `enter`."""
        while True:
            now = time.monotonic()
            with self._lock:
                given, due = self._ask(now, pull=pull)
            if given is not None and due <= now:
                return given
            cancelled = cancel.wait(due - now)
            with self._lock:
                if given is not None:
                    # A turn from before a refusal is none: it is taken anew behind the pause.
                    good = given.refusals == self._refusals and self._until <= time.monotonic()
                    if good and not cancelled:
                        return given
                    self._allowance.flying -= given.counts
            if cancelled:
                raise self._cancelled()

    def leave(self, given: Pass, response: requests.Response | None, content: bytes = b"") -> None:
        """Take note of an answer.

        Args:
            response: None: there was none.
            content: the body of a 429.
        """
        if self._places is not None:
            self._places.release()
        now = time.monotonic()
        with self._lock:
            self._allowance.flying -= given.counts
            if response is None:
                return
            status, told = response.status_code, quota.read(response.headers)
            if quota.is_spent(status, response.headers, content):
                self._allowance.spend(told, now)
                return
            if told is not None:
                self._allowance.note(told, now, late=given.number <= self._told)
                self._told = self._given
            asked = retry_after(response) if status in _BUSY else None
            flood = asked is None and self._is_flood(status, given, now)
            if status == requests.codes.too_many or asked is not None or flood:
                self._refuse(given, asked, now)
            elif given.refusals == self._refusals and status not in _BUSY:
                self._row = 0
                self._learned.accepted(now)

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so long; a longer pause stays."""
        with self._lock:
            self._pause(seconds, time.monotonic())

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"cancelled while {self._host} was to be left alone")

    def _ask(self, now: float, *, pull: bool) -> tuple[Pass | None, float]:
        """A pass and when it is good, or none and when to ask again. The caller holds the lock."""
        if self._until > now:
            return None, self._until
        counts = self._allowance.counts(pull=pull)
        wait = self._allowance.look(now) if counts else 0.0
        if wait > 0:
            return None, now + wait
        self._allowance.flying += counts
        turn = self._learned.reserve(now)
        if self._fixed is not None:
            turn = max(turn, self._fixed.reserve(1, now))
        self._given += 1
        return Pass(self._refusals, counts, self._given), turn

    def _is_flood(self, status: int, given: Pass, now: float) -> bool:
        """Whether an answer is one 503 too many. The caller holds the lock."""
        if status != requests.codes.unavailable:
            self._bare = max(0.0, self._bare - _FORGIVEN)
            if status < requests.codes.server_error and status != requests.codes.too_many:
                self._fine = now
            return False
        if given.refusals == self._refusals:  # else it was under way with the last of a flood
            self._bare = min(BARE, self._bare + 1)
        return self._bare >= BARE and now - self._fine < LATELY

    def _pause(self, seconds: float, now: float) -> None:
        """Let nobody pass for so long. The caller holds the lock."""
        self._until = max(self._until, now + seconds)

    def _refuse(self, given: Pass, asked: float | None, now: float) -> None:
        """Pause, and slow down, once for all that was under way together. As above."""
        if asked is not None:
            self._pause(asked, now)
        if given.refusals != self._refusals:
            return
        self._refusals += 1
        if asked is None:
            asked = PAUSE * 2 ** min(self._row, MOST_DOUBLINGS)
            self._pause(asked, now)
        self._row += 1
        rate = self._learned.refused(now)
        logger.info("%s: too many requests; in %.1f s on with %.1f/s", self._host, asked, rate)


class Gates:
    """The gates of all hosts of a run. Any thread may call any method."""

    def __init__(
        self, every: float | None = None, own: Mapping[str, HostLimits] | None = None
    ) -> None:
        """Make a gate for each host that is asked for.

        Args:
            every: requests a second to each host; None: as many as come.
            own: limits of single hosts, by the host[:port] that serves the API.
        """
        self._every = every
        self._own = own or {}
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()  # guards _gates

    def of(self, host: str) -> Gate:
        """The gate of a host[:port]."""
        gate = self._gates.get(host)
        if gate is None:
            own = self._own.get(host, HostLimits())
            limit = self._every if own.requests is None else own.requests
            with self._lock:
                gate = self._gates.setdefault(host, Gate(written(host), limit, own.jobs))
        return gate
