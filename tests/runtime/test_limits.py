"""Threads are started if there is memory for them."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import pytest

from concil.config import MIB
from concil.runtime import limits

STACK = 8 * MIB  # bytes


@pytest.mark.parametrize(
    ("free", "is_required", "is_started"),
    [
        (STACK, True, False),
        (STACK + 64 * MIB, True, True),
        (STACK + 64 * MIB, False, False),
        (STACK + 1024 * MIB, False, True),
    ],
)
def test_a_thread_needs_memory(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    free: int,
    is_required: bool,
    is_started: bool,
) -> None:
    """`Thread.start` would wait forever for a thread that dies before it has started."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + free
    found = {resource.RLIMIT_AS: (memory, memory), resource.RLIMIT_STACK: (STACK, STACK)}
    monkeypatch.setattr(resource, "getrlimit", found.__getitem__)
    has_run = threading.Event()
    thread = threading.Thread(target=has_run.set)

    assert limits.start_thread(thread, "waiting", is_required=is_required) == is_started

    if is_started:
        thread.join()
    assert has_run.is_set() == is_started
    assert ("waiting; raise the process limit" in caplog.text) != is_started
