"""The limiters of all hosts of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from concil.config import HostLimits
from concil.http.throttle.host_limiter import MAX_RETRY_AFTER, HostLimiter
from concil.progress.events import ProgressSink
from concil.progress.request_observer import RequestObserver

CreateLimiter: TypeAlias = "Callable[..., HostLimiter]"  # with the arguments of `HostLimiter`


class HostLimiters:
    """The limiters of all hosts of a run. Any thread may call any method."""

    def __init__(
        self,
        requests_per_second: float | None = None,
        host_limits: Mapping[str, HostLimits] | None = None,
        max_retry_after: float = MAX_RETRY_AFTER,
        *,
        create_limiter: CreateLimiter | None = None,
        progress: ProgressSink | None = None,
    ) -> None:
        """Set the limits; a host's limiter is created on first use.

        Args:
            requests_per_second: for each host; None for no fixed rate.
            host_limits: limits of single hosts, by the host[:port] that serves the API.
            max_retry_after: seconds; longest pause for a Retry-After header.
            create_limiter: creates the limiters; None for those of a single process.
            progress: receives an event for each pause of a host.
        """
        self._progress = progress
        # Receives each request, token and quota; set before the first request.
        self.observer: RequestObserver | None = None
        self._max_retry_after = max_retry_after
        self._requests_per_second = requests_per_second
        self._host_limits = host_limits or {}
        self._create_limiter: CreateLimiter = create_limiter or HostLimiter
        self._limiters: dict[str, HostLimiter] = {}
        self._on_limiting: Callable[[str], object] | None = None
        self._lock = threading.Lock()  # guards _limiters

    def limiter_for(self, host: str) -> HostLimiter:
        """Return the limiter of a host[:port]."""
        limiter = self._limiters.get(host)
        if limiter is None:
            host_limits = self._host_limits.get(host, HostLimits())
            requests_per_second = (
                self._requests_per_second if host_limits.requests is None else host_limits.requests
            )
            limiter = self._create_limiter(
                host,
                requests_per_second,
                host_limits.jobs,
                self._max_retry_after,
            )
            limiter.progress = self._progress
            limiter.on_limiting = partial(self._report_limiting, host)
            if self.observer is not None:
                limiter.on_quota = self.observer.record_quota
            with self._lock:
                limiter = self._limiters.setdefault(host, limiter)
        return limiter

    def watch(self, on_limiting: Callable[[str], object] | None) -> list[str]:
        """Call ``on_limiting`` with each host that starts to limit requests; None: no longer.

        Returns:
            The hosts that limit requests so far.
        """
        with self._lock:
            self._on_limiting = on_limiting
            return [host for host, limiter in self._limiters.items() if limiter.is_limiting]

    def _report_limiting(self, host: str) -> None:
        on_limiting = self._on_limiting
        if on_limiting is not None:
            on_limiting(host)
