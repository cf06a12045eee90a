"""Recursion up to the limit of Python."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def pause_collection() -> Iterator[None]:
    """Collect no garbage within the block, which may reach the limit of recursion.

    A collection runs finalizers of any objects of the process. One that starts near the limit fails
    itself, with a traceback on standard error that no caller can catch.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
