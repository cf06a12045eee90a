"""Retry policy and back-off; the only importer of tenacity."""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from concil.config import RetryPolicy
from concil.errors import Cancelled, ConcilError, ContentError, SessionLost
from concil.runtime.quantities import format_size

if TYPE_CHECKING:
    import tenacity

logger = logging.getLogger(__name__)

_TOO_MANY_REQUESTS = 429


def is_retryable(error: BaseException) -> bool:
    """Return whether the same request may succeed a little later.

    Content errors and lost upload sessions cannot be fixed by repeating a single request.
    """
    if isinstance(error, (SessionLost, ContentError)):
        return False
    return isinstance(error, ConcilError) and error.transient


@functools.lru_cache  # a new policy checks its numbers, and each mounted blob needs one
def limit_attempts(policy: RetryPolicy, count: int) -> RetryPolicy:
    """Return ``policy`` with at most ``count`` attempts."""
    return replace(policy, max_attempts=min(count, policy.max_attempts))


def backoff_delay(policy: RetryPolicy, attempt: int) -> float:
    """Return the wait in seconds after failure ``attempt`` (from 1), with full jitter."""
    ceiling = min(policy.max_backoff, policy.backoff_base * 2 ** (attempt - 1))
    return random.uniform(0, ceiling)


def retry_delay(error: BaseException, policy: RetryPolicy, attempt: int) -> float:
    """Return the wait in seconds after ``error``: the back-off, or 0 after a Retry-After.

    The limiter of the host enforces the Retry-After, for all threads
    (`http.throttle.host_limiter`).
    """
    if getattr(error, "retry_after", None) is not None:
        return 0.0
    return backoff_delay(policy, attempt)


def sleep_or_raise(seconds: float, cancel: threading.Event) -> None:
    """Wait for ``seconds``; raise `Cancelled` as soon as ``cancel`` is set."""
    if cancel.wait(seconds):
        raise Cancelled("cancelled while waiting for a retry")


def attempts(
    policy: RetryPolicy, cancel: threading.Event, describe: Callable[[], str]
) -> Iterator[AbstractContextManager[object]]:
    """Yield the attempts of one request until one succeeds; the last error is raised unchanged.

    Each attempt is a context manager around the request, which swallows a transient error if
    another attempt follows::

        for attempt in attempts(policy, cancel, describe):
            with attempt:
                return send()

    For small requests that can be repeated; use `ProgressRetry` for bodies.

    Args:
        describe: returns a description of the request, for the log.
    """
    first = _FirstAttempt()
    yield first
    if first.error is None:
        return
    error = first.error
    further_attempts = iter(_create_retrying(policy, cancel, describe()))
    # tenacity counts the first attempt and waits after it.
    next(further_attempts).retry_state.set_exception((type(error), error, error.__traceback__))
    del first, error
    yield from further_attempts


class _FirstAttempt:
    """An attempt without tenacity, which costs as much CPU time as a request."""

    error: Exception | None = None  # transient

    def __enter__(self) -> None:
        """Begin the attempt."""

    def __exit__(
        self, _kind: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Keep a transient error."""
        if isinstance(error, Exception) and is_retryable(error):
            self.error = error
        return self.error is not None


def _create_retrying(
    policy: RetryPolicy, cancel: threading.Event, operation: str
) -> tenacity.Retrying:
    import tenacity  # noqa: PLC0415  # imports asyncio; most runs need no retry

    def delay(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return retry_delay(error, policy, state.attempt_number) if error else 0.0

    def log_retry(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        level = _log_level(error, state.attempt_number)
        logger.log(level, "%s: %s; retrying in %.1f s", operation, error, wait)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(policy.max_attempts),
        retry=tenacity.retry_if_exception(is_retryable),
        wait=delay,
        sleep=lambda seconds: sleep_or_raise(seconds, cancel),
        before_sleep=log_retry,
        reraise=True,
    )


def _log_level(error: BaseException | None, failure_count: int) -> int:
    """Return the level of a retry: only the first one in a row is a warning.

    The limiter of the host warns about a pause, once for all requests.
    """
    is_pause = getattr(error, "retry_after", None) is not None
    is_pause |= getattr(error, "status", None) == _TOO_MANY_REQUESTS
    if is_pause:
        return logging.DEBUG
    return logging.WARNING if failure_count == 1 else logging.INFO


def _when(seconds: float) -> str:
    """Return the wait in words; it may round to nothing."""
    return f"in {seconds:.1f} s" if seconds >= 0.05 else "now"


class ProgressRetry:
    """Counts consecutive failures of one body without progress. Not thread-safe."""

    def __init__(
        self,
        policy: RetryPolicy,
        cancel: threading.Event,
        on_retry: Callable[[ConcilError], object] | None = None,
    ) -> None:
        """Start with no failures.

        Args:
            on_retry: called with each error that is retried, before the wait.
        """
        self._policy = policy
        self._cancel = cancel
        self._on_retry = on_retry
        self._max_position = 0
        self._failure_count = 0

    def wait_or_raise(self, error: ConcilError, position: int, operation: str) -> float:
        """Record a failure at ``position`` in bytes and wait before the next attempt.

        Returns:
            The seconds waited.
        Raises:
            ConcilError: ``error`` itself, if it is not retryable or the attempts are used up.
            Cancelled: ``cancel`` was set.
        """
        if self._cancel.is_set():
            raise Cancelled(f"{operation}: cancelled") from error
        if position > self._max_position:
            self._max_position, self._failure_count = position, 0
        if not is_retryable(error) and not isinstance(error, SessionLost):
            raise error
        self._failure_count += 1
        if self._failure_count >= self._policy.max_attempts:
            raise error
        wait = retry_delay(error, self._policy, self._failure_count)
        level = _log_level(error, self._failure_count)
        if isinstance(error, SessionLost):  # nothing of it is kept
            logger.log(level, "%s: %s; sending it again %s", operation, error, _when(wait))
        else:
            message, at = "%s: %s; retrying at %s %s", format_size(position)
            logger.log(level, message, operation, error, at, _when(wait))
        if self._on_retry is not None:
            self._on_retry(error)
        start_time = time.monotonic()
        sleep_or_raise(wait, self._cancel)
        return time.monotonic() - start_time
