"""Mirrors many images with several coordinators, and reports the outcomes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field, replace
from typing import Protocol

from concil.errors import CallbackFailed, Cancelled, ConcilError
from concil.progress.events import State
from concil.runtime import arguments
from concil.runtime.cancellation import (
    ABANDON_GRACE_PERIOD,
    GRACE_PERIOD,
    CancelScope,
    current_scope,
    run_in_scope,
)
from concil.runtime.dataclass import dataclass
from concil.runtime.limits import limit_error, start_thread
from concil.store.protocols import Store
from concil.transfer.image.job import ImageJob
from concil.transfer.image.referrers import ReferrersTagError
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.denied_hosts import DeniedHosts
from concil.transfer.mirror.pending_outcomes import PendingDestinations, SpooledPairs, Unsaved
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome


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
        self.commit_error: ConcilError | None = None  # of a destination that is not complete
        self._items_lock = threading.Lock()  # held while the next item is listed
        self._lock = threading.Lock()  # guards `on_outcome` and the fields below
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
        if self.commit_error is not None:
            raise self.commit_error
        if self._cancel.is_set():
            raise Cancelled("cancelled; run the mirror again to resume")
        return self._report

    def _run(self, waiting: Iterator[MirrorItem], coordinators: int) -> None:
        """Process the items in ``coordinators`` threads, and join these before returning."""
        threads: list[threading.Thread] = []
        try:
            for number in range(1, coordinators):
                thread = threading.Thread(
                    target=self._run_thread, args=(waiting,), name=f"concil-image-{number}"
                )
                if not start_thread(thread, f"continuing with {number} images at the same time"):
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
        for item, result in self._pending_results:
            error = pending.commit_error(item.destination)
            self.commit_error = self.commit_error or error
            self._record_outcome(
                Outcome(item, result) if error is None else Outcome(item, error=error)
            )

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
        with self._items_lock:
            with self._lock:
                is_ended = self._is_stopped or self._fatal_error is not None
            return None if is_ended else next(items, None)

    def _process_item(self, item: MirrorItem) -> Outcome:
        """Copy one image, in a scope of its own that an exception of a callback cancels."""
        scope = CancelScope()
        with scope.activate():
            outcome = self._copy_item(item)
        error = scope.callback_error
        if error is None:
            return outcome
        scope.wait_for_jobs(GRACE_PERIOD + ABANDON_GRACE_PERIOD)
        if not isinstance(error, Exception):
            raise error  # such as KeyboardInterrupt: it ends the mirror
        return Outcome(item, error=CallbackFailed.from_exception(error))

    def _copy_item(self, item: MirrorItem) -> Outcome:
        denied_hosts = self._options.denied_hosts
        stores: tuple[Store, ...] = ()
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
        return copier.copy(replace(job, is_single=False))
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
