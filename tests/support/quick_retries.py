"""Retries without waits, and retries that outlive a restart."""

from __future__ import annotations

import pytest
from hypothesis import settings

from concil.config import RetryPolicy

FAST = RetryPolicy(backoff_base=0, max_backoff=0)
# Retries for minutes, which is longer than any test waits for a registry that starts again. Five
# attempts with random waits may be over before it listens.
PERSISTENT = RetryPolicy(max_attempts=1000, max_backoff=0.5)
# A loaded machine is no failure, and no example is kept from run to run.
UNTIMED = settings(deadline=None, database=None)


def drop_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every retry follow at once, also where no `RetryPolicy` can be given."""
    monkeypatch.setattr("concil.retry.retry_delay", lambda *_: 0.0)
    # Of the whole host after a 429 without Retry-After; doubled with each.
    monkeypatch.setattr("concil.http.throttle.host_limiter.INITIAL_PAUSE", 0.0)
