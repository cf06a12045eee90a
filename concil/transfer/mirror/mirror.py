"""Mirrors many images with several coordinators, and reports the outcomes."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol

from concil.errors import Cancelled, ConcilError, NotTried
from concil.progress.events import State
from concil.runtime import arguments
from concil.runtime.cancellation import current_scope, run_in_scope
from concil.runtime.limits import limit_error, start_thread
from concil.runtime.redaction import without_user
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.copier import ImageResult
from concil.transfer.image.job import ForeignLayers, ImageJob
from concil.transfer.image.referrers import ReferrersTagError
from concil.transfer.mirror.denied_hosts import DeniedHosts
from concil.transfer.mirror.pending_outcomes import PendingDestinations, SpooledPairs, Unsaved


@dataclass(frozen=True, slots=True)
class MirrorItem:
    """One image of a mirror, as addresses."""

    source: str
    destination: str
    platforms: tuple[str, ...] = ()
    referrers: bool = False  # copy signatures, attestations and SBOMs, too
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    immutable: bool = False  # once copied, it is never checked again
    recheck: bool = False  # check the content of an image that is up to date, too

    def __post_init__(self) -> None:
        """Check the types of the fields.

        Raises:
            TypeError: a field has another type; a string is not a sequence of platforms.
            UsageError: ``foreign_layers`` is not one of the choices.
        """
        arguments.check_str("source", self.source)
        arguments.check_str("destination", self.destination)
        object.__setattr__(self, "platforms", arguments.to_str_tuple("platforms", self.platforms))
        foreign = ForeignLayers.parse("foreign_layers", self.foreign_layers)
        object.__setattr__(self, "foreign_layers", foreign)

    def __str__(self) -> str:
        """Return both addresses, without users and passwords."""
        return f"{without_user(self.source)} -> {without_user(self.destination)}"

    def __repr__(self) -> str:
        """Return all fields, with addresses without users and passwords."""
        values = {item_field.name: getattr(self, item_field.name) for item_field in fields(self)}
        values |= {name: without_user(values[name]) for name in ("source", "destination")}
        return f"MirrorItem({', '.join(f'{name}={value!r}' for name, value in values.items())})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image of a mirror with its result or error."""

    item: MirrorItem
    result: ImageResult | None = None
    error: ConcilError | None = None


class BlobTotals:
    """Counts of blobs by state, each blob once per destination, with little memory per blob."""

    def __init__(self, blobs: Iterable[BlobResult] = ()) -> None:
        """Start with the results in ``blobs``."""
        self.bytes_sent = 0  # bytes
        self._state_by_hash: dict[
            int, State
        ] = {}  # by hash, because names would take ten times the memory
        self.add(blobs)

    def add(self, blobs: Iterable[BlobResult]) -> None:
        """Add the blobs of an image; one that was sent before does not count as present, too."""
        for result in blobs:
            self.bytes_sent += result.bytes_sent
            key = hash((result.destination, result.blob.digest))
            if self._state_by_hash.setdefault(key, result.state) is State.PRESENT:
                self._state_by_hash[key] = result.state

    def count_by_state(self) -> Counter[State]:
        """Return the number of blobs in each state."""
        return Counter(self._state_by_hash.values())


