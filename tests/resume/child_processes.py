"""Runs a command or a program in a child process, to be killed at a byte of its own."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from concil.cli.main import main
from tests.support.relay import Relay
from tests.support.scale import FULL

MIB = 1024 * 1024
TIMEOUT = 600 if FULL else 100  # seconds for one child


@dataclass(frozen=True, slots=True)
class CompletedChild:
    """A child that has ended."""

    code: int  # negative: the signal that killed it
    out: str
    err: str


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start ``concil`` with some arguments, or a program of Python's behind ``-c``."""
    begin = [] if arguments[0] == "-c" else ["-m", "concil"]
    return subprocess.Popen(
        [sys.executable, *begin, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_end(child: subprocess.Popen[str]) -> CompletedChild:
    """Wait until a child has ended."""
    try:
        out, err = child.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise
    return CompletedChild(child.returncode, out, err)


def run(arguments: Sequence[str]) -> CompletedChild:
    """Run ``concil`` to its end."""
    return wait_for_end(start(arguments))


def run_here(arguments: Sequence[str]) -> CompletedChild:
    """Run ``concil`` to its end in this process, where only what it says is looked at."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main(list(arguments))
    return CompletedChild(code, out.getvalue(), err.getvalue())


def kill_when(
    relay: Relay,
    arguments: Sequence[str],
    condition: Callable[[Relay], bool],
    number: signal.Signals = signal.SIGKILL,
) -> CompletedChild:
    """Run ``concil`` and send it a signal as soon as the relay has seen enough.

    A child that ends before that is only waited for.
    """
    child = start(arguments)

    def over(watched: Relay) -> bool:
        return condition(watched) or child.poll() is not None

    try:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            # The relay wakes nobody when a child ends: look again now and then.
            with contextlib.suppress(TimeoutError):
                relay.wait_for(over, timeout=0.1)
                break
        if child.poll() is None:
            child.send_signal(number)
    except BaseException:
        child.kill()
        child.communicate()
        raise
    ended = wait_for_end(child)
    # What was under way is still being counted.
    relay.wait_for(lambda watched: watched.open_connections == 0, timeout=TIMEOUT)
    return ended
