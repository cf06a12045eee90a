"""Limits of the machine: threads, memory and open files that cannot be had."""

from __future__ import annotations

import errno
import logging
import threading

logger = logging.getLogger(__name__)

THREADS = "raise the limit of processes (ulimit -u) or of memory (ulimit -v)"
FILES = "raise the limit of open files (ulimit -n) or use fewer jobs"
MEMORY = "raise the limit of memory (ulimit -v) or use fewer jobs"
_TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_NO_MEMORY = frozenset({errno.ENOMEM, errno.ENOBUFS})


def start_thread(thread: threading.Thread, what: str) -> bool:
    """Start a thread; return False, after a warning, if the system has none to give.

    Args:
        what: what goes on without it, for the warning.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        logger.warning("cannot start another thread (%s): %s; %s", error, what, THREADS)
        return False
    return True


def reached(error: BaseException) -> tuple[str, str] | None:
    """Say which limit of the machine an error is about, and the remedy; None: none."""
    if isinstance(error, MemoryError):
        return "out of memory", MEMORY
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "cannot start another thread", THREADS
    if isinstance(error, OSError):
        if error.errno in _TOO_MANY_FILES:
            return "too many open files", FILES
        if error.errno in _NO_MEMORY:
            return "out of memory", MEMORY
    return None
