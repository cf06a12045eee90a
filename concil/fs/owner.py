"""Who owns something on a disk that several processes share: a lock tells whether they live.

A process number means nothing in another container (pid namespace), and after a restart of
the machine it means another process. The kernel releases a lock when its holder dies, and
shows it to everybody who sees the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import secrets
import time
from pathlib import Path

from concil.fs.file_lock import remove_stale, try_lock

_NAME = r"[0-9a-f]{32}\.owner"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds after its last sign that an owner counts as alive of whom nothing else is known.
_BENEFIT = 3600.0
_TRIES = 3  # probes of a lock: another process that probes holds it for a moment, too
_STEP = 0.002  # seconds between them


class Owner:
    """One owner beside a file. Its name is told to others; one thread at a time.

    Where the file system has no locks the name holds the process, the machine's boot and the
    pid namespace instead. Of an owner of another boot or namespace nobody can tell then, so
    it counts as alive for an hour after it was last heard of.
    """

    def __init__(self, file: Path) -> None:
        """Belong to ``file``; the lock is taken when the name is first asked for."""
        self._file = file
        self._name = ""
        self._lock: io.FileIO | None = None
        self._path: Path | None = None

    @property
    def name(self) -> str:
        """What others are told; `is_alive` understands it."""
        if not self._name:
            remove_stale(self._file, _NAME)
            try:
                self._name = self._locked()
            except OSError:
                self._name = f"pid:{os.getpid()}:{_started(os.getpid())}:{_machine()}"
        return self._name

    def close(self) -> None:
        """Own nothing any more."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if self._path is not None:
                    self._path.unlink()
            self._lock.close()
        self._lock, self._path, self._name = None, None, ""

    def leave(self) -> None:
        """Be somebody else from here on: a forked child is not the owner that its parent is."""
        if self._lock is not None:
            self._lock.close()  # its own copy: the parent's lock stays
        self._lock, self._path, self._name = None, None, ""

    def _locked(self) -> str:
        """Make a file and lock it; return the name.

        Raises:
            OSError: the directory or the file system does not take it.
        """
        while True:
            name = secrets.token_hex(16)
            path = _path_of(self._file, name)
            held = io.FileIO(os.open(path, _FLAGS, 0o600), "r+")
            try:
                # Whoever looked for left files just then may have locked or removed it.
                if try_lock(held.fileno()) and _is_at(held.fileno(), path):
                    self._lock, self._path = held, path
                    return f"lock:{name}"
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                held.close()
                raise
            held.close()


def is_alive(file: Path, name: str, heard: float) -> bool:
    """Whether an owner beside ``file`` still lives.

    Args:
        name: as `Owner.name` told it, or as version 1 of the journal wrote it.
        heard: when it last gave a sign of itself; seconds since the epoch.
    """
    kind, _, rest = name.partition(":")
    if kind == "lock" and re.fullmatch(r"[0-9a-f]{32}", rest):
        return _is_locked(_path_of(file, rest), heard)
    if kind == "pid":
        pid, _, more = rest.partition(":")
        started, _, machine = more.partition(":")
        if machine != _machine():
            return time.time() - heard < _BENEFIT
        return _runs(pid, started)
    return _runs(kind, rest)


def _is_locked(path: Path, heard: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # of another user: nobody can tell
        return time.time() - heard < _BENEFIT
    try:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_STEP)
            try:
                # Shared: others who look at the same time find it free as well.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                return time.time() - heard < _BENEFIT
            return False
        return True
    finally:
        os.close(descriptor)


def _path_of(file: Path, name: str) -> Path:
    return file.with_name(f".{file.name}.{name}.owner")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _runs(pid: str, started: str) -> bool:
    """Whether a process runs here, and is not another of the same number."""
    return pid.isdecimal() and bool(started) and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold anything; the fields behind it do not.
    return stat.rpartition(")")[2].split()[19]


def _machine() -> str:
    """Within what a process number means one process: a boot of a kernel, and a namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return "unknown"
