"""Runs the lanes of a fan-out in threads of their own, until all have ended."""

from __future__ import annotations

import threading
from collections.abc import Callable

from concil.runtime.cancellation import CancelScope, run_in_scope
from concil.runtime.limits import start_thread


class Lanes:
    """Threads that run at the same time. Any thread may start one; one thread calls `wait`."""

    def __init__(self, scope: CancelScope) -> None:
        """Run them for the call of ``scope``."""
        self._scope = scope
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[[], None]) -> bool:
        """Start a thread; return False, after a warning, if the system refuses it.

        An exception of the function cancels the call, and so the other threads.
        """
        number = len(self._threads) + 1
        name = f"concil-lane-{number}"
        thread = threading.Thread(target=self._run_in_thread, args=(function,), name=name)
        is_started = start_thread(thread, f"copying to {number} destinations at the same time")
        if is_started:
            self._threads.append(thread)
        return is_started

    def wait(self) -> None:
        """Wait until all threads have ended.

        Raises:
            BaseException: the first exception of a function.
        """
        try:
            self.join()
        except BaseException:  # Ctrl-C in this thread
            self._scope.cancel()
            self.join()
            raise
        if self._errors:
            raise self._errors[0]

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join()

    def _run_in_thread(self, function: Callable[[], None]) -> None:
        with run_in_scope(self._scope):
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised again by `wait`
                self._errors.append(error)
                self._scope.cancel()
