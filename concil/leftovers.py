"""Files that killed processes left beside the places for which they were meant."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path


def hold(descriptor: int) -> None:
    """Let nobody sweep a file while it is open."""
    with contextlib.suppress(OSError):  # where locks are no good nobody sweeps either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep(final: Path, pattern: str) -> None:
    """Remove what grew beside a file, under its name with a dot around, and nobody holds.

    Args:
        pattern: what its name has behind that.
    """
    left = re.compile(rf"\.{re.escape(final.name)}\.{pattern}")
    with contextlib.suppress(OSError), os.scandir(final.parent) as found:
        for path in [Path(one.path) for one in found if left.fullmatch(one.name)]:
            with contextlib.suppress(OSError):
                remove_unlocked(path)


def remove_unlocked(path: Path) -> None:
    """Remove a file; OSError if somebody is filling it."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
