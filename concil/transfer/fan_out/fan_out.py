"""FanOut: the blobs of one source, read once for several destinations."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable

from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.transfer.fan_out.shared_blob import LaneState, SharedBlob
from concil.transfer.fan_out.spool import Spool

_STALL_TIME = 30.0  # seconds without a byte after which no lane waits for another one
# Seconds that a lane waits for one slot: registries close connections that are silent for longer.
_MAX_WAIT = 15.0


class FanOut:
    """Shares the blobs of a source among lanes. Any thread may call any method.

    A lane reads each blob at most once: all destinations in one registry, which mounts blobs from
    one repository into another, or one local store. A lane may be ahead of the slowest one by as
    many bytes as the spool holds. If it is full, the fastest lane waits for a slower one that
    makes progress. If there is none, it goes on without storing the bytes, and the others read
    these from the source once more.
    """

    def __init__(self, lanes: Iterable[str], spool: Spool, cancel: threading.Event) -> None:
        """Share blobs among ``lanes``.

        Args:
            spool: may serve other fan-outs as well; the caller closes it.
            cancel: ends waits with Cancelled.
        """
        self._lanes = set(lanes)  # those that have not finished
        self._spool = spool
        self._cancel = cancel
        self._changed = threading.Condition()  # guards all fields, and the state of the blobs
        self._blobs: dict[Digest, SharedBlob] = {}
        # Lanes that do not need a blob, or not any more.
        self._released: defaultdict[Digest, set[str]] = defaultdict(set)

    def open_blob(
        self, lane: str, blob: Descriptor, opener: RangeOpener, start: int, stop: int | None
    ) -> BlobReader:
        """Open the bytes of a blob from ``start`` up to ``stop`` for a lane.

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
            self._released[blob.digest].discard(lane)
            return shared.open(lane, start, stop)

    def release_blob(self, lane: str, digest: Digest) -> None:
        """Record that a lane has, or has given up, a blob."""
        with self._changed:
            self._released[digest].add(lane)
            self._release(lane, digest)

    def finish(self, lane: str) -> None:
        """Record that a lane needs no further blob."""
        with self._changed:
            self._lanes.discard(lane)
            for digest in list(self._blobs):
                self._release(lane, digest)

    def close(self) -> None:
        """Close the connections to the source, and release all slots of the spool."""
        with self._changed:
            for blob in self._blobs.values():
                blob.close()
            self._blobs.clear()

    def _release(self, lane: str, digest: Digest) -> None:
        """End the reading of a lane, and drop what no lane needs; the lock is held."""
        blob = self._blobs.get(digest)
        if blob is not None:
            blob.end_lane(lane)
            if self._lanes <= self._released[digest]:
                self._blobs.pop(digest).close()
        self._changed.notify_all()

    def _find_slot(self, blob: SharedBlob, lane: LaneState) -> int | None:
        """Acquire a slot; None: no other lane needs the bytes, or there is no room."""
        deadline = time.monotonic() + _MAX_WAIT
        while self._is_needed_by_others(blob, lane):
            slot = self._spool.acquire()
            if slot is None:
                slot = self._reclaim_slot()
            is_late = time.monotonic() > deadline
            if slot is not None or is_late or not self._has_moving_lane_behind(lane):
                return slot
            blob.wait(lane)
        return None

    def _is_needed_by_others(self, blob: SharedBlob, lane: LaneState) -> bool:
        others = self._lanes - self._released[blob.digest]
        states = [blob.lanes.get(name) for name in others]
        return any(
            state is None or state.position <= lane.position
            for state in states
            if state is not lane
        )

    def _reclaim_slot(self) -> int | None:
        """Return a slot whose bytes all lanes have read."""
        for digest, blob in self._blobs.items():
            states = [blob.lanes.get(name) for name in self._lanes - self._released[digest]]
            needed_from = min(
                (state.position if state is not None else 0 for state in states), default=0
            )
            slot = blob.slots.reclaim(needed_from)
            if slot is not None:
                return slot
        return None

    def _has_moving_lane_behind(self, lane: LaneState) -> bool:
        """Whether another lane reads bytes that are in the spool, and makes progress."""
        earliest = time.monotonic() - _STALL_TIME
        return any(
            state is not lane
            and state.last_progress > earliest
            and blob.slots.is_behind(state.position)
            # One that waits goes on as soon as its thread runs, if its next byte has arrived.
            and (not state.is_waiting or blob.slots.find(state.position) is not None)
            for blob in self._blobs.values()
            for state in blob.lanes.values()
        )
