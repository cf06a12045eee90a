"""Counts blobs and their bytes from progress events: moved, lost, resumed and mounted."""

from __future__ import annotations

from collections import Counter

from concil.progress.events import Event, State


class BlobCounts:
    """Blobs and bytes of all runs. The caller holds a lock.

    Bytes are counted from positions, which blobs report ten times a second. A blob whose position
    goes back has lost what it sends again.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.blobs: Counter[State] = Counter()  # by final state
        self.moved_bytes = 0
        self.lost_bytes = 0  # moved, and moved again
        self.resumed_bytes = 0  # moved by an earlier run
        self.mounted_bytes = 0
        self.retries = 0
        self._positions: dict[tuple[str, str], int] = {}  # of blobs that are under way
        self._waiting: set[tuple[str, str]] = set()

    @property
    def waiting_count(self) -> int:
        """Blobs that have not been started."""
        return len(self._waiting)

    @property
    def running_count(self) -> int:
        """Blobs that are under way."""
        return len(self._positions)

    def record(self, event: Event) -> None:
        """Count an event of a blob."""
        key, state = (event.subject, event.target), event.state
        if state is State.WAITING:
            self._waiting.add(key)
        elif state is State.STARTED:
            self._start(key, event.position)
        elif state.is_final:
            self._end(key, event)
        elif key in self._positions:  # otherwise a late event of a blob that has ended
            self.retries += state is State.RETRYING
            self._positions[key] = self._advance(self._positions[key], event.position)

    def end_run(self) -> None:
        """Forget blobs that were cancelled before they ended."""
        self._positions.clear()
        self._waiting.clear()

    def _start(self, key: tuple[str, str], position: int) -> None:
        self._waiting.discard(key)
        before = self._positions.get(key, 0)
        self.resumed_bytes += max(0, position - before)
        self.lost_bytes += max(0, before - position)
        self._positions[key] = position

    def _advance(self, before: int, position: int) -> int:
        self.moved_bytes += max(0, position - before)
        self.lost_bytes += max(0, before - position)
        return position

    def _end(self, key: tuple[str, str], event: Event) -> None:
        self._waiting.discard(key)
        before = self._positions.pop(key, None)
        self.blobs[event.state] += 1
        if event.state is State.MOUNTED:
            self.mounted_bytes += event.total or event.position
        elif event.state is not State.PRESENT and before is not None:
            self._advance(before, event.position)
