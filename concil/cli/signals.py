"""Runs a command so that SIGINT, SIGTERM and SIGHUP end it in an orderly way."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self, TypeAlias

from concil.cli.context import CommandContext
from concil.cli.output.errors import INTERRUPTED
from concil.cli.output.interruption import describe_interruption
from concil.display.stopping import Stopping
from concil.runtime.limits import start_thread

__all__ = ["CommandFunction", "run_interruptibly"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Events of the queue: what a second signal does, as the display says after the first one.
_LIVENESS_INTERVAL = 1.0  # seconds between checks that the thread of the command is alive
_AGAIN = "Ctrl-C again quits"
_SECOND_SIGNAL = "a second signal quits"

CommandFunction: TypeAlias = Callable[[CommandContext], int]


def run_interruptibly(function: CommandFunction, command: CommandContext) -> int:
    """Run a verb in its own thread, and end it on SIGINT, SIGTERM and SIGHUP.

    The main thread only waits, so that it handles signals at once, whatever the verb does.

    Returns:
        The exit code; INTERRUPTED if a signal ended the verb.
    """
    events = _EventQueue()
    # The failure of a thread that ends without a word, which it does only for want of memory.
    code = [INTERRUPTED]
    failure: list[BaseException] = [MemoryError()]

    def run() -> None:
        try:
            code[0] = function(command)
            failure.clear()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failure[0] = error
        events.put("ended")

    def note(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and command.shutdown.on_hangup is not None:
            command.shutdown.on_hangup()
            return
        events.put(_AGAIN if number == signal.SIGINT else _SECOND_SIGNAL)

    thread = threading.Thread(target=run, name="concil-command", daemon=True)
    with events, _signal_handlers(note), _without_memory_tracebacks():
        is_started = start_thread(thread, "running in the main thread", is_required=True)
        is_interrupted = is_started and not _wait_for_end(events, command, thread)
    if not is_started:
        with _signal_handlers(_raise_interrupt):
            return function(command)
    if is_interrupted or (failure and command.shutdown.event.is_set()):
        _print_interruption(command)
        return INTERRUPTED
    if failure:
        raise failure[0]
    return code[0]


def _print_interruption(command: CommandContext) -> None:
    """Print what was done, and what can be resumed."""
    command.display.close()
    command.display.write(describe_interruption(command.display.snapshot()), "error")


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _EventQueue:
    """The events that the main thread waits for. Any thread or signal handler may put one.

    The kernel may deliver a signal to any thread, and Python's handler runs in the main
    thread only: a byte in a socket wakes it up whichever thread got the signal.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()  # its put is reentrant
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._wakeup_writer.settimeout(0)
        self._previous_wakeup_fd = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous_wakeup_fd = signal.set_wakeup_fd(
                self._wakeup_writer.fileno(), warn_on_full_buffer=False
            )
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._previous_wakeup_fd)
        self._wakeup_reader.close()
        self._wakeup_writer.close()

    def put(self, event: str) -> None:
        """Add an event and wake the main thread."""
        self._queue.put(event)
        with contextlib.suppress(OSError):  # full: already awake; closed: no longer waiting
            self._wakeup_writer.send(b"\0")

    def get(self, timeout: float | None) -> str:
        """Wait for the next event.

        Raises:
            queue.Empty: the timeout in seconds is over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with contextlib.suppress(queue.Empty):
                return self._queue.get_nowait()
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise queue.Empty
            self._wakeup_reader.settimeout(remaining)
            with contextlib.suppress(TimeoutError):
                self._wakeup_reader.recv(64)


def _wait_for_end(events: _EventQueue, command: CommandContext, thread: threading.Thread) -> bool:
    """Wait for the command to end; exits the program if it does not end in time."""
    deadline: float | None = None
    while True:
        remaining = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            event = events.get(timeout=min(remaining, _LIVENESS_INTERVAL))
        except queue.Empty:
            if not thread.is_alive():
                event = "ended"  # without memory it could not say so
            elif remaining > _LIVENESS_INTERVAL:
                continue
            else:
                event = "late"
        if event == "ended":
            return True
        if deadline is not None:
            _force_exit(command)
        deadline = time.monotonic() + command.shutdown.grace_period
        command.display.show_stopping(Stopping(deadline, event))  # before anything that takes time
        command.shutdown.request()


def _force_exit(command: CommandContext) -> None:
    """Exit with threads still running; their work is abandoned."""
    command.shutdown.run_exit_callbacks()
    _print_interruption(command)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def _without_memory_tracebacks() -> Iterator[None]:
    """Print no traceback of a thread that ends for want of memory: one line says so later."""
    previous = threading.excepthook

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, MemoryError):
            previous(arguments)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = previous


@contextlib.contextmanager
def _signal_handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a signal handler temporarily; signals that were ignored stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    replaced_handlers = {
        number: previous
        for number, previous in previous_handlers.items()
        if previous is not signal.SIG_IGN
    }
    for number in replaced_handlers:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in replaced_handlers.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
