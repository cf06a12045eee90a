"""The rows of the journal: where one transfer stands, and who is at it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from concil.fs.file_lock import remove_unlocked
from concil.store.protocol import WriterState

Key: TypeAlias = tuple[str, str, int]  # target, subject and size


class Rows(Protocol):
    """What an entry asks of its journal."""

    def save(self, number: int | None, key: Key, state: WriterState) -> int | None:
        """Write a row, a new one without a number; return its number, None if it failed."""
        ...

    def forget(self, number: int, /) -> None:
        """Delete a row."""
        ...

    def release(self, number: int, /) -> None:
        """Let another process own a row."""
        ...

    def drop(self, target: str, subject: str, /) -> None:
        """Delete the rows of some content that nobody is at."""
        ...


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A transfer that could be gone on with, as `Journal.unfinished` lists it."""

    number: int
    target: str
    subject: str  # a digest, or the identity of a file
    size: int  # bytes
    state: WriterState
    running: bool  # a living process is at it
    updated: float  # seconds since the epoch

    @property
    def is_partial(self) -> bool:
        """Whether some bytes are there and some are not: what people call interrupted."""
        return 0 < self.state.offset < self.size


class Entry:
    """One transfer's place in the journal. Any thread may call any method.

    Nothing here raises: what cannot be remembered is only sent again some day.
    """

    def __init__(self, rows: Rows | None, key: Key, number: int | None) -> None:
        """Belong to a journal; made by `Journal.entry`. None: remember nothing."""
        self._rows = rows
        self._key = key
        self._number = number
        self._process = os.getpid()  # a forked child leaves the rows of its parent alone
        self._saving = threading.Lock()  # guards _number: of two first rows one would stay
        self.state: WriterState | None = None  # of an earlier process

    @classmethod
    def nowhere(cls) -> Entry:
        """A place of which nothing is remembered."""
        return cls(None, ("", "", 0), None)

    def save(self, state: WriterState | None) -> None:
        """Remember where the transfer stands; None: nothing to go on with."""
        if state is not None and self._rows is not None and self._is_here():
            with self._saving:
                self._number = self._rows.save(self._number, self._key, state)

    def done(self) -> None:
        """Forget the transfer: it is finished, or can never be."""
        if self._number is not None and self._rows is not None and self._is_here():
            self._rows.forget(self._number)
        self._number = None

    def finished(self) -> None:
        """Forget the transfer, and what was begun for the same content and not gone on with."""
        self.done()
        if self._rows is not None and self._is_here():
            target, subject, _ = self._key
            self._rows.drop(target, subject)

    def release(self) -> None:
        """Let another process go on with it."""
        if self._number is not None and self._rows is not None and self._is_here():
            self._rows.release(self._number)

    def _is_here(self) -> bool:
        return self._process == os.getpid()


def state_of(text: str) -> WriterState | None:
    """Read a state; None for anything that is none."""
    try:
        found = json.loads(text)
        stretches = tuple((int(a), int(b)) for a, b in found["stretches"])
        return WriterState(
            str(found["location"]),
            int(found["offset"]),
            int(found["chunk_size"]),
            stretches,
            str(found["hashed"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def remove_partial(location: str) -> None:
    """Remove the file of a download, unless it is no partial file or somebody fills it."""
    path = Path(location)
    if ".partial" in path.name and path.is_absolute():
        with contextlib.suppress(OSError):
            remove_unlocked(path)
