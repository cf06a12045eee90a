"""Log of index changes that are on disk before index.json has them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import threading
from collections.abc import Iterator

from concil.config import MIB
from concil.errors import ConcilError
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.fs.temporary_file import create_locked, lock_stale, sync, write_all
from concil.runtime.dataclass import dataclass
from concil.store.layout.index_change import IndexChange

_NAME = re.compile(r"[0-9a-f]{16}-[0-9]{8}\.log")
_MAX_REPORT_SIZE = 64 * MIB  # bytes read from a log file


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of a log, which is locked as long as it is open."""

    name: str
    descriptor: int


class ChangeLog:
    """The log of one process: files ``.concil/<16 hex>-<number>.log`` with one change per line.

    A new file is begun after each write of index.json, and the old ones are removed once
    index.json has their changes. `stale` reads the files of killed processes. Only one thread
    at a time may call `append`; any thread may call the other methods.
    """

    def __init__(self, tree: NoFollowTree) -> None:
        """Create the log; the first file is created by `append`."""
        self._tree = tree
        self._lock = threading.Lock()  # guards the fields below
        self._owner, self._numbers = secrets.token_hex(8), itertools.count()
        self._current: LogFile | None = None
        self._older: list[LogFile] = []  # files with changes that are not in index.json yet

    def append(self, change: IndexChange) -> None:
        """Append a change and sync it to disk.

        Raises:
            StoreError: the write fails.
        """
        with (
            self._lock,
            self._tree.inside(PRIVATE_DIRECTORY, "cannot write a change to") as dir_fd,
        ):
            if self._current is None:
                name = f"{self._owner}-{next(self._numbers):08d}.log"
                self._current = LogFile(name, create_locked(name, dir_fd))
                sync(dir_fd)
            write_all(self._current.descriptor, change.line())

    def rotate(self) -> list[LogFile]:
        """Start a new file at the next change; return all earlier files."""
        with self._lock:
            if self._current is not None:
                self._older.append(self._current)
            self._current = None
            return self._older[:]

    def remove(self, files: list[LogFile]) -> None:
        """Remove files whose changes are in index.json."""
        with self._lock:
            self._older = [file for file in self._older if file not in files]
        for file in files:
            _remove(self._tree, file)


def has_logs(tree: NoFollowTree) -> bool:
    """Return whether there are log files, of running or of killed processes."""
    return bool(_logs(tree))


@contextlib.contextmanager
def stale(tree: NoFollowTree) -> Iterator[list[IndexChange]]:
    """Yield the changes logged by killed processes; their files are removed after the block.

    An incomplete last line is ignored: its change was never acknowledged.
    """
    changes: list[IndexChange] = []
    files: list[LogFile] = []
    try:
        for name in _logs(tree):
            # Suppressed errors include that of a file whose process is still running.
            with (
                contextlib.suppress(ConcilError),
                tree.inside(PRIVATE_DIRECTORY, "cannot read") as dir_fd,
            ):
                files.append(LogFile(name, lock_stale(name, dir_fd)))
        for file in files:
            changes += _changes(file.descriptor)
        yield changes
        for file in files:
            _remove(tree, file, close=False)
    finally:
        for file in files:
            os.close(file.descriptor)


def _logs(tree: NoFollowTree) -> list[str]:
    return sorted(name for name in tree.names(PRIVATE_DIRECTORY) if _NAME.fullmatch(name))


def _changes(descriptor: int) -> Iterator[IndexChange]:
    content = os.pread(descriptor, _MAX_REPORT_SIZE, 0)
    for line in content.splitlines(keepends=True):
        try:
            yield IndexChange.of_line(line)
        except ConcilError:
            return


def _remove(tree: NoFollowTree, file: LogFile, *, close: bool = True) -> None:
    with (
        contextlib.suppress(ConcilError, OSError),
        tree.inside(PRIVATE_DIRECTORY, "cannot remove") as dir_fd,
    ):
        os.unlink(file.name, dir_fd=dir_fd)
    if close:
        os.close(file.descriptor)
