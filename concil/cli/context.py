"""The context of a running command: options, display and shutdown."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable
from dataclasses import field

from concil.display.display import Display
from concil.runtime.dataclass import dataclass

GRACE_PERIOD = 10.0  # seconds from the first signal until running transfers are abandoned
SHORT_GRACE_PERIOD = 1.0  # seconds, for commands without resumable transfers


class Shutdown:
    """The request to end a command. Thread-safe."""

    def __init__(self) -> None:
        """Create it without a request."""
        self.event = threading.Event()
        self.grace_period = SHORT_GRACE_PERIOD  # seconds until the program exits without waiting
        # What SIGHUP does in place of ending the command; called by the signal handler.
        self.on_hangup: Callable[[], object] | None = None
        self._lock = threading.Lock()  # guards the lists below
        self._callbacks: list[Callable[[], object]] = []
        self._exit_callbacks: list[Callable[[], object]] = []

    def add_callback(self, call: Callable[[], object]) -> None:
        """Call a function when the end is requested; at once if it already was."""
        with self._lock:
            self._callbacks.append(call)
        if self.event.is_set():
            call()

    def add_exit_callback(self, call: Callable[[], object]) -> None:
        """Call a function if the program exits without waiting for the command."""
        with self._lock:
            self._exit_callbacks.append(call)

    def request(self) -> None:
        """Request the command to end soon."""
        self.event.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def run_exit_callbacks(self) -> None:
        """Run the exit callbacks, whatever they raise."""
        with self._lock:
            callbacks = list(self._exit_callbacks)
        for callback in callbacks:
            with contextlib.suppress(Exception):  # the program exits in any case
                callback()


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The options, display and shutdown of a running command."""

    arguments: argparse.Namespace
    display: Display
    shutdown: Shutdown = field(default_factory=Shutdown)

    def print_message(self, line: str) -> None:
        """Print a message, unless ``--quiet`` is given."""
        if not self.arguments.quiet:
            self.display.write(line, "info")
