"""Runs the lanes of a fan-out in threads of their own, until all have ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from concil.runtime.cancellation import CancelScope, run_in_scope
from concil.runtime.limits import start_thread


class Lanes:
    """Runs functions at the same time. One thread calls `run`."""

    def __init__(self, scope: CancelScope) -> None:
        """Run them for the call of ``scope``."""
        self._scope = scope
        self._errors: list[BaseException] = []

    def run(self, functions: Iterable[Callable[[], None]], *, has_threads: bool = True) -> None:
        """Run all functions, the first one in the calling thread.

        If there are no threads, or the system refuses one, the calling thread runs what is left.

        Raises:
            BaseException: the first exception of a function; it cancels the call, and so the
                other functions.
        """
        waiting = list(functions)
        threads: list[threading.Thread] = []
        while has_threads and len(waiting) > 1 and self._start(waiting[-1], threads):
            waiting.pop()
        try:
            for function in waiting:
                self._run_function(function)
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C in this thread
            self._scope.cancel()
            for thread in threads:
                thread.join()
            raise
        if self._errors:
            raise self._errors[0]

    def _start(self, function: Callable[[], None], threads: list[threading.Thread]) -> bool:
        number = len(threads) + 1
        name = f"concil-lane-{number}"
        thread = threading.Thread(target=self._run_in_thread, args=(function,), name=name)
        if not start_thread(thread, f"copying to {number} destinations at the same time"):
            return False
        threads.append(thread)
        return True

    def _run_in_thread(self, function: Callable[[], None]) -> None:
        with run_in_scope(self._scope):
            self._run_function(function)

    def _run_function(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._errors.append(error)
            self._scope.cancel()
