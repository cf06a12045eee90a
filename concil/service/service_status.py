"""What a service has done: its last runs, and when each image was last confirmed."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from concil.errors import ConcilError, NotTried
from concil.oci.address import parse_address
from concil.plan.registry_rules import display_name
from concil.progress.change_log import ChangeLog, Changes
from concil.progress.events import State
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import count_of
from concil.service.run_times import Clock
from concil.transfer.mirror.report import Outcome

MAX_RUNS = 50  # that are remembered
MAX_IMAGES = 100_000  # that are remembered
_MAX_FAILED_LISTINGS = 1000
_MAX_TEXT_LENGTH = 600  # characters of a name, an error or a remedy
_LOOP_TIMEOUT = 60.0  # seconds within which the main loop of a waiting service turns
_EVENT_TIMEOUT = 3600.0  # seconds within which a run says something
_MIN_RUN_AGE = 600.0  # seconds
_MISSED_RUNS = 3  # a service is not ready after so many intervals without a run

Describe = Callable[[ConcilError], tuple[str, str]]


class RunKind(enum.StrEnum):
    """What a run copies."""

    PLAN = "plan"
    RETRY = "retry"  # images that failed before


class RunResult(enum.StrEnum):
    """How a run has ended."""

    DONE = "done"  # every image is at its destination
    FAILURES = "failures"  # it came to its end, and images failed
    FAILED = "failed"  # it could not begin, or an error ended it
    INTERRUPTED = "interrupted"
    LEFT_OUT = "left_out"  # another process was mirroring the plan


@dataclass(slots=True)
class Run:
    """A run that has ended, or goes on."""

    number: int  # from 1
    kind: RunKind
    started_at: float  # seconds since the epoch
    began: float  # monotonic seconds
    seconds: float | None = None  # None: it goes on
    result: RunResult | None = None  # None: it goes on
    copied: int = 0
    up_to_date: int = 0
    failed: int = 0  # images, and repositories that could not be listed
    bytes_sent: int = 0
    detail: str = ""


@dataclass(slots=True)
class ImageStatus:
    """An image of the plan. Times are monotonic seconds."""

    source: str
    target: str
    number: int
    outcome: str = ""  # of the last attempt: copied, present, failed or not_tried
    checked: float = 0.0  # when it was last tried
    confirmed: float | None = None  # when the destination last had what the source had
    failed_since: float | None = None  # first failure in a row
    failures: int = 0  # in a row
    error: str = ""
    remedy: str = ""
    run: int = 0  # number of the last run of the plan that had it


@dataclass(frozen=True, slots=True)
class FailedListing:
    """A repository or registry that could not be listed."""

    source: str
    error: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """The state of the service at one moment."""

    version: int  # grows with each change
    started_at: float  # seconds since the epoch
    now: float  # monotonic seconds
    now_at: float  # seconds since the epoch
    next_run: float | None  # monotonic seconds; None: not planned
    next_retry: float | None  # monotonic seconds; None: nothing has failed
    run: Run | None  # that goes on
    runs: tuple[Run, ...]  # that have ended, the last one first
    failed_listings: tuple[FailedListing, ...]
    plan_problem: str  # why the plan cannot be used as it is now; the last good one goes on
    is_stopping: bool


class ServiceStatus:
    """The runs and images of a service. Thread-safe.

    Memory is bounded: by the images of the plan, which are forgotten when a run of the whole plan
    no longer has them, and by `MAX_IMAGES`.
    """

    def __init__(self, describe: Describe, clock: Clock | None = None) -> None:
        """Create it without runs.

        Args:
            describe: returns what failed, and the remedy, without secrets.
        """
        self._describe = describe
        self._clock = clock or Clock()
        self._lock = threading.Lock()  # guards the fields below
        self._started, self._started_at = self._clock.monotonic(), self._clock.now()
        self._version = 0
        self._next_run: float | None = None
        self._next_retry: float | None = None
        self._run: Run | None = None
        self._run_count = 0
        self._runs: deque[Run] = deque(maxlen=MAX_RUNS)
        self._images: dict[tuple[str, str], ImageStatus] = {}
        self._last_number = 0  # of an image
        self._changes: ChangeLog[ImageStatus] = ChangeLog()
        self._failed_listings: dict[str, FailedListing] = {}
        self._new_failed_listings: dict[str, FailedListing] = {}  # of the run that goes on
        self._plan_problem = ""
        self._is_stopping = False
        self._last_turn = self._started  # of the main loop
        self._last_event = self._started
        self._max_run_age = _MIN_RUN_AGE
        self._last_end = self._started  # of a run of the plan

    def record_schedule(self, gap: float) -> None:
        """Record the seconds between the beginnings of two runs."""
        with self._lock:
            self._version += 1
            self._max_run_age = max(_MISSED_RUNS * gap, _MIN_RUN_AGE)
            self._next_run = self._clock.monotonic() + gap

    def record_plan_problem(self, problem: str) -> None:
        """Record why the plan cannot be used as it is now; empty: it can."""
        text = problem[:_MAX_TEXT_LENGTH]
        with self._lock:
            self._version += text != self._plan_problem
            self._plan_problem = text

    def record_turn(self, run_in: float, retry_in: float | None) -> None:
        """Record that the main loop waits for so many seconds: until a run, and a retry."""
        with self._lock:
            now = self._last_turn = self._clock.monotonic()
            next_run, next_retry = now + run_in, None if retry_in is None else now + retry_in
            if _differ(next_run, self._next_run) or _differ(next_retry, self._next_retry):
                self._version += 1
            self._next_run, self._next_retry = next_run, next_retry

    def record_activity(self, pause: float = 0.0) -> None:
        """Record that the run that goes on has said something.

        Args:
            pause: seconds for which it is going to be silent.
        """
        activity_end = self._clock.monotonic() + pause
        with self._lock:
            self._last_event = max(self._last_event, activity_end)

    def stop(self) -> None:
        """Record that the service is about to end."""
        with self._lock:
            self._is_stopping = True
            self._version += 1

    def begin_run(self, kind: RunKind) -> Run:
        """Record the beginning of a run."""
        with self._lock:
            self._version += 1
            self._run_count += 1
            now = self._last_event = self._clock.monotonic()
            self._run = Run(self._run_count, kind, self._clock.now(), now)
            self._new_failed_listings = {}
            return self._run

    def end_run(self, result: RunResult, detail: str = "") -> Run:
        """Record the end of the run."""
        with self._lock:
            run, self._run = self._run, None
            if run is None:
                raise AssertionError("no run has begun")
            self._version += 1
            now = self._last_turn = self._clock.monotonic()
            run.seconds = now - run.began
            run.result, run.detail = result, detail[:_MAX_TEXT_LENGTH]
            if result is RunResult.DONE and run.failed:
                run.result = RunResult.FAILURES
            self._runs.appendleft(run)
            if run.kind is RunKind.PLAN and result in (RunResult.DONE, RunResult.FAILURES):
                self._last_end = now
                self._failed_listings = self._new_failed_listings
                self._forget_others(run.number)
            return run

    def record_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of an image."""
        source = str(parse_address(outcome.item.source))
        target = str(parse_address(outcome.item.destination))
        failure = None if outcome.error is None else self._describe(outcome.error)
        with self._lock:
            run = self._run
            if run is None:
                return
            _count_outcome(run, outcome)
            image = self._find_image(source, target)
            if image is None:
                return
            image.run = run.number
            _update_image(image, outcome, failure, self._clock.monotonic())
            self._changes.touch(image.number, image)

    def record_failed_listing(self, source: str, error: ConcilError) -> None:
        """Record that the tags of a repository, or a registry, could not be listed."""
        texts = (text[:_MAX_TEXT_LENGTH] for text in self._describe(error))
        name = display_name(source)
        with self._lock:
            if self._run is not None:
                self._run.failed += 1
            if len(self._new_failed_listings) < _MAX_FAILED_LISTINGS:
                self._new_failed_listings[name] = FailedListing(name, *texts)

    def snapshot(self) -> ServiceSnapshot:
        """Return the present state, without the images."""
        with self._lock:
            return ServiceSnapshot(
                self._version,
                self._started_at,
                self._clock.monotonic(),
                self._clock.now(),
                self._next_run,
                self._next_retry,
                None if self._run is None else replace(self._run),
                tuple(self._runs),
                tuple({**self._failed_listings, **self._new_failed_listings}.values()),
                self._plan_problem,
                self._is_stopping,
            )

    def images(self) -> tuple[list[ImageStatus], int]:
        """Return all images, and the version of that list.

        They are not copied, which would hold the mirror up: they go on changing, and each change
        is in a later version.
        """
        with self._lock:
            return list(self._images.values()), self._changes.version

    def images_since(self, version: int, limit: int) -> Changes[ImageStatus] | None:
        """Return the images that have changed since a version; None: read them all again."""
        with self._lock:
            return self._changes.since(version, limit)

    def describe_stuck(self) -> str:
        """Return why the service does not work any more; empty if it does."""
        with self._lock:
            now = self._clock.monotonic()
            if self._run is not None:
                silent, limit = now - self._last_event, _EVENT_TIMEOUT
                what = "the run that goes on has said nothing"
            else:
                silent, limit, what = now - self._last_turn, _LOOP_TIMEOUT, "the main loop is stuck"
        return f"{what} for {count_of(int(silent), 'second')}" if silent > limit else ""

    def describe_unready(self) -> str:
        """Return why the mirror is not as current as its schedule wants; empty if it is."""
        with self._lock:
            age, limit = self._clock.monotonic() - self._last_end, self._max_run_age
            if self._run is not None or age <= limit:
                return ""
        return f"no run has come to its end for {int(age)} seconds, more than {int(limit)}"

    # The methods below require the lock.

    def _find_image(self, source: str, target: str) -> ImageStatus | None:
        """Return the image, a new one if necessary; None if there are too many."""
        key = (source, target)
        image = self._images.get(key)
        if image is None and len(self._images) < MAX_IMAGES:
            self._last_number += 1
            names = source[:_MAX_TEXT_LENGTH], target[:_MAX_TEXT_LENGTH]
            image = self._images[key] = ImageStatus(*names, self._last_number)
        return image

    def _forget_others(self, run: int) -> None:
        """Forget the images that a run of the whole plan did not have.

        Those of a repository that could not be listed stay: nobody knows whether it has them.
        """
        unknown = frozenset(self._failed_listings)
        for key, image in list(self._images.items()):
            if image.run < run and not _is_below(key[0], unknown):
                del self._images[key]
                self._changes.remove(image.number)


