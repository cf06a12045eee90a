"""Cancelling one call alone, on every thread that works for it.

The threads, connections and waits of a run are shared by all its calls, so an event that ends the
run would end them all. Each thread therefore knows for which call it works, and a `ScopedEvent` is
also set for the threads of a call that was cancelled.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from concil.errors import Cancelled
from concil.limits import named

GRACE = 7.0  # seconds for a chunk in flight: a registry may lose the session with a broken one
_LAST_GRACE = 1.0  # seconds for threads to notice that they are abandoned
_TICK = 0.1  # seconds between two looks at what cannot wake a thread up


class SupportsIsSet(Protocol):
    """What a caller may give to cancel a call: a ``threading.Event``, or anything like it."""

    def is_set(self) -> bool:
        """Whether the call is to end."""
        ...


class CancelScope:
    """What one call can be cancelled by, and the jobs that run for it. Any thread."""

    def __init__(self, given: SupportsIsSet | None = None, *, minds_callbacks: bool = True) -> None:
        """Begin a call within that of the thread, if there is one.

        Args:
            given: cancels the call when it is set.
            minds_callbacks: a progress callback that raises ends the call.
        """
        self.minds_callbacks = minds_callbacks
        self._given = given
        self._outer = current_scope()
        self._since: float | None = None  # monotonic seconds of the cancel
        self._jobs = threading.Condition()  # guards the two below
        self._running = 0
        self._error: BaseException | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the call is to end; a chunk in flight may end before."""
        if self._since is None:
            given, outer = self._given, self._outer
            if (given is not None and given.is_set()) or (outer is not None and outer.is_cancelled):
                self.cancel()
        return self._since is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether chunks in flight are to end as well."""
        since = self._since if self.is_cancelled else None
        return since is not None and time.monotonic() - since > GRACE

    @property
    def error(self) -> BaseException | None:
        """What a callback of the call has raised first."""
        return self._error

    def check(self) -> None:
        """Raise Cancelled if the call is cancelled."""
        if self.is_cancelled:
            raise Cancelled("cancelled before it began")

    def cancel(self) -> None:
        """End the call soon."""
        self._since = self._since or time.monotonic()

    def fail(self, error: BaseException) -> None:
        """End the call because a callback raised ``error``, which its caller will get."""
        with self._jobs:
            self._error = self._error or error
        self.cancel()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let the thread work for this call."""
        before, _here.scope = current_scope(), self
        try:
            yield
        finally:
            _here.scope = before

    @contextlib.contextmanager
    def job(self) -> Iterator[None]:
        """Let the thread work for this call, which `wait_for_jobs` waits for."""
        with self._jobs:
            self._running += 1
        try:
            with self.entered():
                yield
        finally:
            with self._jobs:
                self._running -= 1
                self._jobs.notify_all()

    def wait_for_jobs(self, timeout: float) -> bool:
        """Wait until no job runs for the call; return whether that is so."""
        with self._jobs:
            return self._jobs.wait_for(lambda: not self._running, timeout)


class _Here(threading.local):
    scope: CancelScope | None = None


_here = _Here()


def current_scope() -> CancelScope | None:
    """The call that this thread works for."""
    return _here.scope


@contextlib.contextmanager
def outside_of_calls() -> Iterator[None]:
    """Let the thread do what is to be done although its call may be cancelled."""
    before, _here.scope = _here.scope, None
    try:
        yield
    finally:
        _here.scope = before


@contextlib.contextmanager
def working_for(scope: CancelScope | None) -> Iterator[None]:
    """Let the thread run a job for a call, or for none."""
    with contextlib.nullcontext() if scope is None else scope.job():
        yield


@contextlib.contextmanager
def calling(
    given: SupportsIsSet | None = None, *, minds_callbacks: bool = True
) -> Iterator[CancelScope]:
    """Begin a call that ends with the block; after any exception nothing of it goes on.

    Args:
        given: cancels the call when it is set.
        minds_callbacks: a progress callback that raises ends the call.
    Raises:
        BaseException: whatever a callback of the call has raised, instead of Cancelled.
        LimitReached: this machine gives no further thread, memory or open file.
    """
    scope = CancelScope(given, minds_callbacks=minds_callbacks)
    try:
        with scope.entered():
            scope.check()
            yield scope
    except BaseException as error:  # raised again: be it a signal, in whatever was waited for
        scope.cancel()
        scope.wait_for_jobs(GRACE + _LAST_GRACE)
        if scope.error is not None:
            raise scope.error from None
        limit = named(error)
        if limit is not None:
            raise limit from error
        raise
    if scope.error is not None:
        raise scope.error


class ScopedEvent(threading.Event):
    """An event of a run; for the threads of a cancelled call it is set as well."""

    def __init__(self, *, abandoning: bool = False) -> None:
        """Be set with the calls that are cancelled, or that are abandoned after the grace."""
        super().__init__()
        self._abandoning = abandoning

    def is_set(self) -> bool:
        """Whether this thread is to stop."""
        if super().is_set():
            return True
        scope = current_scope()
        if scope is None:
            return False
        return scope.is_abandoned if self._abandoning else scope.is_cancelled

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until this thread is to stop; return whether it is."""
        if current_scope() is None:
            return super().wait(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _TICK if end is None else end - time.monotonic()
            if left <= 0:
                return False
            super().wait(min(left, _TICK))
        return True
