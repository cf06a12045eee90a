"""What the processes of a run share, in the parent: claims, slots, limits and rejections."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from concil.auth.shared_attempts import Verdict
from concil.engine.processes.child_process import ChildProcess, Request
from concil.engine.processes.shared_claims import SharedClaims
from concil.engine.processes.shared_slots import SharedSlots
from concil.http.throttle.host_limiter import Permit
from concil.http.throttle.host_limiters import HostLimiters
from concil.http.throttle.ratelimit_headers import ResponseSummary
from concil.http.warning_header import WarningLog
from concil.ratelimit.bandwidth import BandwidthLimiter, BandwidthLimits
from concil.transfer.mirror.denied_hosts import DeniedHosts

_MAX_LOG_LINES = 1_000  # warnings that are remembered, so as not to be logged for each process


class Services:
    """Answers the calls of child processes. Any thread may call any method; none blocks."""

    def __init__(
        self,
        host_limiters: HostLimiters,
        bandwidth: BandwidthLimits,
        denied_hosts: DeniedHosts,
        warnings: WarningLog,
    ) -> None:
        """Share the limits, denied hosts and warnings of the parent's engine."""
        self._claims = SharedClaims()
        self._slots = SharedSlots()
        self._host_limiters = host_limiters
        self._bandwidth = bandwidth
        self._lock = threading.Lock()  # guards the fields below
        self._children: list[ChildProcess] = []
        self._limiting_hosts: set[str] = set()
        # Requests that count against a quota and have no response yet.
        self._counted: defaultdict[ChildProcess, Counter[str]] = defaultdict(Counter)
        self._verdicts: dict[str, list[Verdict]] = {}  # by a hash of the credentials
        self._logged: dict[tuple[int, str], ChildProcess] = {}
        self._methods: dict[str, Callable[..., object]] = {
            "claim": self._claims.claim,
            "complete": self._claims.complete,
            "release": self._claims.release,
            "forget": self._forget,
            "forget_scope": self._forget_scope,
            "release_slot": self._release_slot,
            "host_limiter": self._call_limiter,
            "record_response": self._record_response,
            "reserve_bytes": self._reserve_bytes,
            "release_bytes": self._release_bytes,
            "verdicts": self._find_verdicts,
            "record_verdict": self._record_verdict,
            "record_denied_host": lambda _, host, error: denied_hosts.record_host(host, error),
            "add_warning": lambda _, warning: warnings.add(warning),
            "log": self._log,
            "observe": self._observe,
        }
        self._limiting_hosts.update(host_limiters.watch(self._announce_limiting))

    def close(self) -> None:
        """Stop watching the limits of the parent's engine."""
        self._host_limiters.watch(None)

    def add(self, child: ChildProcess) -> None:
        """Serve a child process."""
        with self._lock:
            self._children.append(child)
            hosts = list(self._limiting_hosts)
        for host in hosts:
            child.notify("limiting", host)

    def remove(self, child: ChildProcess) -> None:
        """Release everything that a child process held when it ended."""
        with self._lock:
            self._children.remove(child)
            counted = self._counted.pop(child, Counter())
        self._claims.release_all(child)
        self._slots.release_all(child)
        for host, count in counted.items():
            for _ in range(count):
                self._host_limiters.limiter_for(host).record(Permit(0, is_counted=True), None)

    def handle(self, child: ChildProcess, request: Request) -> None:
        """Answer a call of a child process."""
        if request.method == "acquire":
            name, limit = request.arguments
            self._slots.acquire(name, limit, (child, request.number or 0), request.reply)
            return
        try:
            result = self._methods[request.method](child, *request.arguments)
        except Exception as error:  # noqa: BLE001 - raised by the caller in the child process
            request.fail(error)
        else:
            request.reply(result)

    def _others(self, child: ChildProcess) -> list[ChildProcess]:
        with self._lock:
            return [other for other in self._children if other is not child]

    # Claims and slots --------------------------------------------------------------

    def _forget(self, child: ChildProcess, key: Hashable) -> None:
        self._claims.forget(key)
        for other in self._others(child):
            other.notify("forget", key)

    def _forget_scope(self, child: ChildProcess, scope: str) -> None:
        self._claims.forget_scope(scope)
        for other in self._others(child):
            other.notify("forget_scope", scope)

    def _release_slot(self, child: ChildProcess, name: str, number: int) -> None:
        self._slots.release(name, (child, number))

    # Limits ------------------------------------------------------------------------

    def _announce_limiting(self, host: str) -> None:
        """Let all processes ask the parent before they send a request to a host."""
        with self._lock:
            self._limiting_hosts.add(host)
            children = list(self._children)
        for child in children:
            child.notify("limiting", host)

    def _call_limiter(
        self,
        child: ChildProcess,
        host: str,
        method: str,
        arguments: Sequence[Any],
        options: dict[str, bool],
    ) -> object:
        """Call a method of a host's limiter; `reserve` at the current time."""
        limiter = self._host_limiters.limiter_for(host)
        if method == "reserve":
            permit, start_time = limiter.reserve(time.monotonic(), **options)
            if permit is not None:
                self._count(child, host, permit, 1)
            return permit, start_time
        if method == "confirm":
            is_confirmed = limiter.confirm(arguments[0], **options)
            if not is_confirmed:
                self._count(child, host, arguments[0], -1)
            return is_confirmed
        if method == "pause":
            self._announce_limiting(host)
            limiter.pause(*arguments)
            return None
        return limiter.may_pull_unannounced(**options)

    def _record_response(
        self,
        child: ChildProcess,
        host: str,
        permit: Permit,
        summary: ResponseSummary | None,
        successes: int,
    ) -> None:
        """Record a response. Before the first one, the other processes sent as many requests.

        Args:
            successes: accepted requests of this process in the last second.
        """
        limiter = self._host_limiters.limiter_for(host)
        if not limiter.is_limiting:
            limiter.add_successes(successes * (1 + len(self._others(child))))
        self._count(child, host, permit, -1)
        limiter.record(permit, summary)

    def _count(self, child: ChildProcess, host: str, permit: Permit, change: int) -> None:
        if permit.is_counted:
            with self._lock:
                self._counted[child][host] += change

    def _limiter(self, host: str) -> BandwidthLimiter:
        limiter = self._bandwidth.limiter_for(host)
        if limiter is None:
            raise LookupError(host)
        return limiter

    def _reserve_bytes(self, _child: ChildProcess, host: str, count: int, now: float) -> float:
        return self._limiter(host).reserve(count, now)

    def _release_bytes(self, _child: ChildProcess, host: str, count: int) -> None:
        self._limiter(host).release(count)

    def _observe(self, _child: ChildProcess, method: str, *arguments: Any) -> None:  # noqa: ANN401
        """Pass what a child process has observed on to the observer of the engine."""
        observer = self._host_limiters.observer
        if observer is not None:
            getattr(observer, method)(*arguments)

    # Credentials and messages ------------------------------------------------------

    def _find_verdicts(self, _child: ChildProcess, key: str) -> list[Verdict]:
        with self._lock:
            return list(self._verdicts.get(key, ()))

    def _record_verdict(self, _child: ChildProcess, key: str, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts.setdefault(key, []).append(verdict)

    def _log(self, child: ChildProcess, name: str, level: int, text: str) -> None:
        """Log a message; a warning of several processes only once."""
        if level >= logging.WARNING:
            with self._lock:
                first = self._logged.setdefault((level, text), child)
                if len(self._logged) > _MAX_LOG_LINES:
                    self._logged.clear()
            if first is not child:
                return
        logger = logging.getLogger(name)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", text)
