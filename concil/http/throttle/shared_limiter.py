"""Limiter of one host for one of several processes of a run."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from concil.http.throttle.host_limiter import HostLimiter, Permit
from concil.http.throttle.host_limiters import CreateLimiter
from concil.http.throttle.ratelimit_headers import ResponseSummary
from concil.runtime.parent_process import ParentProcess


class SharedHostLimiter(HostLimiter):
    """Limiter that leaves every decision to the parent once the host limits requests.

    The parent's limiter then counts the requests of all processes. As long as a host sets no
    limit, its requests need no message to the parent.
    """

    def __init__(self, parent: ParentProcess, host: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of `HostLimiter`
        """Use the limits of this process; the parent has those of the run, and reports pauses."""
        super().__init__(host, *args, **options)
        self._name = host
        self._parent = parent

    def reserve(self, now: float, *, is_pull: bool) -> tuple[Permit | None, float]:
        """Reserve the next request. Raises and returns as `HostLimiter.reserve`."""
        if not self.is_limiting:
            return super().reserve(now, is_pull=is_pull)
        reserved: tuple[Permit | None, float] = self._call("reserve", is_pull=is_pull)
        return reserved

    def confirm(self, permit: Permit, *, is_cancelled: bool) -> bool:
        """Return whether a permit may be used after a wait. See `HostLimiter.confirm`."""
        return bool(self._call("confirm", permit, is_cancelled=is_cancelled))

    def record(self, permit: Permit, summary: ResponseSummary | None) -> None:
        """Return a permit and adjust the limits to a response."""
        if not self.is_limiting and (summary is None or not summary.is_limiting):
            super().record(permit, summary)
            return
        with self._lock:
            successes = self._adaptive_rate.success_count(time.monotonic())
        self.is_limiting = True
        self._parent.post("record_response", self._name, permit, summary, successes)

    def may_pull_unannounced(self, *, is_single: bool) -> bool:
        """Return whether a GET of a manifest needs no HEAD before. See `HostLimiter`."""
        if not self.is_limiting:
            return super().may_pull_unannounced(is_single=is_single)
        return bool(self._call("may_pull_unannounced", is_single=is_single))

    def pause(self, seconds: float) -> None:
        """Send no request from any process for ``seconds``."""
        self.is_limiting = True
        self._call("pause", seconds)

    def _call(self, method: str, *arguments: object, **options: bool) -> Any:  # noqa: ANN401 - as the method returns
        return self._parent.call("host_limiter", self._name, method, arguments, options)


def share_limiters(parent: ParentProcess) -> CreateLimiter:
    """Return the function that creates the limiters of one process."""
    return partial(SharedHostLimiter, parent)
