"""Remembers which images failed, and when each is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from concil.oci.address import parse_address
from concil.plan.retry_failed import FailedImages
from concil.runtime.dataclass import dataclass
from concil.service.run_times import Clock
from concil.transfer.mirror.report import Outcome

FIRST_DELAY = 60.0  # seconds until the first retry
MAX_DELAY = 3600.0  # seconds
_JITTER = 0.1  # of the delay


@dataclass(frozen=True, slots=True)
class _Failure:
    attempts: int
    due_at: float  # monotonic seconds


def _delay(attempts: int) -> float:
    """Return the seconds until the next attempt, after so many that failed."""
    delay = min(FIRST_DELAY * 2.0 ** min(attempts - 1, 30), MAX_DELAY)
    return delay * (1 + random.uniform(0, _JITTER))


class FailedImageQueue:
    """The images of a plan that failed. Each is retried with twice the delay of the time before.

    One thread at a time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Create it without images."""
        self._clock = clock or Clock()
        self._failures: dict[tuple[str, str], _Failure] = {}  # by source and target

    def __len__(self) -> int:
        """Return the number of images that failed."""
        return len(self._failures)

    def seconds_left(self) -> float | None:
        """Return the seconds until a retry is due; None: nothing has failed."""
        if not self._failures:
            return None
        first = min(failure.due_at for failure in self._failures.values())
        return first - self._clock.monotonic()

    def take_due(self) -> FailedImages:
        """Return the images whose retry is due; they are due again after another delay.

        So a retry that cannot even begin is not repeated at once.
        """
        now = self._clock.monotonic()
        due = {names: each for names, each in self._failures.items() if each.due_at <= now}
        for names, failure in due.items():
            self._failures[names] = replace(failure, due_at=now + _delay(failure.attempts + 1))
        return FailedImages(frozenset(due), frozenset())

    def record(
        self, outcomes: Iterable[Outcome], *, is_complete: bool, tried: FailedImages | None = None
    ) -> None:
        """Record the outcomes of a run.

        Args:
            is_complete: these are all failures of a run of the whole plan: other images are
                forgotten, because they were copied, or the plan no longer has them.
            tried: the images of a retry that went through: those without an outcome are
                forgotten, because the plan no longer has them.
        """
        seen = set()
        for outcome in outcomes:
            item = outcome.item
            names = str(parse_address(item.source)), str(parse_address(item.destination))
            seen.add(names)
            if outcome.error is None:
                self._failures.pop(names, None)
                continue
            before = self._failures.get(names)
            attempts = 1 if before is None else before.attempts + 1
            due_at = self._clock.monotonic() + _delay(attempts)
            self._failures[names] = _Failure(attempts, due_at)
        for names in tried.images - seen if tried is not None else ():
            self._failures.pop(names, None)
        if is_complete:
            self._failures = {
                names: failure for names, failure in self._failures.items() if names in seen
            }
