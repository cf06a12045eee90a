"""SharedBlob: one blob of a source, which several lanes read at their own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import field

from concil.errors import Cancelled, ContentError
from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Verifier
from concil.runtime.dataclass import dataclass
from concil.transfer.fan_out.shared_image import SharedImage
from concil.transfer.fan_out.slot_table import Slot, SlotTable
from concil.transfer.fan_out.spool import SLOT_SIZE, Spool

_POLL_INTERVAL = 0.2  # seconds between checks for a cancellation


@dataclass(slots=True)
class LaneState:
    """How far one lane has read one blob. Guarded by the lock of the fan-out."""

    name: str  # of the lane
    position: int = 0  # bytes; the next byte that it reads
    last_progress: float = field(default_factory=time.monotonic)  # monotonic seconds
    is_waiting: bool = False  # for a slot, or for another lane that reads the same bytes


# Acquires a slot for the next bytes of a lane; None: there is none, or no other lane needs them.
# Called with the lock, which it may release to wait.
SlotFinder = Callable[["SharedBlob", LaneState], int | None]


@dataclass(slots=True)
class _Stream:
    """An open reader of the source, which continues at ``position``."""

    reader: BlobReader
    position: int
    stop: int


class SharedBlob:
    """One blob of a source, and those of its bytes that are in the spool. Any thread.

    The lane that needs bytes which are not in the spool reads them from the source, and stores
    them for the others. So nothing is read ahead, and no thread waits for a job that may not have
    been started: a lane waits only while another one is reading the same bytes.
    """

    def __init__(  # noqa: PLR0913 - a blob, and what all blobs of a fan-out share
        self,
        blob: Descriptor,
        opener: RangeOpener,
        *,
        spool: Spool,
        changed: threading.Condition,
        find_slot: SlotFinder,
        cancel: threading.Event,
    ) -> None:
        """Read the blob from ``opener``.

        Args:
            changed: guards the state of all blobs; notified after each change.
            cancel: ends a wait.
        """
        self.digest = blob.digest
        self.lanes: dict[str, LaneState] = {}  # that have begun to read the blob
        self.images: list[SharedImage] = []  # that have the blob
        self.released: set[str] = set()  # lanes that do not need it, or not any more
        self.slots = SlotTable(spool)
        self._blob = blob
        self._opener = opener
        self._spool = spool
        self._changed = changed
        self._find_slot = find_slot
        self._cancel = cancel
        self._streams: dict[int, _Stream] = {}  # idle ones, by position
        self._fetching: set[int] = set()  # positions from which a thread reads the source
        self._verifier = Verifier(blob.digest.algorithm)  # of the bytes from the first on

    def open(self, lane: str, start: int, stop: int | None) -> SharedReader:
        """Open the bytes from ``start`` up to ``stop`` for a lane; the lock is held."""
        state = self.lanes.setdefault(lane, LaneState(lane))
        if start == 0 < state.position and self.slots.stop > self._verifier.position:
            self._drop_content()  # nobody has verified it, and the lane starts over
        state.position, state.last_progress = start, time.monotonic()
        return SharedReader(self, state, start, self._blob.size if stop is None else stop)

    def read(self, lane: LaneState, position: int, stop: int, buffer: memoryview) -> int:
        """Read bytes for a lane from the spool, or else from the source.

        Returns:
            Their number; 0 only at ``stop``, or if the source ends too early.
        Raises:
            Cancelled, ConcilError: the wait was cancelled, or the source failed.
        """
        buffer = buffer[: min(stop - position, SLOT_SIZE - position % SLOT_SIZE)]
        if not buffer:
            return 0
        slot = self._pin_or_claim(lane, position)
        if slot is None:
            count = self._fetch(lane, position, stop, buffer)
        else:
            count = self._read_slot(slot, position, buffer)
        with self._changed:
            lane.position, lane.last_progress = position + count, time.monotonic()
            self._changed.notify_all()
        return count

    def wait(self, lane: LaneState) -> None:
        """Wait for a change; the lock is held. Raises Cancelled."""
        if self._cancel.is_set():
            raise Cancelled(f"{self._blob.digest}: cancelled")
        lane.is_waiting = True
        self._changed.wait(_POLL_INTERVAL)
        lane.is_waiting = False

    def waiting_lanes(self) -> set[str]:
        """Return the lanes that have or may have yet to read the blob; the lock is held."""
        return {lane for image in self.images for lane in image.lanes} - self.released

    def end_lane(self, lane: str) -> LaneState | None:
        """Record that a lane does not read the blob any more; the lock is held.

        Returns:
            How far it has read; None: it has not read any of it.
        """
        state = self.lanes.pop(lane, None)
        if not self.lanes:
            self._close_streams()
        return state

    def close(self) -> None:
        """Close the connections and release the slots; the lock is held."""
        self.lanes.clear()
        self._close_streams()
        self.slots.drop_all()

    def _pin_or_claim(self, lane: LaneState, position: int) -> Slot | None:
        """Pin the slot that has a position; None: the caller has to fetch it from the source."""
        with self._changed:
            while True:
                slot = self.slots.pin(position)
                if slot is not None:
                    return slot
                if position not in self._fetching:
                    self._fetching.add(position)
                    return None
                self.wait(lane)

    def _read_slot(self, slot: Slot, position: int, buffer: memoryview) -> int:
        try:
            available = buffer[: slot.stop - position]
            return self._spool.read(slot.number, position % SLOT_SIZE, available)
        finally:
            with self._changed:
                self.slots.unpin(slot)
                # Another lane has read on from here by a connection of its own.
                stream = self._streams.pop(position, None)
            if stream is not None:
                stream.reader.close()

    def _fetch(self, lane: LaneState, position: int, stop: int, buffer: memoryview) -> int:
        """Read claimed bytes from the source, and store them for the other lanes."""
        slot: Slot | None = None
        try:
            with self._changed:
                slot = self._pin_end(lane, position)
            count = self._read_stream(position, stop, buffer)
            data = buffer[:count]
            is_stored = slot is not None and self._spool.write(
                slot.number, position % SLOT_SIZE, data
            )
            is_right = self._is_right_so_far(position, data)
            with self._changed:
                if slot is not None and is_stored:
                    slot.stop += count
                if not is_right:
                    self._drop_content()
        finally:
            with self._changed:
                self._fetching.discard(position)
                if slot is not None:
                    self.slots.unpin(slot)
                self._changed.notify_all()
        return count

    def _pin_end(self, lane: LaneState, position: int) -> Slot | None:
        """Pin a slot to which the bytes at a position can be appended; the lock is held."""
        if not self.slots.has_slot_at(position):
            number = self._find_slot(self, lane)
            if number is not None and self.slots.has_slot_at(position):
                self._spool.release(number)  # added while this thread waited
            elif number is not None:
                self.slots.add(number, position)
        return self.slots.pin_end(position)

    def _read_stream(self, position: int, stop: int, buffer: memoryview) -> int:
        """Read from the connection that has reached a position, or from a new one."""
        with self._changed:
            stream = self._streams.pop(position, None)
            next_start = self.slots.next_start(position)
        if stream is None:
            stream = self._open_stream(position, stop)
        try:
            limit = min(stream.stop, next_start or stream.stop) - position
            count = stream.reader.readinto(buffer[:limit])
            stream.position += count
        except BaseException:
            stream.reader.close()
            raise
        with self._changed:
            # A call that was cancelled ends its lanes while their threads still run.
            is_needed = bool(count and self.lanes) and stream.position < stream.stop
            if is_needed:
                self._streams[stream.position] = stream
        if not is_needed:
            stream.reader.close()
        return count

    def _open_stream(self, position: int, stop: int) -> _Stream:
        """Open the source up to bytes that are in the spool, or that another lane is reading."""
        with self._changed:
            next_start = self.slots.next_start(position)
            edges = [edge for edge in (*self._fetching, *self._streams) if edge > position]
            stop = min([stop, *edges, *([] if next_start is None else [next_start])])
        reader = self._opener(position, None if stop == self._blob.size else stop)
        try:
            self._skip(reader, position - reader.start)
        except BaseException:
            reader.close()
            raise
        return _Stream(reader, position, stop)

    def _skip(self, reader: BlobReader, count: int) -> None:
        """Read the bytes that a source sends before those that were requested."""
        buffer = memoryview(bytearray(min(max(count, 0), SLOT_SIZE)))
        while count > 0:
            skipped = reader.readinto(buffer[: min(count, len(buffer))])
            if not skipped:
                break  # the next read finds the end
            count -= skipped

    def _is_right_so_far(self, position: int, data: memoryview) -> bool:
        """Hash what is read in order; return False if the whole blob turns out to be wrong.

        Every lane verifies what it reads. This check keeps wrong bytes of the source, or of a
        lane, from being read a second time by a lane that starts over.
        """
        verifier = self._verifier
        if position != verifier.position:
            return True
        verifier.update(data)
        if verifier.position < self._blob.size:
            return True
        try:
            verifier.verify(self._blob.digest, self._blob.size, str(self._blob.digest))
        except ContentError:
            return False
        return True

    def _drop_content(self) -> None:
        """Drop all bytes, which are read from the source again; the lock is held."""
        self.slots.drop_all()
        self._verifier = Verifier(self._blob.digest.algorithm)

    def _close_streams(self) -> None:
        for stream in self._streams.values():
            stream.reader.close()
        self._streams.clear()


class SharedReader:
    """A BlobReader of one lane. One thread at a time."""

    def __init__(self, blob: SharedBlob, lane: LaneState, start: int, stop: int) -> None:
        """Read the bytes from ``start`` up to ``stop``."""
        self.start = self._position = start
        self._blob = blob
        self._lane = lane
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int:
        """Read up to ``len(buffer)`` bytes; return their number, 0 at the end."""
        count = self._blob.read(self._lane, self._position, self._stop, buffer)
        self._position += count
        return count

    def close(self) -> None:
        """Do nothing: the connection to the source serves other lanes as well."""
