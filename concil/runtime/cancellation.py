"""Cancels a single call on all threads that work for it.

All calls share the threads, connections and waits of a run, so an event that ends the run would
end every call. Each thread therefore knows the call it works for, and a `ScopedEvent` is also set
for the threads of a cancelled call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from concil.errors import Cancelled
from concil.runtime.limits import limit_error

# Seconds for a chunk in flight: a registry may lose the session if a chunk is interrupted.
GRACE_PERIOD = 7.0
ABANDON_GRACE_PERIOD = 1.0  # seconds in which threads should notice that they are abandoned
_CANCEL_POLL_INTERVAL = 0.1  # seconds between two checks of events that cannot wake a thread up


class SupportsIsSet(Protocol):
    """An object that can cancel a call: a ``threading.Event``, or anything with its `is_set`."""

    def is_set(self) -> bool:
        """Return whether the call is cancelled."""
        ...


class CancelScope:
    """Cancellation of one call, and the jobs that run for it. Any thread may call any method."""

    def __init__(
        self, event: SupportsIsSet | None = None, *, is_callback_error_fatal: bool = True
    ) -> None:
        """Begin a call within the current call of the thread, if there is one.

        Args:
            event: cancels the call when it is set.
            is_callback_error_fatal: an exception in a progress callback ends the call.
        """
        self.is_callback_error_fatal = is_callback_error_fatal
        self._event = event
        self._parent = current_scope()
        self._cancel_time: float | None = None  # monotonic seconds
        self._jobs_changed = threading.Condition()  # guards the fields below
        self._running_count = 0
        self._callback_error: BaseException | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the call is cancelled; a chunk in flight may still be completed."""
        if self._cancel_time is None:
            event, parent = self._event, self._parent
            if (event is not None and event.is_set()) or (
                parent is not None and parent.is_cancelled
            ):
                self.cancel()
        return self._cancel_time is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether chunks in flight must stop as well."""
        cancel_time = self._cancel_time if self.is_cancelled else None
        return cancel_time is not None and time.monotonic() - cancel_time > GRACE_PERIOD

    @property
    def callback_error(self) -> BaseException | None:
        """The first exception that a callback of the call raised."""
        return self._callback_error

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled if the call is cancelled."""
        if self.is_cancelled:
            raise Cancelled("cancelled before it started")

    def cancel(self) -> None:
        """Cancel the call."""
        self._cancel_time = self._cancel_time or time.monotonic()

    def cancel_with_error(self, error: BaseException) -> None:
        """Cancel the call because a callback raised ``error``, which is raised to the caller."""
        with self._jobs_changed:
            self._callback_error = self._callback_error or error
        self.cancel()

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make the current thread work for this call."""
        previous, _thread_state.scope = current_scope(), self
        try:
            yield
        finally:
            _thread_state.scope = previous

    @contextlib.contextmanager
    def run_job(self) -> Iterator[None]:
        """Make the current thread run a job of this call; `wait_for_jobs` waits for it."""
        self.count_jobs(1)
        try:
            with self.activate():
                yield
        finally:
            self.count_jobs(-1)

    def count_jobs(self, change: int) -> None:
        """Change the number of running jobs of this call, and of the calls around it."""
        with self._jobs_changed:
            self._running_count += change
            self._jobs_changed.notify_all()
        if self._parent is not None:
            self._parent.count_jobs(change)

    def wait_for_jobs(self, timeout: float) -> bool:
        """Wait until no job of the call is running; return False on timeout."""
        with self._jobs_changed:
            return self._jobs_changed.wait_for(lambda: not self._running_count, timeout)


class _ThreadState(threading.local):
    scope: CancelScope | None = None
    is_shielded = False


_thread_state = _ThreadState()


def current_scope() -> CancelScope | None:
    """Return the call that this thread works for."""
    return _thread_state.scope


@contextlib.contextmanager
def shield_from_cancel() -> Iterator[None]:
    """Run the block even if the call of this thread, or the whole run, is cancelled."""
    previous, _thread_state.is_shielded = _thread_state.is_shielded, True
    try:
        yield
    finally:
        _thread_state.is_shielded = previous


@contextlib.contextmanager
def run_in_scope(scope: CancelScope | None) -> Iterator[None]:
    """Run a job in this thread for a call, or for none."""
    with contextlib.nullcontext() if scope is None else scope.run_job():
        yield


@contextlib.contextmanager
def call_scope(
    event: SupportsIsSet | None = None, *, is_callback_error_fatal: bool = True
) -> Iterator[CancelScope]:
    """Run a call for the duration of the block; after an exception all its work stops.

    Args:
        event: cancels the call when it is set.
        is_callback_error_fatal: an exception in a progress callback ends the call.
    Raises:
        BaseException: the exception of a callback, instead of Cancelled.
        LimitReached: the system has no more threads, memory or open files.
    """
    scope = CancelScope(event, is_callback_error_fatal=is_callback_error_fatal)
    try:
        with scope.activate():
            scope.raise_if_cancelled()
            yield scope
    except BaseException as error:  # raised again; includes signals during a wait
        scope.cancel()
        scope.wait_for_jobs(GRACE_PERIOD + ABANDON_GRACE_PERIOD)
        if scope.callback_error is not None:
            raise scope.callback_error from None
        limit = limit_error(error)
        if limit is not None:
            raise limit from error
        raise
    if scope.callback_error is not None:
        raise scope.callback_error


class ScopedEvent(threading.Event):
    """An event of a run that is also set for the threads of a cancelled call."""

    def __init__(self, *, on_abandon: bool = False) -> None:
        """Create an event that is set for cancelled calls, or only for abandoned ones."""
        super().__init__()
        self._on_abandon = on_abandon

    def is_set(self) -> bool:
        """Return whether this thread must stop."""
        if _thread_state.is_shielded:
            return False
        if super().is_set():
            return True
        scope = current_scope()
        if scope is None:
            return False
        return scope.is_abandoned if self._on_abandon else scope.is_cancelled

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until this thread must stop; return False on timeout."""
        if current_scope() is None and not _thread_state.is_shielded:
            return super().wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            remaining = _CANCEL_POLL_INTERVAL if deadline is None else deadline - time.monotonic()
            if remaining <= 0:
                return False
            pause = min(remaining, _CANCEL_POLL_INTERVAL)
            time.sleep(pause) if _thread_state.is_shielded else super().wait(pause)
        return True
