"""Rows of the journal: state and owner of one transfer."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Protocol, TypeAlias

from concil.fs.file_lock import remove_unlocked
from concil.fs.resume_state import WriterState
from concil.runtime.dataclass import dataclass

Key: TypeAlias = tuple[str, str, int]  # target, subject and size


class JournalRows(Protocol):
    """The methods of the journal that an entry uses."""

    def save(self, row_id: int | None, key: Key, state: WriterState) -> int | None:
        """Write a row, a new one if ``row_id`` is None; return its number, None on failure."""
        ...

    def delete(self, row_id: int, /) -> None:
        """Delete a row."""
        ...

    def release(self, row_id: int, /) -> None:
        """Release a row, so that another process can claim it."""
        ...

    def delete_abandoned(self, destination: str, subject: str, /) -> None:
        """Delete the rows of some content that no living process owns."""
        ...


@dataclass(frozen=True, slots=True)
class UnfinishedTransfer:
    """A resumable transfer, as `Journal.list_unfinished` returns it."""

    row_id: int
    destination: str
    subject: str  # a digest, or the identity of a file
    size: int  # bytes
    state: WriterState
    is_running: bool  # a living process owns it
    updated: float  # seconds since the epoch

    @property
    def is_partial(self) -> bool:
        """Whether some, but not all, bytes were transferred."""
        return 0 < self.state.offset < self.size


class JournalEntry:
    """The journal entry of one transfer. Any thread may call any method.

    No method raises: the worst effect of a lost entry is that a blob is transferred again.
    """

    def __init__(
        self,
        rows: JournalRows | None,
        key: Key,
        row_id: int | None,
        state: WriterState | None = None,
    ) -> None:
        """Create an entry of ``rows``, for `Journal.claim_transfer`; None: record nothing.

        Args:
            state: saved by an earlier process.
        """
        self._rows = rows
        self._key = key
        self._row_id = row_id
        self._owner_pid = os.getpid()  # a forked child must not change its parent's rows
        self._lock = threading.Lock()  # guards _row_id: two first saves would leave two rows
        self.state = state

    @classmethod
    def unsaved(cls) -> JournalEntry:
        """Return an entry that records nothing."""
        return cls(None, ("", "", 0), None)

    def save(self, state: WriterState | None) -> None:
        """Record the state of the transfer; None: there is nothing to resume."""
        if state is not None and self._rows is not None and self._is_own_process():
            with self._lock:
                self._row_id = self._rows.save(self._row_id, self._key, state)

    def delete(self) -> None:
        """Delete the entry: the transfer is finished, or can never be."""
        if self._row_id is not None and self._rows is not None and self._is_own_process():
            self._rows.delete(self._row_id)
        self._row_id = None

    def complete(self) -> None:
        """Delete the entry, and abandoned transfers of the same content."""
        self.delete()
        if self._rows is not None and self._is_own_process():
            target, subject, _ = self._key
            self._rows.delete_abandoned(target, subject)

    def release(self) -> None:
        """Release the entry, so that another process can resume the transfer."""
        if self._row_id is not None and self._rows is not None and self._is_own_process():
            self._rows.release(self._row_id)

    def _is_own_process(self) -> bool:
        return self._owner_pid == os.getpid()


def parse_state(text: str) -> WriterState | None:
    """Parse a saved state; None if it is malformed."""
    try:
        fields = json.loads(text)
        ranges = tuple((int(a), int(b)) for a, b in fields["ranges"])
        return WriterState(
            str(fields["location"]),
            int(fields["offset"]),
            int(fields["chunk_size"]),
            ranges,
            str(fields["hash_state"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def remove_partial_file(location: str) -> None:
    """Remove a partial file, unless it has another name or a process has locked it."""
    path = Path(location)
    if ".partial" in path.name and path.is_absolute():
        with contextlib.suppress(OSError):
            remove_unlocked(path)
