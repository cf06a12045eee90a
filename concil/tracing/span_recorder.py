"""SpanRecorder: makes spans of progress events and requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import field

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from concil.progress.events import Event, State
from concil.progress.request_observer import Exchange
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS, without_user
from concil.tracing.url_template import digest_in, url_template

_MAX_WAITING = 64  # requests of a thread that wait for the span of their image or blob
_MAX_DETAIL = 300  # characters
_LISTINGS = ("/v2/_catalog", "/v2/{name}/tags/list")  # they belong to no image


@dataclass(slots=True)
class _Thread:
    """What a thread works for. Only that thread uses it."""

    spans: list[Span] = field(default_factory=list)  # of an image, and of a blob of it
    # An image or blob is announced after its first requests.
    waiting: deque[tuple[Exchange, int]] = field(default_factory=deque)

    @property
    def first_waiting(self) -> int | None:
        """When the first of these requests began, in nanoseconds since the epoch."""
        return self.waiting[0][1] if self.waiting else None

    def current(self) -> Span | None:
        """Return the innermost span that has not ended; others end in other threads."""
        while self.spans and not self.spans[-1].is_recording():
            self.spans.pop()
        return self.spans[-1] if self.spans else None


class SpanRecorder:
    """A `ProgressSink` and `RequestObserver` that makes spans. Any thread may call any method.

    A request belongs to the blob whose digest its URL names, or else to what its thread works
    for. Spans have addresses without users, digests, sizes and statuses, and no URLs.
    """

    def __init__(self, tracer: Tracer) -> None:
        """Make spans with ``tracer``."""
        self._tracer = tracer
        self._lock = threading.Lock()  # guards the dictionaries
        self._images: dict[tuple[str, str], Span] = {}  # by source and destination
        self._images_by_source: dict[str, Span] = {}
        self._blobs: dict[tuple[str, str], Span] = {}  # by digest and destination
        self._blobs_by_digest: dict[str, Span] = {}
        # By identifier, which the system uses again: so it does not grow with each new thread.
        self._threads: dict[int, _Thread] = {}
        self._local = threading.local()

    def __call__(self, event: Event, /) -> None:
        """Begin, annotate or end the span of an image or blob."""
        if event.kind == "image":
            self._record_image(event)
        elif event.kind == "blob" and event.state is not State.WAITING:
            self._record_blob(event)

    def record_request(self, exchange: Exchange) -> None:
        """Make the span of a request; those of other processes have no URL, and are left out."""
        if not exchange.url:
            return
        now = time.time_ns() - int((time.monotonic() - exchange.start_time) * 1e9)
        thread = self._thread()
        with self._lock:
            parent = self._blobs_by_digest.get(digest_in(exchange.url))
        parent = parent if parent is not None and parent.is_recording() else thread.current()
        if parent is None and url_template(exchange.url) not in _LISTINGS:
            thread.waiting.append((exchange, now))
            if len(thread.waiting) > _MAX_WAITING:
                self._add_waiting(thread, None)
            return
        self._add_request(exchange, now, parent)

    def record_retry(self, host: str) -> None:
        """Note a retry of a small request."""
        span = self._thread().current()
        if span is not None:
            span.add_event("retry", {"server.address": host})

    def record_token(self, host: str) -> None:
        """Note a token."""
        span = self._thread().current()
        if span is not None:
            span.add_event("token", {"server.address": host})

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Do nothing: quotas are metrics."""

    def close(self) -> None:
        """End the spans of what was interrupted."""
        with self._lock:
            spans = [*self._blobs.values(), *self._images.values()]
            for spans_by_name in (self._images, self._blobs):
                spans_by_name.clear()
            self._images_by_source.clear()
            self._blobs_by_digest.clear()
            threads = list(self._threads.values())
        for thread in threads:
            self._add_waiting(thread, None)
        for span in spans:
            span.set_status(Status(StatusCode.ERROR, "interrupted"))
            span.end()

    def _thread(self) -> _Thread:
        thread: _Thread | None = getattr(self._local, "thread", None)
        if thread is None:
            thread = self._local.thread = _Thread()
            with self._lock:
                before = self._threads.get(threading.get_ident())
                self._threads[threading.get_ident()] = thread
            if before is not None:
                self._add_waiting(before, None)
        return thread

    def _add_waiting(self, thread: _Thread, parent: Span | None) -> None:
        """Make the spans of requests that have waited for their image or blob."""
        while thread.waiting:
            self._add_request(*thread.waiting.popleft(), parent)

    def _start(
        self, name: str, attributes: dict[str, str | int], parent: Span | None, start: int | None
    ) -> Span:
        context = None if parent is None else trace.set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=attributes, start_time=start)

    # Images and blobs --------------------------------------------------------------

    def _record_image(self, event: Event) -> None:
        key, thread = (event.subject, event.target), self._thread()
        with self._lock:
            span = self._images.get(key)
        if span is None:
            names: dict[str, str | int] = {
                "concil.source": without_user(event.subject),
                "concil.destination": without_user(event.target),
            }
            span = self._start("copy image", names, None, thread.first_waiting)
            with self._lock:
                self._images[key] = self._images_by_source[event.subject] = span
            thread.spans.append(span)
        self._add_waiting(thread, span)
        if event.state.is_final:
            with self._lock:
                self._images.pop(key, None)
                if self._images_by_source.get(event.subject) is span:
                    del self._images_by_source[event.subject]
            _end(span, event)

    def _record_blob(self, event: Event) -> None:
        key = (event.subject, event.target)
        with self._lock:
            span = self._blobs.get(key)
            image = self._images_by_source.get(event.image)
        if span is None:
            if event.state not in (State.STARTED, State.PRESENT, State.MOUNTED, State.FAILED):
                return  # a late event of a blob that has ended
            thread = self._thread()
            names: dict[str, str | int] = {
                "concil.digest": event.subject,
                "concil.destination": without_user(event.target),
            }
            if event.total is not None:
                names["concil.size"] = event.total
            parent = image or thread.current()
            span = self._start("transfer blob", names, parent, thread.first_waiting)
            self._add_waiting(thread, span)
            with self._lock:
                self._blobs[key] = self._blobs_by_digest[event.subject] = span
            thread.spans.append(span)
        if event.state is State.STARTED and event.position:
            span.add_event("resumed", {"concil.position": event.position})
        elif event.state in (State.RETRYING, State.RESTARTING):
            detail = SECRETS.redact(event.detail)[:_MAX_DETAIL]
            span.add_event(
                str(event.state), {"concil.position": event.position, "concil.detail": detail}
            )
        elif event.state.is_final:
            with self._lock:
                self._blobs.pop(key, None)
                if self._blobs_by_digest.get(event.subject) is span:
                    del self._blobs_by_digest[event.subject]
            _end(span, event)

    # Requests ----------------------------------------------------------------------

    def _add_request(self, exchange: Exchange, start: int, parent: Span | None) -> None:
        """Make the span of a request that began at ``start``, in nanoseconds since the epoch."""
        host, _, port = (
            exchange.host.rpartition(":") if ":" in exchange.host else (exchange.host, "", "")
        )
        attributes: dict[str, str | int] = {
            "http.request.method": exchange.method,
            "server.address": host,
        }
        if port.isdecimal():
            attributes["server.port"] = int(port)
        template = url_template(exchange.url)
        if template:
            attributes["url.template"] = template
        if exchange.status is not None:
            attributes["http.response.status_code"] = exchange.status
        context = None if parent is None else trace.set_span_in_context(parent)
        span = self._tracer.start_span(
            f"{exchange.method} {template}".rstrip(),
            context,
            SpanKind.CLIENT,
            attributes,
            start_time=start,
        )
        if exchange.status is None or exchange.status >= 400:
            span.set_attribute("error.type", str(exchange.status or "no response"))
            span.set_status(Status(StatusCode.ERROR))
        span.end(start + int(exchange.seconds * 1e9))


def _end(span: Span, event: Event) -> None:
    """End the span of an image or blob."""
    span.set_attribute("concil.state", str(event.state))
    span.set_attribute("concil.bytes", event.position)
    if event.state in (State.FAILED, State.CANCELLED):
        detail = SECRETS.redact(event.detail)[:_MAX_DETAIL]
        span.set_status(Status(StatusCode.ERROR, detail))
    span.end()