@dataclass(slots=True)
class MirrorReport:
    """The outcomes of a mirror, in the order in which images finished."""

    outcomes: list[Outcome] = field(default_factory=list)  # those that are kept
    image_count: int = 0  # finished images
    up_to_date_count: int = 0  # of the finished ones
    copied_count: int = 0  # of the finished ones; in a dry run: that would be copied
    missing_bytes: int = 0  # bytes that a dry run found missing at the destination
    blob_totals: BlobTotals = field(default_factory=BlobTotals)

    def add(self, outcome: Outcome, *, keep_outcome: bool) -> None:
        """Count an image, and keep its outcome if it failed.

        Args:
            keep_outcome: keep it in any case; memory then grows with every image.
        """
        self.image_count += 1
        result = outcome.result
        if result is not None:
            is_present = result.state is State.PRESENT
            self.up_to_date_count += is_present
            self.copied_count += not is_present
            self.missing_bytes += result.missing_bytes
            self.blob_totals.add(result.blobs)
        if keep_outcome or result is None:
            self.outcomes.append(outcome)

    def results_in_state(self, state: State) -> list[ImageResult]:
        """Return the kept results in one state."""
        return [o.result for o in self.outcomes if o.result and o.result.state is state]

    @property
    def copied(self) -> list[ImageResult]:
        """Images that were copied."""
        return self.results_in_state(State.DONE)

    @property
    def pending(self) -> list[ImageResult]:
        """Images that a dry run found to be out of date."""
        return self.results_in_state(State.WAITING)

    @property
    def present(self) -> list[ImageResult]:
        """Images that were up to date."""
        return self.results_in_state(State.PRESENT)

    @property
    def failed(self) -> list[Outcome]:
        """Images that could not be copied, or were not tried."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    @property
    def skipped(self) -> list[Outcome]:
        """Failed images that were not tried because their host had denied access before."""
        return [outcome for outcome in self.failed if isinstance(outcome.error, NotTried)]

    @property
    def bytes_sent(self) -> int:
        """Bytes of blobs that were transferred."""
        return self.blob_totals.bytes_sent


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """Options of a mirror run."""

    on_outcome: Callable[[Outcome], object] | None = None  # called with one outcome at a time
    keep_outcomes: bool = True  # keep outcomes of images that did not fail, too
    fail_fast: bool = False  # start no further images after a failure
    denied_hosts: DeniedHosts = field(default_factory=DeniedHosts)
    pending_destinations: PendingDestinations | None = (
        None  # destinations that appear once everything is written
    )


class SupportsCopy(Protocol):
    """Copies one image, or plans the copy for a dry run."""

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy the image. Any thread may call it."""
        ...


