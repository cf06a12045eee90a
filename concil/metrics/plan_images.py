"""The images of a plan by entry: what became of them, and when all of an entry were in place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from concil.errors import NotTried
from concil.metrics.bounded_labels import OTHER, BoundedLabels
from concil.plan.registry_rules import display_name
from concil.plan.rule import Rule
from concil.progress.events import State
from concil.transfer.mirror.report import Outcome

MAX_ENTRIES = 1000  # that have values of their own
STATES = ("copied", "up_to_date", "failed", "not_tried")
_FAILURES = ("failed", "not_tried")


def outcome_state(outcome: Outcome) -> str:
    """Return one of `STATES`."""
    if outcome.error is not None:
        return "not_tried" if isinstance(outcome.error, NotTried) else "failed"
    is_present = outcome.result is not None and outcome.result.state is State.PRESENT
    return "up_to_date" if is_present else "copied"


class EntryNames:
    """Finds the entry of a plan that an image comes from. The name of an entry is its source."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Name the entries of a plan, without users and passwords."""
        labels = BoundedLabels(MAX_ENTRIES)
        self._names = {rule.source: labels.bound(display_name(rule.source)) for rule in rules}
        self.names = frozenset(self._names.values())

    def find(self, source: str) -> str:
        """Return the name of the entry of an image or repository; "other" if there is none."""
        while source not in self._names:
            cut = max(source.rfind(mark) for mark in ":@/")
            if cut < 1:
                return OTHER
            source = source[:cut]
        return self._names[source]


class _RunImages:
    """The images of one run of the whole plan, and what its retries have changed."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.counts: dict[str, Counter[str]] = {entry: Counter() for entry in entries}
        self.unlisted: set[str] = set()  # entries whose tags could not be listed
        self._failed: dict[int, tuple[str, str]] = {}  # entry and state by a hash of the image

    def record(self, key: int, entry: str, state: str) -> None:
        before = self._failed.pop(key, None)
        if before is not None:
            self.counts[before[0]][before[1]] -= 1
        self.counts.setdefault(entry, Counter())[state] += 1
        if state in _FAILURES:
            self._failed[key] = entry, state

    def failed_entries(self) -> set[str]:
        return self.unlisted.union(entry for entry, _ in self._failed.values())


class PlanImages:
    """Images by entry and state, over all runs of a plan. The caller holds a lock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start without a plan.

        Args:
            clock: seconds since the epoch.
        """
        self._clock = clock
        self._entries = EntryNames(())
        self._run: _RunImages | None = None  # of the run of the whole plan that is under way
        self._last = _RunImages(())
        self._failed_before: set[str] = set()  # entries that a retry tries to complete
        self.last_success: dict[str, float] = {}  # seconds since the epoch, by entry

    def begin_run(self, rules: Iterable[Rule], *, is_complete: bool) -> None:
        """Begin a run of the whole plan, or a retry of its failed images."""
        self._failed_before = self._last.failed_entries()
        if is_complete or not self._entries.names:
            self._entries = EntryNames(rules)
        if is_complete:
            self._run = _RunImages(self._entries.names)

    def record(self, outcome: Outcome) -> tuple[str, str]:
        """Record an image; return its entry and state."""
        entry, state = self._entries.find(outcome.item.source), outcome_state(outcome)
        key = hash((outcome.item.source, outcome.item.destination))
        (self._run or self._last).record(key, entry, state)
        return entry, state

    def record_listing_failure(self, source: str) -> None:
        """Record that the tags or repositories of an entry could not be listed."""
        if self._run is not None:
            self._run.unlisted.add(self._entries.find(source))

    def end_run(self, *, has_ended: bool) -> None:
        """End a run.

        Args:
            has_ended: it went through; False: it was cancelled, or could not begin.
        """
        run, self._run, now = self._run, None, self._clock()
        if run is None:
            complete = self._failed_before - self._last.failed_entries()
            self.last_success.update(dict.fromkeys(complete, now))
            return
        if has_ended or not self._last.counts:
            self._last = run
        if has_ended:
            names = self._entries.names
            old = {name: at for name, at in self.last_success.items() if name in names}
            self.last_success = old | dict.fromkeys(names - run.failed_entries(), now)

    def counts(self) -> Mapping[str, Counter[str]]:
        """Return images by entry and state: of the last run that ended, or of the first one."""
        return (self._last if self._last.counts or self._run is None else self._run).counts
