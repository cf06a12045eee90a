"""Limits of the machine: threads, memory and open files that cannot be had."""

from __future__ import annotations

import errno
import logging
import resource
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import ConcilError, LimitReached

logger = logging.getLogger(__name__)

THREADS = "raise the limit of processes (ulimit -u) or of memory (ulimit -v)"
FILES = "raise the limit of open files (ulimit -n) or use fewer jobs"
MEMORY = "raise the limit of memory (ulimit -v) or use fewer jobs"
_STACK = 8 * MIB  # bytes, where the system says none
_ARENA = 64 * MIB  # bytes that glibc's malloc reserves for a thread
_SPARE = 64 * MIB  # bytes for what is done at the same time
_TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_NO_MEMORY = frozenset({errno.ENOMEM, errno.ENOBUFS})


def start_thread(thread: threading.Thread, what: str, *, needed: bool = False) -> bool:
    """Start a thread; return False, after a warning, if the system has none to give.

    Where the memory of the process is limited some is left for the work itself: with the last of it
    gone nothing would succeed, and Python may abort.

    Args:
        what: what goes on without it, for the warning; "": it was told before.
        needed: nothing goes on without it, so it may have the last of the memory.
    """
    if not needed and not _has_memory_for_thread():
        why = "there is not enough memory"
    else:
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            why = str(error) or "out of memory"
        else:
            return True
    if what:
        logger.warning("cannot start another thread (%s): %s; %s", why, what, THREADS)
    return False


def _has_memory_for_thread() -> bool:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return True
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stack = _STACK if stack == resource.RLIM_INFINITY else stack
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, MemoryError):
        return False
    return most - pages * resource.getpagesize() > stack + _ARENA + _SPARE


def reached(error: BaseException) -> tuple[str, str] | None:
    """Say which limit of the machine an error is about, and the remedy; None: none."""
    if isinstance(error, MemoryError):
        return "out of memory", MEMORY
    if isinstance(error, RuntimeError) and not isinstance(error, ConcilError):
        # What CPython raises where the system refuses a thread, or memory for a lock.
        if "can't start new thread" in str(error):
            return "cannot start another thread", THREADS
        if "can't allocate lock" in str(error):
            return "out of memory", MEMORY
    if isinstance(error, OSError):
        if error.errno in _TOO_MANY_FILES:
            return "Too many open files", FILES
        if error.errno in _NO_MEMORY:
            return "out of memory", MEMORY
    return None


def named(error: BaseException, what: str = "") -> LimitReached | None:
    """Return the error that names the limit which ``error`` is about; None: it is about none."""
    limit = None if isinstance(error, ConcilError) else reached(error)
    if limit is None:
        return None
    return LimitReached(f"{what}: {limit[0]}" if what else limit[0], remedy=limit[1])
