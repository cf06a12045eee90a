"""A process that runs for long does not fill an arena of malloc for each thread."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas"
)

PROGRAM = """
import ctypes, os, threading
from concil.runtime.malloc import limit_malloc_arenas

limit_malloc_arenas()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
everyone = threading.Barrier(6, timeout=30)

def allocate():
    assert library.malloc(100_000)
    everyone.wait()  # all of them live at once

threads = [threading.Thread(target=allocate) for _ in range(5)]
for thread in threads:
    thread.start()
everyone.wait()
for thread in threads:
    thread.join()
library.fdopen.restype = ctypes.c_void_p
stream = library.fdopen(1, b"w")
library.malloc_info(0, ctypes.c_void_p(stream))
library.fflush(ctypes.c_void_p(stream))
"""


def count_arenas(**environment: str) -> int:
    """Return how many arenas a process with five threads has."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    return process.stdout.count("<heap nr=")


def test_threads_share_arenas() -> None:
    assert count_arenas() == 2


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}],
    ids=lambda environment: next(iter(environment)),
)
def test_the_number_of_the_user_is_used(environment: dict[str, str]) -> None:
    assert count_arenas(**environment) == 4
