"""One run of a plan at a time on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from concil.errors import StoreError
from concil.fs.path_lock import PathLock


def plan_lock(journal: Path, plan: str, destination: str) -> PathLock:
    """Return the lock of the runs of a plan to a destination; a dead holder releases it.

    Args:
        journal: the file of the journal; the lock lies beside it.
    Raises:
        StoreError: the directory of the journal cannot be created.
    """
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot create the directory of the journal: {error.strerror}",
            remedy="set XDG_STATE_HOME to a directory that can be written to",
        ) from error
    return PathLock(journal.with_name(plan_name(plan, destination)))


def plan_name(plan: str, destination: str) -> str:
    """Return the name of the files that belong to a plan and a destination."""
    key = "\0".join((str(Path(plan).resolve()), destination)).encode("utf-8", "surrogateescape")
    return f"run-{hashlib.sha256(key).hexdigest()[:16]}"
