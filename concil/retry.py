"""Whether a loss is worth repeating, and how long to wait first; the only importer of tenacity."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from concil.config import RetryPolicy
from concil.errors import (
    Cancelled,
    ConcilError,
    ContentError,
    SessionLost,
)

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later.

    What is wrong with a body or its upload session is not put right by repeating one request.
    """
    if isinstance(error, (SessionLost, ContentError)):
        return False
    return isinstance(error, ConcilError) and error.transient


def backoff(policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after the ``attempt``-th failure (from 1): exponential, full jitter."""
    ceiling = min(policy.longest, policy.base * 2 ** (attempt - 1))
    return random.uniform(0, ceiling)


def wait_for(error: BaseException, policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after ``error``: what the answer asks for, else the back-off."""
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, (int, float)):
        return min(float(asked), policy.longest_asked)
    return backoff(policy, attempt)


def sleep(seconds: float, cancel: threading.Event) -> None:
    """Wait, or raise Cancelled as soon as somebody cancels."""
    if cancel.wait(seconds):
        raise Cancelled("cancelled while waiting to try again")


def call(
    request: Callable[[], Result],
    policy: RetryPolicy,
    cancel: threading.Event,
    what: Callable[[], str],
) -> Result:
    """Call ``request``, again after a transient error; the last error is raised as it is.

    For small requests that can be repeated as they are; bodies have `Patience`.

    Args:
        what: the request in words, for the log.
    """
    try:
        return request()
    except Exception as error:
        if not is_transient(error):
            raise
        first = [error]

    def again() -> Result:
        if first:
            raise first.pop()
        return request()

    return _repeat(again, policy, cancel, what())


def _repeat(
    request: Callable[[], Result], policy: RetryPolicy, cancel: threading.Event, what: str
) -> Result:

    def pause(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return wait_for(error, policy, state.attempt_number) if error else 0.0

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        logger.warning("%s: %s; again in %.1f s", what, error, wait)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(policy.attempts),
        retry=tenacity.retry_if_exception(is_transient),
        wait=pause,
        sleep=lambda seconds: sleep(seconds, cancel),
        before_sleep=tell,
        reraise=True,
    )
    return retrying(request)


class Patience:
    """Counts the losses of one body in a row without progress. One thread at a time."""

    def __init__(
        self,
        policy: RetryPolicy,
        cancel: threading.Event,
        told: Callable[[ConcilError], object] | None = None,
    ) -> None:
        """Begin with no loss.

        Args:
            told: gets each loss that is worth another try, before the wait for it.
        """
        self._policy = policy
        self._cancel = cancel
        self._told = told
        self._furthest = 0
        self._losses = 0

    def lost(self, error: ConcilError, position: int, what: str) -> float:
        """Take note of a loss at ``position``; wait before the next try.

        Returns:
            The seconds waited.
        Raises:
            ConcilError: ``error`` itself, if it is not worth another try.
            Cancelled: somebody cancelled while waiting.
        """
        if self._cancel.is_set():
            raise Cancelled(f"{what}: cancelled") from error
        if position > self._furthest:
            self._furthest, self._losses = position, 0
        if not is_transient(error) and not isinstance(error, SessionLost):
            raise error
        self._losses += 1
        if self._losses >= self._policy.attempts:
            raise error
        wait = wait_for(error, self._policy, self._losses)
        logger.warning("%s: %s; at byte %d, again in %.1f s", what, error, position, wait)
        if self._told is not None:
            self._told(error)
        began = time.monotonic()
        sleep(wait, self._cancel)
        return time.monotonic() - began
