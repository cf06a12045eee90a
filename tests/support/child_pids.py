"""The child processes of a process, and whether they live."""

from __future__ import annotations

import os
import time
from pathlib import Path

PROCESSES = Path("/proc")


def child_pids(parent: int) -> list[int]:
    """Return the processes that do a part of a mirror for a parent."""
    found = []
    for task in (PROCESSES / str(parent) / "task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:  # the thread has ended
            continue
        found += [int(pid) for pid in children if "process_worker" in command_line(int(pid))]
    return sorted(found)


def command_line(pid: int) -> str:
    """Return the arguments of a process; "" if it has ended."""
    try:
        return (PROCESSES / str(pid) / "cmdline").read_text()
    except OSError:
        return ""


def environment(pid: int) -> str:
    """Return the environment of a process."""
    return (PROCESSES / str(pid) / "environ").read_text()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be noticed does not."""
    try:
        status = (PROCESSES / str(pid) / "stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_for_children(parent: int, count: int, timeout: float = 60) -> list[int]:
    """Wait until a process has so many children, and return them."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if len(found := child_pids(parent)) >= count:
            return found
        time.sleep(0.01)
    raise TimeoutError(f"process {parent} has {len(child_pids(parent))} children")


def wait_for_ends(pids: list[int], timeout: float = 60) -> None:
    """Wait until processes have ended; kill those that have not."""
    deadline = time.monotonic() + timeout
    while any(map(is_alive, pids)):
        if time.monotonic() > deadline:
            left = [pid for pid in pids if is_alive(pid)]
            for pid in left:
                os.kill(pid, 9)
            raise TimeoutError(f"these processes have not ended: {left}")
        time.sleep(0.01)
