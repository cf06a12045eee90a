"""Handles threads, memory and open files that the system refuses."""

from __future__ import annotations

import errno
import logging
import resource
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import ConcilError, LimitReached

logger = logging.getLogger(__name__)

THREADS_REMEDY = "raise the process limit (ulimit -u) or the memory limit (ulimit -v)"
FILES_REMEDY = "raise the limit of open files (ulimit -n) or use fewer jobs"
MEMORY_REMEDY = "raise the memory limit (ulimit -v) or use fewer jobs"
_DEFAULT_STACK_SIZE = 8 * MIB  # bytes, if the system has no limit
_MALLOC_ARENA_SIZE = 64 * MIB  # bytes that glibc's malloc reserves for a thread
_RESERVED_MEMORY = 64 * MIB  # bytes for concurrent work
_START_MEMORY = 2 * MIB  # bytes without which a thread dies before it says that it has started
_FILE_LIMIT_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})
_MEMORY_ERRNOS = frozenset({errno.ENOMEM, errno.ENOBUFS})


def start_thread(thread: threading.Thread, consequence: str, *, is_required: bool = False) -> bool:
    """Start a thread; if the system has none to spare, log a warning and return False.

    If the memory of the process is limited, some is reserved for the work itself: without it
    nothing would succeed, and Python might abort.

    Args:
        consequence: the effect on the work, for the warning; "" if it was logged before.
        is_required: there is no work without the thread, so it may use the reserved memory.
    """
    # `Thread.start` waits forever for a thread that dies before it says that it has started.
    needed = _START_MEMORY if is_required else _MALLOC_ARENA_SIZE + _RESERVED_MEMORY
    if not _has_memory_for_thread(needed):
        reason = "there is not enough memory"
    else:
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            reason = str(error) or "out of memory"
        else:
            return True
    if consequence:
        logger.warning(
            "cannot start another thread (%s): %s; %s", reason, consequence, THREADS_REMEDY
        )
    return False


def _has_memory_for_thread(needed: int) -> bool:
    """Return whether there is memory for the stack of a thread, and ``needed`` bytes more."""
    memory_limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if memory_limit == resource.RLIM_INFINITY:
        return True
    stack_size, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stack_size = _DEFAULT_STACK_SIZE if stack_size == resource.RLIM_INFINITY else stack_size
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, MemoryError):
        return False
    return memory_limit - pages * resource.getpagesize() > stack_size + needed


def describe_limit(error: BaseException) -> tuple[str, str] | None:
    """Return the system limit that an error is about, and a remedy; None for other errors."""
    # The dynamic linker reports a lack of memory as an ImportError.
    is_unloaded = isinstance(error, ImportError) and "failed to map segment" in str(error)
    if is_unloaded or isinstance(error, MemoryError):
        return "out of memory", MEMORY_REMEDY
    if isinstance(error, RuntimeError) and not isinstance(error, ConcilError):
        # CPython raises these if the system refuses a thread, or memory for a lock.
        if "can't start new thread" in str(error):
            return "cannot start another thread", THREADS_REMEDY
        if "can't allocate lock" in str(error):
            return "out of memory", MEMORY_REMEDY
    if isinstance(error, OSError):
        if error.errno in _FILE_LIMIT_ERRNOS:
            return "Too many open files", FILES_REMEDY
        if error.errno in _MEMORY_ERRNOS:
            return "out of memory", MEMORY_REMEDY
    return None


def limit_error(error: BaseException, operation: str = "") -> LimitReached | None:
    """Return a LimitReached for the limit that ``error`` is about; None for other errors."""
    limit = None if isinstance(error, ConcilError) else describe_limit(error)
    if limit is None:
        return None
    return LimitReached(f"{operation}: {limit[0]}" if operation else limit[0], remedy=limit[1])
