"""Many images: coordinators that take one after the other, and the report."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol

from concil import arguments
from concil.cancellation import current_scope, working_for
from concil.errors import Cancelled, ConcilError, NotTried
from concil.limits import named, start_thread
from concil.progress import State
from concil.redaction import without_user
from concil.transfer.blob import Landed
from concil.transfer.image import ImageResult
from concil.transfer.job import ForeignLayers, ImageJob
from concil.transfer.pending import Pending, Spool, Unsaved
from concil.transfer.referrers import ListOfReferrers
from concil.transfer.refusals import Refusals


@dataclass(frozen=True, slots=True)
class MirrorItem:
    """One image of a mirror, as addresses."""

    source: str
    destination: str
    platforms: tuple[str, ...] = ()
    referrers: bool = False  # signatures, attestations and SBOMs go along
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    immutable: bool = False  # once it was brought nobody is asked about it again
    recheck: bool = False  # everything of an image that is up to date is asked for, too

    def __post_init__(self) -> None:
        """Refuse what is of another type.

        Raises:
            TypeError: it names the field; a single text is no sequence of platforms.
            UsageError: there is no such choice of foreign layers.
        """
        arguments.text("source", self.source)
        arguments.text("destination", self.destination)
        object.__setattr__(self, "platforms", arguments.texts("platforms", self.platforms))
        foreign = ForeignLayers.argument("foreign_layers", self.foreign_layers)
        object.__setattr__(self, "foreign_layers", foreign)

    def __str__(self) -> str:
        """Return both addresses, without users and passwords."""
        return f"{without_user(self.source)} -> {without_user(self.destination)}"

    def __repr__(self) -> str:
        """Return all fields, the addresses without users and passwords."""
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        shown |= {name: without_user(shown[name]) for name in ("source", "destination")}
        return f"MirrorItem({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image of a finished mirror: its result, or why there is none."""

    item: MirrorItem
    result: ImageResult | None = None
    error: ConcilError | None = None


class Arrivals:
    """How many blobs came in which way, each of a place once; one number is kept of each."""

    def __init__(self, blobs: Iterable[Landed] = ()) -> None:
        """Begin with some blobs."""
        self.sent = 0  # bytes
        self._states: dict[int, State] = {}  # by a hash: a name would take ten times the memory
        self.add(blobs)

    def add(self, blobs: Iterable[Landed]) -> None:
        """Add those of an image; one that was sent does not count as there, too."""
        for each in blobs:
            self.sent += each.sent
            key = hash((each.place, each.blob.digest))
            if self._states.setdefault(key, each.state) is State.PRESENT:
                self._states[key] = each.state

    def count(self) -> Counter[State]:
        """How many there are in each state."""
        return Counter(self._states.values())


