"""Remembers in which order records have changed, for readers that want what is new."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from concil.runtime.dataclass import dataclass

Record = TypeVar("Record")
_MAX_REMOVED = 20_000  # numbers of removed records that are remembered


@dataclass(frozen=True, slots=True)
class Changes(Generic[Record]):
    """What has changed since a version."""

    records: list[tuple[int, Record]]  # numbers and records, by the time of their last change
    removed: list[int]  # numbers of records that were removed
    version: int  # up to which these are all changes


class ChangeLog(Generic[Record]):
    """Records by number, in the order of their last change. Not thread-safe.

    Memory: one entry for each record, and a bounded number of removed ones.
    """

    def __init__(self) -> None:
        """Create it without records."""
        self.version = 0  # grows with each change
        self._changed: dict[int, tuple[int, Record]] = {}  # version and record; last change last
        self._removed: deque[tuple[int, int]] = deque(maxlen=_MAX_REMOVED)  # version, number
        self._forgotten = 0  # version of the last removal that is no longer remembered

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._changed)

    def touch(self, number: int, record: Record) -> None:
        """Record a change of a record, or add it."""
        self.version += 1
        self._changed.pop(number, None)
        self._changed[number] = (self.version, record)

    def remove(self, number: int) -> None:
        """Remove a record."""
        if self._changed.pop(number, None) is None:
            return
        self.version += 1
        if len(self._removed) == _MAX_REMOVED:
            self._forgotten = self._removed[0][0]
        self._removed.append((self.version, number))

    def records(self) -> list[tuple[int, Record]]:
        """Return all numbers and records."""
        return [(number, record) for number, (_, record) in self._changed.items()]

    def since(self, version: int, limit: int) -> Changes[Record] | None:
        """Return what has changed after a version; None if not all of that is known.

        Args:
            limit: at most so many records; the earliest changes come first.
        """
        if version < self._forgotten or version > self.version:
            return None
        newest_first = []
        for number in reversed(self._changed):
            changed_at, record = self._changed[number]
            if changed_at <= version:
                break
            newest_first.append((changed_at, number, record))
        found = newest_first[::-1][:limit]
        reached = found[-1][0] if len(found) < len(newest_first) else self.version
        removed = []
        for removed_at, number in reversed(self._removed):
            if removed_at <= version:
                break
            if removed_at <= reached:
                removed.append(number)
        return Changes([(number, record) for _, number, record in found], removed, reached)
