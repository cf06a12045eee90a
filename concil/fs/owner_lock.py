"""Lock file that shows whether the owner of shared state lives.

A process id is meaningless in another container (pid namespace), and after a reboot it belongs to
another process. A lock is released by the kernel when its holder ends, and everybody with access
to the file can test it.
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

_LOCK_FILE_PATTERN = r"[0-9a-f]{32}\.owner"
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds after its last update during which an owner of unknown state counts as alive.
_MAX_SILENCE = 3600.0
_MAX_PROBES = 3  # probes of a lock: another process that probes holds the lock for a moment, too
_PROBE_INTERVAL = 0.002  # seconds between them


class OwnerLock:
    """Identifies the owner of state beside a file. One thread at a time.

    If the file system does not support locks, the name consists of the process id, the boot id
    and the pid namespace. Such an owner cannot be tested from another boot or namespace, so it
    counts as alive for an hour after its last update.
    """

    def __init__(self, file: Path) -> None:
        """Prepare an owner for ``file``; the lock is acquired when `name` is first read."""
        self._file = file
        self._name = ""
        self._lock_file: io.FileIO | None = None
        self._lock_path: Path | None = None

    @property
    def name(self) -> str:
        """Name of the owner, to be tested with `is_alive`."""
        if not self._name:
            remove_stale(self._file, _LOCK_FILE_PATTERN)
            try:
                self._name = self._create_lock_file()
            except OSError:
                pid = os.getpid()
                started = _process_start_time(pid)
                self._name = f"pid:{pid}:{started}:{_boot_and_pid_namespace()}"
        return self._name

    def close(self) -> None:
        """Release the lock."""
        if self._lock_file is not None:
            with contextlib.suppress(OSError):
                if self._lock_path is not None:
                    self._lock_path.unlink()
            self._lock_file.close()
        self._lock_file, self._lock_path, self._name = None, None, ""

    def after_fork(self) -> None:
        """Forget the owner in a forked child: it is not the owner that its parent is."""
        if self._lock_file is not None:
            self._lock_file.close()  # only the child's copy: the parent keeps the lock
        self._lock_file, self._lock_path, self._name = None, None, ""

    def _create_lock_file(self) -> str:
        """Create a lock file and lock it; return the name of the owner.

        Raises:
            OSError: the file cannot be created or locked.
        """
        while True:
            name = secrets.token_hex(16)
            path = _lock_path(self._file, name)
            lock_file = io.FileIO(os.open(path, _CREATE_FLAGS, 0o600), "r+")
            try:
                # Another process that removes stale files may have locked or removed it.
                if try_lock(lock_file.fileno()) and _is_same_file(lock_file.fileno(), path):
                    self._lock_file, self._lock_path = lock_file, path
                    return f"lock:{name}"
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                lock_file.close()
                raise
            lock_file.close()


def is_alive(file: Path, name: str, last_seen: float) -> bool:
    """Return whether an owner beside ``file`` is still alive.

    Args:
        name: from `OwnerLock.name`, or as version 1 of the journal wrote it.
        last_seen: time of the owner's last update in seconds since the epoch.
    """
    kind, _, rest = name.partition(":")
    if kind == "lock" and re.fullmatch(r"[0-9a-f]{32}", rest):
        return _is_locked(_lock_path(file, rest), last_seen)
    if kind == "pid":
        pid, _, remainder = rest.partition(":")
        started, _, machine = remainder.partition(":")
        if machine != _boot_and_pid_namespace():
            return time.time() - last_seen < _MAX_SILENCE
        return _is_running(pid, started)
    return _is_running(kind, rest)


def _is_locked(path: Path, last_seen: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:  # the file of another user: the state is unknown
        return time.time() - last_seen < _MAX_SILENCE
    try:
        for attempt in range(_MAX_PROBES):
            if attempt:
                time.sleep(_PROBE_INTERVAL)
            try:
                # A shared lock, so that other processes that probe find it free as well.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:
                return time.time() - last_seen < _MAX_SILENCE
            return False
        return True
    finally:
        os.close(descriptor)


def _lock_path(file: Path, name: str) -> Path:
    return file.with_name(f".{file.name}.{name}.owner")


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _is_running(pid: str, start_time: str) -> bool:
    """Return whether a process still runs, and is not another one with the same id."""
    return pid.isdecimal() and bool(start_time) and _process_start_time(int(pid)) == start_time


def _process_start_time(pid: int) -> str:
    """Return the start time of a process in kernel ticks; "" if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name in parentheses may contain anything; the fields after it are plain.
    return stat.rpartition(")")[2].split()[19]


def _boot_and_pid_namespace() -> str:
    """Return the boot and pid namespace, within which a process id is unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return "unknown"