@dataclass(slots=True)
class MirrorReport:
    """What became of every image, in the order in which they ended."""

    outcomes: list[Outcome] = field(default_factory=list)  # all that are kept
    images: int = 0  # that ended
    up_to_date: int = 0  # of these
    brought: int = 0  # of these: they were copied, or would be
    missing: int = 0  # bytes that a dry run did not find at the destination
    arrivals: Arrivals = field(default_factory=Arrivals)

    def add(self, outcome: Outcome, *, keep: bool) -> None:
        """Count an image, and keep it if it failed.

        Args:
            keep: keep it in any case; memory grows with every image.
        """
        self.images += 1
        result = outcome.result
        if result is not None:
            present = result.state is State.PRESENT
            self.up_to_date += present
            self.brought += not present
            self.missing += result.missing
            self.arrivals.add(result.blobs)
        if keep or result is None:
            self.outcomes.append(outcome)

    def of(self, state: State) -> list[ImageResult]:
        """The results in one state."""
        return [o.result for o in self.outcomes if o.result and o.result.state is state]

    @property
    def copied(self) -> list[ImageResult]:
        """Images that were brought up to date."""
        return self.of(State.DONE)

    @property
    def pending(self) -> list[ImageResult]:
        """Images that a dry run has found to be out of date."""
        return self.of(State.WAITING)

    @property
    def present(self) -> list[ImageResult]:
        """Images that were up to date."""
        return self.of(State.PRESENT)

    @property
    def failed(self) -> list[Outcome]:
        """Images that could not be copied, or were not tried."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    @property
    def untried(self) -> list[Outcome]:
        """Images whose host had refused the user already; of the failed ones."""
        return [outcome for outcome in self.failed if isinstance(outcome.error, NotTried)]

    @property
    def sent(self) -> int:
        """Bytes of blobs that were moved."""
        return self.arrivals.sent


@dataclass(frozen=True, slots=True)
class Manner:
    """How a mirror goes about its images."""

    told: Callable[[Outcome], object] | None = None  # gets each outcome, one at a time
    keep: bool = True  # images that did not fail are in the report, not only counted
    fail_fast: bool = False  # after a failure no image is begun any more
    refusals: Refusals = field(default_factory=Refusals)  # what hosts have refused before
    pending: Pending | None = None  # destinations that appear when all is written


class Copying(Protocol):
    """What brings one image, or says what that would take."""

    def copy(self, job: ImageJob) -> ImageResult:
        """Bring it; any thread."""
        ...


class Mirror:
    """Runs the coordinators of one mirror. One thread calls `run`."""

    def __init__(
        self,
        copier: Copying,
        prepare: Callable[[MirrorItem], ImageJob],
        cancel: threading.Event,
        manner: Manner | None = None,
    ) -> None:
        """Let ``prepare`` open the stores of an item."""
        self._manner = manner or Manner()
        self._stopped = False  # no image is begun any more
        self._copier = copier
        self._prepare = prepare
        self._cancel = cancel
        self._scope = current_scope()  # the call that is to end where something is wrong
        self._lock = threading.Lock()  # guards the iterator, the manner's call and the fields below
        self._broken: BaseException | None = None  # raised by the iterator of items, or a bug
        self._report = MirrorReport()
        self._waiting: Spool[MirrorItem, ImageResult] = Spool()  # for their destination
        self._unsaved: Unsaved[Outcome] = Unsaved(self._end_saved)

    def run(self, items: Iterable[MirrorItem], coordinators: int) -> MirrorReport:
        """Copy every item; one that fails is an entry in the report, the others go on.

        Items are taken lazily, by ``coordinators`` threads, the caller's among them.

        Raises:
            Cancelled: somebody cancelled; what was copied stays copied.
            ConcilError: images were copied, and their destination could not appear.
        """
        pending = self._manner.pending
        with self._unsaved.saved_at_end(pending):
            self._run(iter(items), coordinators)
        with contextlib.closing(self._waiting):
            if not self._cancel.is_set() and pending is not None:
                self._finish(pending)
        if self._broken is not None:
            raise self._broken
        if self._cancel.is_set():
            raise Cancelled("cancelled; run it again to go on")
        return self._report

    def _run(self, waiting: Iterator[MirrorItem], coordinators: int) -> None:
        """Go through the items by so many threads; none is left at the end."""
        threads: list[threading.Thread] = []
        try:
            for number in range(1, coordinators):
                thread = threading.Thread(
                    target=self._work, args=(waiting,), name=f"concil-image-{number}"
                )
                if not start_thread(thread, f"going on with {number} images at once"):
                    break
                threads.append(thread)
            self._coordinate(waiting)
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C: nobody goes on behind it
            self._stop()
            for thread in threads:
                thread.join()
            raise

    def _work(self, waiting: Iterator[MirrorItem]) -> None:
        with working_for(self._scope):
            self._coordinate(waiting)

    def _stop(self) -> None:
        """Let nothing go on."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._cancel.set()

    def _finish(self, pending: Pending) -> None:
        """Let destinations appear, and tell what became of the images that waited for it."""
        pending.finish()
        failure: ConcilError | None = None
        for item, result in self._waiting:
            error = pending.failure(item.destination)
            failure = failure or error
            self._end(Outcome(item, result) if error is None else Outcome(item, error=error))
        self._broken = self._broken or failure

    def _coordinate(self, waiting: Iterator[MirrorItem]) -> None:
        try:
            while not self._cancel.is_set():
                item = self._next(waiting)
                # Cancelled: the iterator may have forked, and in the child locks stay taken.
                if item is None or self._cancel.is_set():
                    return
                begun = self._manner.pending.begin(item.destination) if self._manner.pending else 0
                outcome = self._attempt(item)
                if not self._waits(outcome, begun):
                    self._end(outcome)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._lock:
                self._broken = self._broken or error
            if not isinstance(error, Exception):
                self._stop()

    def _waits(self, outcome: Outcome, begun: int) -> bool:
        """Whether the image is not in place yet; then its outcome is told when it is."""
        pending, item, result = self._manner.pending, outcome.item, outcome.result
        if pending is None or result is None:
            return False
        with self._lock:
            saving = pending.saving(item.destination, begun)
            if saving is not None:
                self._unsaved.add(outcome, saving)
            elif pending.is_pending(item.destination):
                self._waiting.add(item, result)
            else:
                return False
        return True

    def _end_saved(self, outcome: Outcome, error: ConcilError | None) -> None:
        """Take note of an image whose layout was saved, or could not be."""
        with working_for(self._scope):
            self._end(outcome if error is None else Outcome(outcome.item, error=error))

    def _end(self, outcome: Outcome) -> None:
        """Take note of what became of an image."""
        manner = self._manner
        with self._lock:
            self._report.add(outcome, keep=manner.keep)
            self._stopped = self._stopped or (manner.fail_fast and outcome.error is not None)
            if manner.told is None or self._broken is not None:
                return
            try:
                manner.told(outcome)
            except BaseException as error:
                self._broken = error
                self._stop()
                raise

    def _next(self, waiting: Iterator[MirrorItem]) -> MirrorItem | None:
        """The next item; what the iterable raises ends the run, after what is under way."""
        with self._lock:
            ended = self._stopped or self._broken is not None
            return None if ended else next(waiting, None)

    def _attempt(self, item: MirrorItem) -> Outcome:
        refusals = self._manner.refusals
        places: tuple[object, ...] = ()
        try:
            job = self._prepare(item)
            places = job.source, job.destination
            untried = refusals.untried(*places)
            if untried is not None:
                return Outcome(item, error=untried)
            return Outcome(item, result=copied(self._copier, job))
        except ConcilError as error:
            return Outcome(item, error=refusals.cause(error, *places))
        except (MemoryError, RuntimeError, OSError) as error:
            limit = named(error)
            if limit is None:
                raise
            return Outcome(item, error=limit)


def copied(copier: Copying, job: ImageJob) -> ImageResult:
    """Copy one image of many; a list of referrers is none. Raises as the copier does."""
    try:
        return copier.copy(job)
    except ListOfReferrers as error:
        # A plan for all tags meets it: what it lists goes along, so nothing is left to do.
        notes = (str(error),)
        return ImageResult(job.subject, job.target, State.PRESENT, error.digest, notes=notes)


def checked(items: Iterable[MirrorItem]) -> Iterator[MirrorItem]:
    """Yield the argument ``items``; what is no item is an error when its turn comes.

    Raises:
        TypeError: it cannot be iterated over.
    """
    given: object = items
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise arguments.wrong_type("items", "an iterable of MirrorItem", items)
    return (arguments.instance("items", each, MirrorItem, "MirrorItem objects") for each in items)
