"""MetricsCollector: counts what mirrors do, and renders it for Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from concil.metrics.bounded_labels import BoundedLabels, status_label
from concil.metrics.values import MetricValues
from concil.oci.reference import display_host
from concil.plan.rule import Rule
from concil.progress.events import Event
from concil.progress.request_observer import Exchange
from concil.runtime.forking import register_after_fork
from concil.transfer.mirror.report import Outcome

MAX_HOSTS = 64  # that have values of their own; redirects lead wherever a registry says
RESULTS = ("success", "partial", "failed", "cancelled")


class MetricsCollector:
    """Counts progress events, requests, and outcomes of runs. Any thread may call any method.

    It is a `ProgressSink` and a `RequestObserver`. It lives as long as its process, over all runs
    of a service; its memory is bounded by the plan.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        count_resumable: Callable[[], int] | None = None,
    ) -> None:
        """Start with nothing.

        Args:
            clock: seconds since the epoch.
            count_resumable: returns the number of transfers that can be resumed; called when the
                metrics are rendered.
        """
        self._clock = clock
        self.count_resumable = count_resumable
        self._lock = threading.Lock()  # guards the fields below
        self._values = MetricValues(clock)
        self._hosts = BoundedLabels(MAX_HOSTS)
        register_after_fork(self, MetricsCollector._after_fork)

    def _after_fork(self) -> None:
        """Replace the lock in a forked child: the parent's threads may hold it."""
        self._lock = threading.Lock()

    # Events and requests -----------------------------------------------------------

    def __call__(self, event: Event, /) -> None:
        """Count a progress event."""
        with self._lock:
            if event.kind == "blob":
                self._values.blobs.record(event)
            elif event.kind == "host":
                host = self._hosts.bound(event.subject)
                self._values.pauses[host] += 1
                self._values.pause_seconds[host] += event.seconds or 0.0
            elif event.state.is_final:
                self._values.running_images.discard((event.subject, event.target))
            else:
                self._values.running_images.add((event.subject, event.target))

    def record_request(self, exchange: Exchange) -> None:
        """Count a request. See `RequestObserver`."""
        with self._lock:
            host = self._hosts.bound(exchange.host)
            self._values.requests[host, status_label(exchange.status)] += 1
            self._values.request_seconds[host] += exchange.seconds

    def record_retry(self, host: str) -> None:
        """Count a retry of a small request. See `RequestObserver`."""
        with self._lock:
            self._values.request_retries[self._hosts.bound(display_host(host))] += 1

    def record_token(self, host: str) -> None:
        """Count a token. See `RequestObserver`."""
        with self._lock:
            self._values.tokens[self._hosts.bound(display_host(host))] += 1

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Keep the last quota of a host. See `RequestObserver`."""
        with self._lock:
            self._values.quotas[self._hosts.bound(host)] = remaining, limit

    # Runs --------------------------------------------------------------------------

    def restore(self, last_success: Mapping[str, float]) -> None:
        """Take over what an earlier process has stored: seconds since the epoch, by entry."""
        with self._lock:
            self._values.images.last_success = dict(last_success)

    def last_success(self) -> dict[str, float]:
        """Return when all images of an entry were last in place, in seconds since the epoch."""
        with self._lock:
            return dict(self._values.images.last_success)

    def begin_run(self, rules: Iterable[Rule], *, is_complete: bool) -> None:
        """Begin a run.

        Args:
            rules: the entries of the plan.
            is_complete: it is one of the whole plan; False: of images that failed.
        """
        with self._lock:
            self._values.run_began = self._clock()
            self._values.images.begin_run(rules, is_complete=is_complete)

    def record_outcome(self, outcome: Outcome) -> None:
        """Count an image."""
        with self._lock:
            self._values.outcomes[self._values.images.record(outcome)] += 1

    def record_listing_failure(self, source: str) -> None:
        """Record that an entry could not be listed; ``source`` is that of its rule."""
        with self._lock:
            self._values.images.record_listing_failure(source)

    def end_run(self, result: str, *, is_complete: bool) -> None:
        """End a run.

        Args:
            result: one of `RESULTS`: "partial" if some images failed, "failed" if the run could
                not begin or go on.
            is_complete: it was one of the whole plan.
        """
        with self._lock:
            self._values.images.end_run(has_ended=result in ("success", "partial"))
            self._values.blobs.end_run()
            self._values.running_images.clear()
            if is_complete:
                self._values.runs[result] += 1
                self._values.last_run_ended = self._clock()
                seconds = self._values.last_run_ended - (self._values.run_began or 0.0)
                self._values.last_run_seconds = max(0.0, seconds)  # the clock may be set back
            else:
                self._values.retry_runs += 1
            self._values.run_began = None

    def record_notification(self, event: str, *, is_delivered: bool) -> None:
        """Count a notification: "failure", "recovery", "new" or "quota"."""
        with self._lock:
            self._values.notifications[event, "delivered" if is_delivered else "failed"] += 1

    # Text --------------------------------------------------------------------------

    def render(self) -> bytes:
        """Return all metrics as OpenMetrics text, in UTF-8.

        Its content type is `OPENMETRICS_TYPE` of `concil.metrics.exposition`.

        Raises:
            UsageError: prometheus-client is not installed.
        """
        return self._render(is_openmetrics=True)

    def render_text(self) -> bytes:
        """Return all metrics in the text format of Prometheus, which node_exporter reads.

        Raises:
            UsageError: prometheus-client is not installed.
        """
        return self._render(is_openmetrics=False)

    def _render(self, *, is_openmetrics: bool) -> bytes:
        from concil.metrics.exposition import render  # noqa: PLC0415  # an extra

        resumable = None if self.count_resumable is None else self.count_resumable()
        with self._lock:
            return render(self._values, resumable, is_openmetrics=is_openmetrics)
