"""Messages for all open live pages: each is made once, at most one a second."""

from __future__ import annotations

import threading
import time
from collections import deque

from concil.report.html.render import embed_json
from concil.runtime.dataclass import dataclass
from concil.service.service_status import ServiceSnapshot
from concil.web.live_documents import (
    Document,
    image_columns,
    progress_document,
    service_document,
)
from concil.web.live_mirror import LiveMirror

INTERVAL = 1.0  # seconds between two messages
_MAX_RECORDS = 1000  # of each kind in a message
_MAX_KEPT = 60  # messages, for pages that reconnect
_MAX_KEPT_BYTES = 2 << 20
_STALE = 5.0  # seconds without a reader after which changes are not followed any more


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the stream."""

    number: int
    # A state is all there is; an update has what has changed since the message before, and so has
    # a run, but all of its transfers: it is another one.
    event: str
    data: bytes  # JSON in one line


@dataclass(slots=True)
class _Position:
    """What the last message had."""

    run: int
    timeline: int  # version
    images: int  # version
    service: int  # version
    is_running: bool


class PageFeed:
    """The messages for the open pages. Thread-safe.

    All pages get the same messages. A page that is new, or too far behind, gets the whole state,
    and updates from there.
    """

    def __init__(
        self, live: LiveMirror, *, can_run: bool = False, interval: float | None = None
    ) -> None:
        """Create it without messages.

        Args:
            can_run: the page may let a run begin.
        """
        self._live = live
        self._can_run = can_run
        self.interval = INTERVAL if interval is None else interval  # seconds
        self._lock = threading.Lock()  # guards the fields below
        self._last_number = 0
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._position: _Position | None = None
        self._state: Message | None = None  # the whole state, as of its number
        self._state_made = 0.0  # monotonic seconds
        self._last_look = 0.0  # monotonic seconds

    def after(self, number: int | None) -> list[Message]:
        """Return the messages after a number; None: a new reader.

        Returns:
            Updates, or the whole state. Call it again after `interval` seconds.
        """
        with self._lock:
            self._look()
            if number is not None and self._has_all_after(number):
                return [message for message in self._kept if message.number > number]
            return [self._whole_state()]

    def _has_all_after(self, number: int) -> bool:
        first = self._kept[0].number if self._kept else self._last_number + 1
        return first - 1 <= number <= self._last_number

    def _look(self) -> None:
        """Make a message if it is time and something has changed."""
        now = time.monotonic()
        elapsed = now - self._last_look
        if elapsed < self.interval:
            return
        self._last_look = now
        if self._position is None or elapsed > self.interval + _STALE:
            self._forget()  # nobody has read what happened since
            return
        changes = self._changes(self._position)
        if changes is None:
            return
        event, document = changes
        self._last_number += 1
        self._state = None
        message = Message(self._last_number, event, _encode(document))
        if event == "state":
            self._forget_kept()
            self._set_state(message)
        self._kept.append(message)
        self._kept_bytes += len(message.data)
        while len(self._kept) > _MAX_KEPT or self._kept_bytes > _MAX_KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft().data)

    def _forget(self) -> None:
        self._forget_kept()
        self._position, self._state = None, None
        self._last_number += 1

    def _forget_kept(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    def _whole_state(self) -> Message:
        """Return the whole state; it is made once for all readers that need it."""
        # Times in it are relative to when it was made.
        if self._state is None or time.monotonic() - self._state_made > self.interval:
            is_first = self._position is None
            document, position = self._build_state()
            if is_first:
                self._position = position
            self._set_state(Message(self._last_number, "state", _encode(document)))
        assert self._state is not None  # noqa: S101 - for the type checker
        return self._state

    def _set_state(self, message: Message) -> None:
        self._state, self._state_made = message, time.monotonic()

    def _build_state(self) -> tuple[Document, _Position]:
        live = self._live
        observed = live.observed
        snapshot = live.status.snapshot()
        images, image_version = live.status.images()
        report, version = observed.timeline.live_document(live.names.title)
        document: Document = {
            "report": report,
            "service": self._service(snapshot),
            "progress": progress_document(live),
            "ages": image_columns(images),
        }
        position = _Position(
            observed.number,
            version,
            image_version,
            snapshot.version,
            snapshot.run is not None,
        )
        return document, position

    def _service(self, snapshot: ServiceSnapshot) -> Document:
        return {**service_document(self._live, snapshot), "canRun": self._can_run}

    def _changes(self, position: _Position) -> tuple[str, Document] | None:
        """Return what has changed as an event, and move the position; None: nothing has."""
        live = self._live
        observed = live.observed
        # Before the records: once no run goes on, they do not change any more.
        snapshot = live.status.snapshot()
        images = live.status.images_since(position.images, _MAX_RECORDS)
        if images is None:
            document, self._position = self._build_state()
            return "state", document
        is_same_run = observed.number == position.run
        changes = (
            observed.timeline.changes_since(position.timeline, _MAX_RECORDS)
            if is_same_run
            else None
        )
        has_changed = (
            changes is None
            or changes.version != position.timeline
            or images.version != position.images
            or snapshot.version != position.service
        )
        if not (has_changed or position.is_running):
            return None
        service = self._service(snapshot)
        if snapshot.version == position.service:
            del service["runs"], service["failedListings"]
        document = {
            "service": service,
            "progress": progress_document(live),
            "ages": image_columns([image for _, image in images.records]),
            "removedAges": images.removed,
        }
        if changes is None:
            document["report"], version = observed.timeline.live_document(live.names.title)
        else:
            document["changes"], version = changes.document, changes.version
            document["removed"] = changes.removed
        self._position = _Position(
            observed.number, version, images.version, snapshot.version, snapshot.run is not None
        )
        return "run" if changes is None else "update", document


def _encode(document: Document) -> bytes:
    return embed_json(document).encode("ascii")
