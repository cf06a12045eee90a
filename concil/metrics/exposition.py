"""Renders the metrics as text; the only importer of prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from concil import __version__
from concil.errors import UsageError
from concil.metrics.plan_images import STATES
from concil.metrics.values import MetricValues

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, exposition
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.openmetrics import exposition as openmetrics
except ImportError as import_error:
    raise UsageError(
        "metrics need the package prometheus-client", remedy="type: pip install 'concil[service]'"
    ) from import_error

OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST
_Values: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"


def render(values: MetricValues, resumable: int | None, *, is_openmetrics: bool) -> bytes:
    """Return the text; the caller holds the collector's lock.

    Args:
        resumable: transfers that can be resumed; None: not known.
        is_openmetrics: False for the text format of Prometheus.
    """
    registry = CollectorRegistry()
    registry.register(_Families(values, resumable))
    ProcessCollector(namespace="concil", registry=registry)
    write: Callable[[CollectorRegistry], bytes] = (
        openmetrics.generate_latest if is_openmetrics else exposition.generate_latest
    )
    return write(registry)


class _Families:
    """What the library calls a collector: it yields the families of metrics."""

    def __init__(self, values: MetricValues, resumable: int | None) -> None:
        self._all = values
        self._resumable = resumable

    def describe(self) -> list[Metric]:
        """Return nothing: otherwise the library collects everything once more."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield _gauge("build_info", "Always 1.", ("version",), [((__version__,), 1)])
        yield from self._images()
        yield from self._runs()
        yield from self._bytes()
        yield from self._requests()
        yield from self._queues()
        yield _counter(
            "notifications",
            "Notifications, by event and whether they were delivered.",
            ("event", "result"),
            self._all.notifications.items(),
        )

    def _images(self) -> Iterator[Metric]:
        images = self._all.images
        counts = [
            ((entry, state), counter[state])
            for entry, counter in images.counts().items()
            for state in STATES
        ]
        yield _gauge(
            "images",
            "Images by entry of the plan and by what became of them in the last run.",
            ("entry", "state"),
            counts,
        )
        yield _counter(
            "image_outcomes",
            "Images of all runs by entry of the plan and by what became of them.",
            ("entry", "state"),
            self._all.outcomes.items(),
        )
        yield _gauge(
            "last_success_timestamp_seconds",
            "When all images of an entry were last in place.",
            ("entry",),
            _one_label(images.last_success),
        )

    def _runs(self) -> Iterator[Metric]:
        current = self._all
        yield _counter("runs", "Runs of the whole plan.", ("result",), _one_label(current.runs))
        yield _counter("retry_runs", "Runs for images that failed.", (), [((), current.retry_runs)])
        yield _gauge(
            "run_in_progress",
            "Whether a run is under way.",
            (),
            [((), current.run_began is not None)],
        )
        ended = current.last_run_ended
        yield _gauge(
            "last_run_timestamp_seconds",
            "When the last run of the whole plan ended.",
            (),
            [((), ended)] if ended else [],
        )
        yield _gauge(
            "last_run_duration_seconds",
            "How long the last run of the whole plan took.",
            (),
            [((), current.last_run_seconds)] if ended else [],
        )

    def _bytes(self) -> Iterator[Metric]:
        blobs = self._all.blobs
        for name, text, value in (
            ("moved_bytes", "Bytes of blobs that were moved.", blobs.moved_bytes),
            ("resent_bytes", "Bytes of these that were lost and moved again.", blobs.lost_bytes),
            ("resumed_bytes", "Bytes that an earlier run had moved.", blobs.resumed_bytes),
            ("mounted_bytes", "Bytes that mounts have saved.", blobs.mounted_bytes),
        ):
            yield _counter(name, text, (), [((), value)])
        ends = ((str(state), count) for state, count in blobs.blobs.items())
        yield _counter("blobs", "Blobs by their end.", ("state",), _one_label(dict(ends)))

    def _requests(self) -> Iterator[Metric]:
        current = self._all
        yield _counter(
            "requests",
            "Requests by host and status; none: there was no response.",
            ("host", "status"),
            current.requests.items(),
        )
        for name, text, values in (
            (
                "request_seconds",
                "Time until the heads of the responses.",
                current.request_seconds,
            ),
            ("request_retries", "Small requests that were sent again.", current.request_retries),
            ("tokens", "Tokens that were fetched.", current.tokens),
            ("pauses", "Pauses that a host asked for.", current.pauses),
            ("pause_seconds", "Length of these pauses.", current.pause_seconds),
        ):
            yield _counter(name, text, ("host",), _one_label(values))
        yield _counter(
            "blob_retries",
            "Interruptions of a blob after which it went on.",
            (),
            [((), current.blobs.retries)],
        )
        left = {host: remaining for host, (remaining, _) in current.quotas.items()}
        limits = {host: limit for host, (_, limit) in current.quotas.items() if limit is not None}
        yield _gauge("quota_remaining", "Requests left of a quota.", ("host",), _one_label(left))
        yield _gauge("quota_limit", "Requests of a quota.", ("host",), _one_label(limits))

    def _queues(self) -> Iterator[Metric]:
        blobs = self._all.blobs
        for name, text, value in (
            ("queued_blobs", "Blobs that wait for a worker.", blobs.waiting_count),
            ("running_blobs", "Blobs that are under way.", blobs.running_count),
            (
                "running_images",
                "Images that are under way.",
                len(self._all.running_images),
            ),
            ("resumable_transfers", "Transfers that can be resumed.", self._resumable),
        ):
            if value is not None:
                yield _gauge(name, text, (), [((), value)])


def _one_label(values: Mapping[str, float]) -> _Values:
    return [((label,), value) for label, value in values.items()]


def _counter(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    family = CounterMetricFamily(f"concil_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    family = GaugeMetricFamily(f"concil_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family