class Mirror:
    """Runs the coordinators of one mirror. One thread calls `run`."""

    def __init__(
        self,
        copier: SupportsCopy,
        create_job: Callable[[MirrorItem], ImageJob],
        cancel: threading.Event,
        options: MirrorOptions | None = None,
    ) -> None:
        """Use ``create_job`` to open the stores of an item."""
        self._options = options or MirrorOptions()
        self._is_stopped = False  # no further image is started
        self._copier = copier
        self._create_job = create_job
        self._cancel = cancel
        self._scope = current_scope()  # the call that is cancelled after a fatal error
        self._lock = threading.Lock()  # guards the iterator, `on_outcome` and the fields below
        self._fatal_error: BaseException | None = None  # raised by the iterator of items, or a bug
        self._report = MirrorReport()
        self._pending_results: SpooledPairs[MirrorItem, ImageResult] = (
            SpooledPairs()
        )  # results whose destination has not appeared yet
        self._unsaved: Unsaved[Outcome] = Unsaved(self._end_saved)

    def run(self, items: Iterable[MirrorItem], coordinators: int) -> MirrorReport:
        """Copy every item; a failure is an entry in the report and does not stop the others.

        Items are taken lazily, by ``coordinators`` threads including the caller's.

        Raises:
            Cancelled: the run was cancelled; finished copies are kept.
            ConcilError: images were copied, but their destination could not be completed.
        """
        pending = self._options.pending_destinations
        with self._unsaved.saved_at_end(pending):
            self._run(iter(items), coordinators)
        with contextlib.closing(self._pending_results):
            if not self._cancel.is_set() and pending is not None:
                self._commit_pending(pending)
        if self._fatal_error is not None:
            raise self._fatal_error
        if self._cancel.is_set():
            raise Cancelled("cancelled; run it again to go on")
        return self._report

    def _run(self, waiting: Iterator[MirrorItem], coordinators: int) -> None:
        """Process the items in ``coordinators`` threads, and join these before returning."""
        threads: list[threading.Thread] = []
        try:
            for number in range(1, coordinators):
                thread = threading.Thread(
                    target=self._run_thread, args=(waiting,), name=f"concil-image-{number}"
                )
                if not start_thread(thread, f"going on with {number} images at once"):
                    break
                threads.append(thread)
            self._process_items(waiting)
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C: stop the other threads, too
            self._cancel_all()
            for thread in threads:
                thread.join()
            raise

    def _run_thread(self, items: Iterator[MirrorItem]) -> None:
        with run_in_scope(self._scope):
            self._process_items(items)

    def _cancel_all(self) -> None:
        """Cancel the call that runs this mirror."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._cancel.set()

    def _commit_pending(self, pending: PendingDestinations) -> None:
        """Commit pending destinations, and record the outcomes of their images."""
        pending.commit()
        first_error: ConcilError | None = None
        for item, result in self._pending_results:
            error = pending.commit_error(item.destination)
            first_error = first_error or error
            self._record_outcome(
                Outcome(item, result) if error is None else Outcome(item, error=error)
            )
        self._fatal_error = self._fatal_error or first_error

    def _process_items(self, items: Iterator[MirrorItem]) -> None:
        try:
            while not self._cancel.is_set():
                item = self._next_item(items)
                # Check again: the iterator may have forked, and locks stay held in the child.
                if item is None or self._cancel.is_set():
                    return
                start_number = (
                    self._options.pending_destinations.begin(item.destination)
                    if self._options.pending_destinations
                    else 0
                )
                outcome = self._process_item(item)
                if not self._defer_if_pending(outcome, start_number):
                    self._record_outcome(outcome)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            with self._lock:
                self._fatal_error = self._fatal_error or error
            if not isinstance(error, Exception):
                self._cancel_all()

    def _defer_if_pending(self, outcome: Outcome, start_number: int) -> bool:
        """Defer the outcome of an image that is not in place yet; return whether it was."""
        pending, item, result = self._options.pending_destinations, outcome.item, outcome.result
        if pending is None or result is None:
            return False
        with self._lock:
            saving = pending.saving(item.destination, start_number)
            if saving is not None:
                self._unsaved.add(outcome, saving)
            elif pending.is_pending(item.destination):
                self._pending_results.add(item, result)
            else:
                return False
        return True

    def _end_saved(self, outcome: Outcome, error: ConcilError | None) -> None:
        """Record the outcome of an image after its layout was saved, or failed to be."""
        with run_in_scope(self._scope):
            self._record_outcome(outcome if error is None else Outcome(outcome.item, error=error))

    def _record_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of an image and report it to `on_outcome`."""
        options = self._options
        with self._lock:
            self._report.add(outcome, keep_outcome=options.keep_outcomes)
            self._is_stopped = self._is_stopped or (options.fail_fast and outcome.error is not None)
            if options.on_outcome is None or self._fatal_error is not None:
                return
            try:
                options.on_outcome(outcome)
            except BaseException as error:
                self._fatal_error = error
                self._cancel_all()
                raise

    def _next_item(self, items: Iterator[MirrorItem]) -> MirrorItem | None:
        """Return the next item; None: there is none, or the run is stopped."""
        with self._lock:
            is_ended = self._is_stopped or self._fatal_error is not None
            return None if is_ended else next(items, None)

    def _process_item(self, item: MirrorItem) -> Outcome:
        denied_hosts = self._options.denied_hosts
        stores: tuple[object, ...] = ()
        try:
            job = self._create_job(item)
            stores = job.source, job.destination
            denied_error = denied_hosts.find_error(*stores)
            if denied_error is not None:
                return Outcome(item, error=denied_error)
            return Outcome(item, result=copy_image(self._copier, job))
        except ConcilError as error:
            return Outcome(item, error=denied_hosts.record_error(error, *stores))
        except (MemoryError, RuntimeError, OSError) as error:
            limit = limit_error(error)
            if limit is None:
                raise
            return Outcome(item, error=limit)


def copy_image(copier: SupportsCopy, job: ImageJob) -> ImageResult:
    """Copy one image of a mirror; a list of referrers counts as present. Raises as `copy`."""
    try:
        return copier.copy(job)
    except ReferrersTagError as error:
        # A plan for all tags includes it: its referrers are copied with their image.
        notes = (str(error),)
        return ImageResult(
            job.source_name, job.destination_name, State.PRESENT, error.digest, notes=notes
        )


def check_items(items: Iterable[MirrorItem]) -> Iterator[MirrorItem]:
    """Yield ``items``; an element of another type raises TypeError when it is reached.

    Raises:
        TypeError: ``items`` is not iterable, or is a string.
    """
    argument: object = items
    if not isinstance(argument, Iterable) or isinstance(argument, str):
        raise arguments.type_error("items", "an iterable of MirrorItem", items)
    return (
        arguments.check_instance("items", item, MirrorItem, "MirrorItem objects") for item in items
    )
