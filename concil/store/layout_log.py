"""Changes of a layout's index that are on the disk before index.json has them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from concil.config import MIB
from concil.errors import ConcilError
from concil.store.layout_change import IndexChange
from concil.store.layout_disk import OWN, Tree
from concil.store.layout_temporary import create_locked, lock_stale, sync, write_all

_NAME = re.compile(r"[0-9a-f]{16}-[0-9]{8}\.log")
_LIMIT = 64 * MIB  # bytes of a log that is read


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of a log, which is locked as long as it is open."""

    name: str
    descriptor: int


class ChangeLog:
    """The log of one process: files ``.concil/<16 hex>-<number>.log``, a change a line.

    A file is begun after each write of index.json, and removed when index.json has its changes.
    What a killed process leaves is found by `stale`. One thread at a time appends; any thread
    may call the rest.
    """

    def __init__(self, tree: Tree) -> None:
        """Begin without a file."""
        self._tree = tree
        self._lock = threading.Lock()  # guards the fields below
        self._owner, self._numbers = secrets.token_hex(8), itertools.count()
        self._current: LogFile | None = None
        self._older: list[LogFile] = []  # whose changes are not in index.json yet

    def append(self, change: IndexChange) -> None:
        """Write a change, and wait for the disk.

        Raises:
            StoreError: the disk refuses.
        """
        with self._lock, self._tree.inside(OWN, "cannot write a change into") as own:
            if self._current is None:
                name = f"{self._owner}-{next(self._numbers):08d}.log"
                self._current = LogFile(name, create_locked(name, own))
                sync(own)
            write_all(self._current.descriptor, change.line())

    def rotate(self) -> list[LogFile]:
        """Begin another file with the next change; return the files until now."""
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


def has_logs(tree: Tree) -> bool:
    """Whether there are logs, of living processes or of killed ones."""
    return bool(_logs(tree))


@contextlib.contextmanager
def stale(tree: Tree) -> Iterator[list[IndexChange]]:
    """Yield the changes that killed processes have left; their logs go at the end of the block.

    A line that was not written to its end was told to nobody.
    """
    changes: list[IndexChange] = []
    files: list[LogFile] = []
    try:
        for name in _logs(tree):
            # Among what goes wrong: its process lives.
            with contextlib.suppress(ConcilError), tree.inside(OWN, "cannot read") as own:
                files.append(LogFile(name, lock_stale(name, own)))
        for file in files:
            changes += _changes(file.descriptor)
        yield changes
        for file in files:
            _remove(tree, file, close=False)
    finally:
        for file in files:
            os.close(file.descriptor)


def _logs(tree: Tree) -> list[str]:
    return sorted(name for name in tree.names(OWN) if _NAME.fullmatch(name))


def _changes(descriptor: int) -> Iterator[IndexChange]:
    content = os.pread(descriptor, _LIMIT, 0)
    for line in content.splitlines(keepends=True):
        try:
            yield IndexChange.of_line(line)
        except ConcilError:
            return


def _remove(tree: Tree, file: LogFile, *, close: bool = True) -> None:
    with contextlib.suppress(ConcilError, OSError), tree.inside(OWN, "cannot remove") as own:
        os.unlink(file.name, dir_fd=own)
    if close:
        os.close(file.descriptor)
