"""ItemQueues: the images of a mirror, in a queue for each lane."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from concil.transfer.mirror.report import MirrorItem

MAIN_LANE = ""  # of images with a single destination
_POLL_INTERVAL = 0.2  # seconds between checks for a cancellation


class ItemQueues:
    """Distributes images among lanes, which take them at their own pace. Any thread.

    Images are read when a lane has none left. Those of slower lanes wait in their queues.
    """

    def __init__(
        self,
        items: Iterator[MirrorItem],
        assign: Callable[[MirrorItem], Sequence[tuple[str, MirrorItem]]],
        cancel: threading.Event,
    ) -> None:
        """Read ``items``, one thread at a time.

        Args:
            assign: returns the lanes of an image, each with an item that has one destination.
            cancel: ends all queues.
        """
        self._items = items
        self._assign = assign
        self._cancel = cancel
        self._changed = threading.Condition()  # guards the fields below
        self._queues: dict[str, deque[MirrorItem]] = {MAIN_LANE: deque()}
        self._is_reading = False  # a thread reads the next image
        self._is_ended = False  # there are no further images

    def items_of(self, lane: str) -> Iterator[MirrorItem]:
        """Yield the images of a lane until there are no more, or the call is cancelled."""
        while (item := self._take(lane)) is not None:
            yield item

    def stop(self) -> None:
        """End all queues: no further image is started."""
        with self._changed:
            self._is_ended = True
            for queue in self._queues.values():
                queue.clear()
            self._changed.notify_all()

    def _take(self, lane: str) -> MirrorItem | None:
        while not self._cancel.is_set():
            with self._changed:
                queue = self._queues.setdefault(lane, deque())
                if queue:
                    self._changed.notify_all()
                    return queue.popleft()
                if self._is_ended and not self._is_reading:
                    return None
                if self._is_reading or not self._may_read(lane):
                    self._changed.wait(_POLL_INTERVAL)
                    continue
                self._is_reading = True
            self._read()
        return None

    def _may_read(self, lane: str) -> bool:
        """Whether a lane without images may read some; the lock is held.

        The main lane reads no further than the other ones need.
        """
        others = [queue for name, queue in self._queues.items() if name != MAIN_LANE]
        return lane != MAIN_LANE or not others or not all(others)

    def _read(self) -> None:
        """Read one image, and put it into the queues of its lanes."""
        assigned: Sequence[tuple[str, MirrorItem]] = ()
        is_ended = True
        try:
            item = next(self._items, None)
            if item is not None:
                assigned = self._assign(item)
                is_ended = False
        finally:
            with self._changed:
                self._is_reading = False
                self._is_ended = self._is_ended or is_ended
                if not self._is_ended:
                    for lane, each in assigned:
                        self._queues.setdefault(lane, deque()).append(each)
                self._changed.notify_all()
