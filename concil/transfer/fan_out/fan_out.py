"""FanOut: the blobs of one source, read once for several destinations."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable

from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.transfer.fan_out.shared_blob import LaneState, SharedBlob
from concil.transfer.fan_out.shared_image import ManifestMemory, SharedImage
from concil.transfer.fan_out.spool import Spool

_STALL_TIME = 30.0  # seconds without a byte after which no lane waits for another one
_GAP_TIME = 5.0  # seconds that a lane may take from one blob to the next one
# Seconds that a lane waits for one slot: registries close connections that are silent for longer.
_MAX_WAIT = 15.0
_MIN_INTERVAL = 0.01  # seconds between two looks for a slot


class FanOut:
    """Shares the blobs of a source among lanes. Any thread may call any method.

    A lane reads each blob at most once: all destinations in one registry, which mounts blobs from
    one repository into another, or one local store. A lane may be ahead of the slowest one by as
    many bytes as the spool holds. If it is full, the fastest lane waits for a slower one that
    makes progress. If there is none, it goes on without storing the bytes, and the others read
    these from the source once more.
    """

    def __init__(self, spool: Spool, cancel: threading.Event) -> None:
        """Share blobs.

        Args:
            spool: may serve other fan-outs as well; the caller closes it.
            cancel: ends waits with Cancelled.
        """
        self._spool = spool
        self._cancel = cancel
        self._memory = ManifestMemory()
        self._changed = threading.Condition()  # guards all fields, and the state of the blobs
        self._blobs: dict[Digest, SharedBlob] = {}
        self._image_counts: Counter[str] = Counter()  # images that a lane has not finished
        self._last_progress: dict[str, float] = {}  # monotonic seconds, of a lane's last blob

    def add_image(self, lanes: Iterable[str]) -> SharedImage:
        """Add an image that ``lanes`` are going to copy."""
        image = SharedImage(lanes, self._memory)
        with self._changed:
            self._image_counts.update(image.lanes)
        return image

    def open_blob(  # noqa: PLR0913, PLR0917 - a range of a blob, and who reads it
        self,
        image: SharedImage,
        lane: str,
        blob: Descriptor,
        opener: RangeOpener,
        start: int,
        stop: int | None,
    ) -> BlobReader:
        """Open the bytes of a blob of an image from ``start`` up to ``stop`` for a lane.

        Args:
            opener: opens the blob at the source, for whichever lane needs its bytes first.
        """
        with self._changed:
            shared = self._blobs.get(blob.digest)
            if shared is None:
                shared = self._blobs[blob.digest] = SharedBlob(
                    blob,
                    opener,
                    spool=self._spool,
                    changed=self._changed,
                    find_slot=self._find_slot,
                    cancel=self._cancel,
                )
            if image.lanes and blob.digest not in image.blobs:
                image.blobs.add(blob.digest)
                shared.images.append(image)
                shared.released |= image.released[blob.digest]
            shared.released.discard(lane)
            return shared.open(lane, start, stop)

    def release_blob(self, image: SharedImage, lane: str, digest: Digest) -> None:
        """Record that a lane has, or has given up, a blob."""
        with self._changed:
            image.released[digest].add(lane)
            blob = self._blobs.get(digest)
            if blob is not None:
                blob.released.add(lane)
                self._end_lane(blob, lane)
            self._changed.notify_all()

    def finish(self, image: SharedImage, lane: str) -> None:
        """Record that a lane needs no further blob of an image."""
        with self._changed:
            if lane in image.lanes:
                image.finish(lane)
                self._image_counts[lane] -= 1
            for digest in list(image.blobs):
                blob = self._blobs.get(digest)
                if blob is not None and lane not in blob.waiting_lanes():
                    self._end_lane(blob, lane)
            is_over = not image.lanes
            self._changed.notify_all()
        if is_over:
            image.answers.clear()

    def close(self) -> None:
        """Close the connections to the source, and release all slots of the spool."""
        with self._changed:
            for blob in self._blobs.values():
                blob.close()
            self._blobs.clear()

    def _end_lane(self, blob: SharedBlob, lane: str) -> None:
        """End the reading of a lane, and drop what no lane needs; the lock is held."""
        state = blob.end_lane(lane)
        if state is not None:
            self._last_progress[lane] = state.last_progress
        if not blob.waiting_lanes():
            del self._blobs[blob.digest]
            for image in blob.images:
                image.blobs.discard(blob.digest)
            blob.close()

    def _find_slot(self, blob: SharedBlob, lane: LaneState) -> int | None:
        """Acquire a slot; None: no other lane needs the bytes, or there is no room."""
        now = time.monotonic()
        deadline, next_look = now + _MAX_WAIT, now
        while self._is_needed_by_others(blob, lane):
            if now >= next_look:
                slot = self._spool.acquire()
                if slot is None:
                    slot = self._reclaim_slot()
                is_late = now > deadline
                if slot is not None or is_late or not self._has_moving_lane_behind(lane):
                    return slot
                # It takes milliseconds if thousands of blobs wait, and any read ends a wait.
                now, began = time.monotonic(), now
                next_look = now + max(_MIN_INTERVAL, 5 * (now - began))
            blob.wait(lane)
            now = time.monotonic()
        return None

    def _is_needed_by_others(self, blob: SharedBlob, lane: LaneState) -> bool:
        states = [blob.lanes.get(name) for name in blob.waiting_lanes()]
        return any(
            state is None or state.position <= lane.position
            for state in states
            if state is not lane
        )

    def _reclaim_slot(self) -> int | None:
        """Return a slot whose bytes all lanes have read."""
        for blob in self._blobs.values():
            if not blob.lanes:
                continue  # nobody has begun to read it, except those that have all of it
            states = [blob.lanes.get(name) for name in blob.waiting_lanes()]
            needed_from = min(
                (state.position if state is not None else 0 for state in states), default=0
            )
            slot = blob.slots.reclaim(needed_from)
            if slot is not None:
                return slot
        return None

    def _has_moving_lane_behind(self, lane: LaneState) -> bool:
        """Whether another lane makes progress, and has yet to read bytes that are in the spool."""
        moving = self._moving_lanes() - {lane.name}
        return bool(moving) and any(
            blob.slots.is_behind(0) and self._is_behind(blob, moving)
            for blob in self._blobs.values()
        )

    def _moving_lanes(self) -> set[str]:
        """Return the lanes that make progress with any blob, or are between two of them."""
        now = time.monotonic()
        moving, reading = set(), set()
        for blob in self._blobs.values():
            for state in blob.lanes.values():
                reading.add(state.name)
                # One that waits goes on as soon as its thread runs, if its next byte has arrived.
                is_stuck = state.is_waiting and blob.slots.find(state.position) is None
                if state.last_progress > now - _STALL_TIME and not is_stuck:
                    moving.add(state.name)
        earliest = now - min(_GAP_TIME, _STALL_TIME)
        for name, seconds in self._last_progress.items():
            if name not in reading and seconds > earliest and self._image_counts[name] > 0:
                moving.add(name)
        return moving

    def _is_behind(self, blob: SharedBlob, lanes: set[str]) -> bool:
        """Whether one of some lanes has yet to read bytes of a blob that are in the spool."""
        states = [blob.lanes.get(name) for name in blob.waiting_lanes() & lanes]
        return any(state is None or blob.slots.is_behind(state.position) for state in states)
