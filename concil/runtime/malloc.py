"""Limits the memory that glibc's malloc keeps for threads that have ended."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # parameter of mallopt(3)
_MAX_ARENAS = 2  # one for the main thread, and one that the others share


def limit_malloc_arenas() -> None:
    """Let all threads share two arenas of malloc; to be called before they start.

    glibc gives each thread an arena, up to eight for each core, and keeps it after the thread.
    A process that starts threads for months fills all of them, one after the other, with pieces
    that it does not use. Threads rarely compete for an arena, for most of Python's allocations
    hold the interpreter lock. A number that the user has set is left alone. Other C libraries
    have no such arenas. Source: mallopt(3).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in tunables:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_ARENA_MAX, _MAX_ARENAS)
