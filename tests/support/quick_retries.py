"""What the tests of the registry client share."""

from __future__ import annotations

from hypothesis import settings

from concil.config import RetryPolicy

FAST = RetryPolicy(backoff_base=0, max_backoff=0)
# A loaded machine is no failure, and no example is kept from run to run.
UNTIMED = settings(deadline=None, database=None)
