"""One command as it runs: its options, what it shows, what stops it."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Self, TypeAlias

from concil.bars import Display
from concil.cli import options
from concil.cli.failures import INTERRUPTED, INTERRUPTED_LINE
from concil.engine import Engine, Sides
from concil.limits import start_thread
from concil.progress import ProgressSink, tee
from concil.stores import Stores
from concil.transfer.journal import Journal

GRACE = 10.0  # seconds from the first signal until a transfer is left as it is
_SHORT_GRACE = 1.0  # seconds, where nothing is under way that could be gone on with
_CLOSING = 7.0  # seconds for chunks in flight after a failure; well below GRACE
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Says that somebody wants the command to end. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin with nobody wanting it."""
        self.event = threading.Event()
        self.grace = _SHORT_GRACE  # seconds until nobody waits any more
        self._lock = threading.Lock()  # guards the lists below
        self._soon: list[Callable[[], object]] = []
        self._abandon: list[Callable[[], object]] = []

    def also(self, call: Callable[[], object]) -> None:
        """Call it when the stop comes; at once if it came."""
        with self._lock:
            self._soon.append(call)
        if self.event.is_set():
            call()

    def before_exit(self, call: Callable[[], object]) -> None:
        """Call it when the program ends without waiting for the command."""
        with self._lock:
            self._abandon.append(call)

    def set(self) -> None:
        """Ask the command to end soon."""
        self.event.set()
        with self._lock:
            calls = list(self._soon)
        for call in calls:
            call()

    def abandon(self) -> None:
        """Do what must be done although the command has not ended."""
        with self._lock:
            calls = list(self._abandon)
        for call in calls:
            with contextlib.suppress(Exception):  # the program ends, whatever happens
                call()


@dataclass(frozen=True, slots=True)
class Command:
    """What a verb works with."""

    arguments: argparse.Namespace
    display: Display
    stop: Stop = field(default_factory=Stop)

    def tell(self, line: str) -> None:
        """Show a message for people, unless they asked for quiet."""
        if not self.arguments.quiet:
            self.display.write(line, "info")

    @contextlib.contextmanager
    def engine(
        self,
        sides: Sides | None = None,
        journal: Journal | None = None,
        watch: ProgressSink | None = None,
    ) -> Iterator[Engine]:
        """Open an engine with the options of the command; a stop cancels it.

        Args:
            sides: how registries are reached; None: as the options say.
            journal: where it remembers; None: the user's own.
            watch: gets the progress events beside the display.
        """
        engine = Engine(
            options.config_of(self.arguments),
            progress=self.display if watch is None else tee(self.display, watch),
            sides=sides or options.sides_of(self.arguments),
            journal=journal,
        )
        self.stop.grace = GRACE
        self.stop.also(engine.cancel)
        try:
            yield engine
        except BaseException:  # raised again: no worker may keep a failed command waiting
            engine.cancel()
            engine.close(_CLOSING)
            raise
        engine.close()

    @contextlib.contextmanager
    def stores(self) -> Iterator[Stores]:
        """Open stores with the options of the command."""
        config = options.config_of(self.arguments)
        with Stores(config, timeouts=None, cancel=self.stop.event) as stores:
            yield stores


Work: TypeAlias = Callable[[Command], int]


def supervise(work: Work, command: Command) -> int:
    """Run a verb in a thread of its own, and end it on SIGINT, SIGTERM and SIGHUP.

    The main thread only waits: so a signal is seen at once, whatever the verb waits for.

    Returns:
        The exit code; INTERRUPTED after a signal that the verb obeyed.
    """
    happened = _Happened()
    code, failure = [INTERRUPTED], [BaseException()]

    def run() -> None:
        try:
            code[0] = work(command)
            failure.clear()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failure[0] = error
        happened.put("ended")

    def note(_number: int, _frame: FrameType | None) -> None:
        happened.put("signal")

    thread = threading.Thread(target=run, name="concil-command", daemon=True)
    with happened, _handlers(note):
        started = start_thread(thread, "going on in the only one", needed=True)
        interrupted = started and not _ended(happened, command)
    if not started:
        with _handlers(_interrupt):
            return work(command)
    if interrupted or (failure and command.stop.event.is_set()):
        command.display.close()
        command.display.write(INTERRUPTED_LINE, "error")
        return INTERRUPTED
    if failure:
        raise failure[0]
    return code[0]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Happened:
    """What the main thread waits for. Any thread, and a signal handler, may put.

    The kernel may hand a signal to any thread, and Python's handler then waits until the
    main thread comes by: a byte in a socket wakes it up wherever the signal was taken.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()  # its put is reentrant
        self._woken, self._wake = socket.socketpair()
        self._wake.settimeout(0)
        self._before = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._before)
        self._woken.close()
        self._wake.close()

    def put(self, what: str) -> None:
        """Tell the main thread."""
        self._queue.put(what)
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has gone on
            self._wake.send(b"\0")

    def get(self, timeout: float | None) -> str:
        """Wait for the next one.

        Raises:
            queue.Empty: nothing happened in so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with contextlib.suppress(queue.Empty):
                return self._queue.get_nowait()
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise queue.Empty
            self._woken.settimeout(left)
            with contextlib.suppress(TimeoutError):
                self._woken.recv(64)


def _ended(happened: _Happened, command: Command) -> bool:
    """Wait for the end; the program exits here if the command does not end in time."""
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            what = happened.get(timeout=left)
        except queue.Empty:
            what = "late"
        if what == "ended":
            return True
        if deadline is not None:
            _exit(command)
        deadline = time.monotonic() + command.stop.grace
        command.stop.set()


def _exit(command: Command) -> None:
    """End the program with threads still running: what they do is lost, and may be."""
    command.stop.abandon()
    command.display.close()
    command.display.write(INTERRUPTED_LINE, "error")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def _handlers(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals meanwhile; one that the caller had ignored stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, old in ours.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