def _count_outcome(run: Run, outcome: Outcome) -> None:
    if outcome.result is None:
        run.failed += 1
        return
    is_present = outcome.result.state is State.PRESENT
    run.up_to_date += is_present
    run.copied += not is_present
    run.bytes_sent += outcome.result.bytes_sent


def _update_image(
    image: ImageStatus, outcome: Outcome, failure: tuple[str, str] | None, now: float
) -> None:
    image.checked = now
    if failure is not None:
        image.outcome = "not_tried" if isinstance(outcome.error, NotTried) else "failed"
        image.failures += 1
        image.failed_since = now if image.failed_since is None else image.failed_since
        image.error, image.remedy = (text[:_MAX_TEXT_LENGTH] for text in failure)
        return
    is_present = outcome.result is not None and outcome.result.state is State.PRESENT
    image.outcome = "present" if is_present else "copied"
    image.confirmed = now
    image.failed_since, image.failures = None, 0
    image.error = image.remedy = ""


def _is_below(source: str, listings: frozenset[str]) -> bool:
    """Return whether an image is in one of the repositories or registries."""
    return any(source[:n] in listings for n, mark in enumerate(source) if mark in ":@/")


def _differ(first: float | None, second: float | None) -> bool:
    """Return whether two planned times differ by more than the measurement of time."""
    if first is None or second is None:
        return first is not second
    return abs(first - second) > 0.5
