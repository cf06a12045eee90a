"""Notifier: finds out from outcomes and quotas what is new, and has it delivered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from concil.errors import AccessDenied, Cancelled, ConcilError
from concil.notify.delivery import Delivery
from concil.notify.notification import Notification, Subject
from concil.plan.notify_settings import NotifySettings
from concil.plan.registry_rules import display_name
from concil.plan.rule import Rule
from concil.progress.events import State
from concil.progress.request_observer import Exchange
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import without_user
from concil.transfer.mirror.report import Outcome

_MAX_SUBJECTS = 10_000  # of one run that are remembered
MAX_QUOTA_NOTIFICATIONS = 20  # of one run: a registry may report whatever it wants
_LOW_PERCENT, _ENOUGH_PERCENT = 10, 20  # of a quota: notified at the one, forgotten at the other


def _reason_of(error: ConcilError) -> str:
    """Return what stays the same while a failure has the same cause.

    A host that is down fails in many ways, and which image is the first that a registry denies
    is chance: the others are not even tried.
    """
    if isinstance(error, AccessDenied):
        return "denied"
    return "unavailable" if error.transient else type(error).__name__


@dataclass(slots=True)
class _Failure:
    subject: Subject
    reason: str


class Notifier:
    """Notifies each cause once until it changes. Any thread may call any method.

    What was notified is remembered in ``notified``, which the caller stores: a mapping of causes
    to reasons. A cause whose notification was not delivered is notified again by the next run.
    """

    def __init__(
        self,
        delivery: Delivery,
        notified: dict[str, str],
        *,
        plan: str,
        destinations: Sequence[str],
        on_end: Callable[[str, bool], object] = lambda _event, _is_delivered: None,
    ) -> None:
        """Start without settings: nothing is notified.

        Args:
            notified: is changed in place.
            plan, destinations: names for the messages.
            on_end: called with each event, and whether it was delivered.
        """
        self._delivery = delivery
        self._plan, self._destination = plan, ", ".join(map(without_user, destinations))
        self._on_end = on_end
        # Guards the fields below; a full queue calls back at once, while it is held.
        self._lock = threading.RLock()
        self._settings: NotifySettings | None = None
        self._notified = notified
        self._pending: dict[str, str] = {}  # reasons by cause, of what is being delivered
        self._failures: dict[str, _Failure] = {}  # of the run, by cause
        self._successes: dict[str, Subject] = {}  # of the run, of causes that were notified
        self._copied: list[Subject] = []  # of the run
        self._quota_count = 0  # notifications of quotas in the run

    def begin_run(self, settings: NotifySettings | None) -> None:
        """Begin a run with the settings of its plan."""
        with self._lock:
            self._settings = settings
            self._failures, self._successes, self._copied = {}, {}, []
            self._quota_count = 0

    @property
    def is_active(self) -> bool:
        """Whether the plan wants notifications."""
        return self._settings is not None

    def record_outcome(self, outcome: Outcome) -> None:
        """Record an image of the run."""
        if not self.is_active:
            return
        source = without_user(outcome.item.source)
        subject = Subject("image", source, without_user(outcome.item.destination))
        with self._lock:
            if outcome.error is not None:
                self._record_failure(subject, outcome.error)
                return
            if subject.cause in self._notified:
                self._successes[subject.cause] = subject
            result = outcome.result
            is_new = result is not None and result.state is State.DONE
            if is_new and result is not None and len(self._copied) < _MAX_SUBJECTS:
                self._copied.append(replace(subject, digest=str(result.digest)))

    def record_listing_failure(self, rule: Rule, error: ConcilError) -> None:
        """Record that an entry of the plan could not be listed."""
        with self._lock:
            self._record_failure(Subject("entry", display_name(rule.source)), error)

    def record_run_error(self, error: ConcilError) -> None:
        """Record that the run could not begin or go on."""
        with self._lock:
            self._record_failure(Subject("run"), error)

    def record_request(self, exchange: Exchange) -> None:
        """Do nothing. See `RequestObserver`."""

    def record_retry(self, host: str) -> None:
        """Do nothing. See `RequestObserver`."""

    def record_token(self, host: str) -> None:
        """Do nothing. See `RequestObserver`."""

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        """Notify a low quota at once; forget it when there is enough again."""
        is_low = remaining * 100 <= (limit or 0) * _LOW_PERCENT
        subject = Subject("quota", host=host, remaining=remaining, limit=limit)
        with self._lock:
            if is_low:
                self._notify("quota", [subject], {subject.cause: "low"})
            elif remaining * 100 > (limit or 0) * _ENOUGH_PERCENT:
                self._notified.pop(subject.cause, None)

    def end_run(self, *, has_ended: bool, is_complete: bool) -> None:
        """Notify what has failed, recovered or been copied in a run.

        Args:
            has_ended: it went through; False: it was cancelled, or could not begin.
            is_complete: it was one of the whole plan.
        """
        with self._lock:
            failures = self._failures
            subjects = [each.subject for each in failures.values()]
            reasons = {cause: each.reason for cause, each in failures.items()}
            self._notify("failure", subjects, reasons)
            if has_ended:
                self._settle_others(is_complete=is_complete)
            recovered = list(self._successes.values())
            self._notify("recovery", recovered, dict.fromkeys(self._successes, ""))
            if self._settings is not None and "new" in self._settings.events and self._copied:
                self._submit("new", self._copied, {})

    def close(self, timeout: float) -> None:
        """Deliver what waits, for at most ``timeout`` seconds."""
        self._delivery.close(timeout)

    # The methods below require the lock.

    def _record_failure(self, subject: Subject, error: ConcilError) -> None:
        if isinstance(error, Cancelled) or len(self._failures) >= _MAX_SUBJECTS:
            return
        known = replace(subject, reason=error.reason or str(error), remedy=error.remedy)
        self._failures[subject.cause] = _Failure(known, _reason_of(error))

    def _settle_others(self, *, is_complete: bool) -> None:
        """Find runs and entries that have recovered; forget images that have left the plan."""
        for cause in set(self._notified) - set(self._failures) - set(self._successes):
            kind, _, name = cause.partition(" ")
            if kind == "run" or (kind == "entry" and is_complete):
                self._successes[cause] = Subject(kind, name)
            elif kind == "image" and is_complete:
                del self._notified[cause]

    def _notify(self, event: str, subjects: list[Subject], reasons: dict[str, str]) -> None:
        """Notify the subjects of which this was not notified yet."""
        news = [
            subject
            for subject in subjects
            if reasons[subject.cause]
            != self._pending.get(subject.cause, self._notified.get(subject.cause, ""))
        ]
        if not news or self._settings is None:
            return
        reasons = {subject.cause: reasons[subject.cause] for subject in news}
        if event in self._settings.events:
            self._submit(event, news, reasons)
        else:
            self._remember(reasons)

    def _submit(self, event: str, subjects: list[Subject], reasons: dict[str, str]) -> None:
        assert self._settings is not None  # noqa: S101 - by the callers
        if event == "quota":
            self._quota_count += 1
            if self._quota_count > MAX_QUOTA_NOTIFICATIONS:
                return
        self._pending.update(reasons)
        notification = Notification(event, self._plan, self._destination, subjects, reasons)

        def end(is_delivered: bool) -> None:  # noqa: FBT001 - a callback
            with self._lock:
                for cause in reasons:
                    self._pending.pop(cause, None)
                if is_delivered:
                    self._remember(reasons)
            self._on_end(event, is_delivered)

        self._delivery.submit(notification, self._settings, end)

    def _remember(self, reasons: dict[str, str]) -> None:
        for cause, reason in reasons.items():
            if reason:
                self._notified[cause] = reason
            else:
                self._notified.pop(cause, None)
