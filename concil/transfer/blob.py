"""One blob from a source to a destination: is it there, can it be mounted, else move it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self, TypeAlias

import requests

from concil.content import Descriptor
from concil.errors import Cancelled, StatusError
from concil.progress import Meter, State
from concil.store.protocol import (
    BlobReader,
    BlobWriter,
    Destination,
    Lacking,
    Mounter,
    Narrow,
    Source,
)
from concil.transfer.fetch import Fetch, spread
from concil.transfer.job import Lookup
from concil.transfer.journal import Entry
from concil.transfer.pool import Place, Rank, WorkerPool
from concil.transfer.push import Push

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Landed:
    """A blob that is where it should be."""

    blob: Descriptor
    place: str  # the destination's name
    repository: str  # what siblings may mount it from; "" where nobody mounts
    state: State  # DONE, PRESENT or MOUNTED

    @property
    def sent(self) -> int:
        """Bytes that had to be moved."""
        return self.blob.size if self.state is State.DONE else 0


def upload_places(destination: Destination) -> tuple[Place, ...]:
    """The places that an upload takes where a destination bears only so many of them."""
    if not isinstance(destination, Narrow) or destination.uploads_at_once is None:
        return ()
    return (Place(f"uploads to {destination.host}", destination.uploads_at_once),)


class BlobMove:
    """One blob's job. ``outcome`` is completed by whichever thread ends it."""

    def __init__(
        self,
        source: Source,
        destination: Destination,
        blob: Descriptor,
        *,
        pool: WorkerPool,
        meter: Meter,
    ) -> None:
        """Prepare; `start` hands it to the pool."""
        self._lookup = Lookup.AFTER_MOUNT
        self._source = source
        self._destination = destination
        self._blob = blob
        self._pool = pool
        self._meter = meter
        self._siblings: Iterable[str] = ()
        self.outcome: Future[Landed] = Future()

    def look_up(self, lookup: Lookup) -> Self:
        """Choose when the destination is asked for the blob, before `start`."""
        self._lookup = lookup
        return self

    def start(self, siblings: Iterable[str] = ()) -> Future[Landed]:
        """Submit the job.

        Args:
            siblings: repositories of the same registry that may have the blob; read when
                its turn comes.
        """
        self._siblings = siblings
        self._meter.state(State.WAITING, position=0)
        queued = self._pool.submit(
            self._run, rank=Rank.BLOB, size=self._blob.size, hosts=self._hosts
        )
        queued.add_done_callback(self._left)
        return self.outcome

    @property
    def blob(self) -> Descriptor:
        """What is moved."""
        return self._blob

    @property
    def realm(self) -> str:
        """Where repositories can mount it from one another; of a layout its place."""
        return self._destination.realm

    @property
    def _hosts(self) -> tuple[str, ...]:
        return (self._source.host, self._destination.host)

    def _left(self, queued: Future[None]) -> None:
        """A job that was dropped from the queue, or failed outside of its own handling."""
        if queued.cancelled():
            self.outcome.set_exception(Cancelled("cancelled before it began"))
            return
        error = queued.exception()
        if error is not None and not self.outcome.done():
            self._meter.state(State.FAILED, detail=str(error))
            self.outcome.set_exception(error)

    def _run(self) -> None:
        state = self._without_bytes()
        if state is not None:
            self._pool.run.journal.drop(self._destination.name, str(self._blob.digest))
            self._land(state)
            return
        if isinstance(self._source, Lacking):
            self._source.check_blob(self._blob)
        places = upload_places(self._destination)
        if not places:
            self._carry()
            return
        # Another job: what is there already waits for nobody's upload.
        queued = self._pool.submit(
            self._carry, rank=Rank.BLOB, size=self._blob.size, hosts=self._hosts, places=places
        )
        queued.add_done_callback(self._left)

    def _carry(self) -> None:
        """Move the bytes."""
        self._meter.state(State.STARTED, position=0)
        blob, journal = self._blob, self._pool.run.journal
        entry = journal.entry(self._destination.name, str(blob.digest), blob.size)
        try:
            writer = self._destination.begin_blob(blob.size, blob.digest, entry.state)
        except BaseException:
            entry.release()
            raise
        if isinstance(writer, BlobWriter):
            self._push(writer, entry)
            self._land(State.DONE)
            return
        fetch = Fetch(self._source, blob, writer, self._meter, self._pool.run)
        fetch.entry = entry
        fetch.outcome.add_done_callback(self._fetched)
        spread(fetch, self._ask_for_help)

    def _without_bytes(self) -> State | None:
        """PRESENT or MOUNTED, if nothing has to be moved."""
        destination = self._destination
        if self._lookup is Lookup.BEFORE_MOUNT and self._is_there():
            return State.PRESENT
        if isinstance(destination, Mounter):
            for sibling in self._siblings:
                if sibling != destination.repository and destination.mount(self._blob, sibling):
                    return State.MOUNTED
        if self._lookup is Lookup.AFTER_MOUNT and self._is_there():
            return State.PRESENT
        return None

    def _is_there(self) -> bool:
        try:
            return self._destination.has_blob(self._blob)
        except StatusError as error:
            if error.status != requests.codes.server_error:
                raise
            # A kill of distribution 2.8 leaves an empty link, and an upload writes it again.
            logger.warning("%s: %s; sending the blob", self._destination.name, error)
            return False

    def _push(self, writer: BlobWriter, entry: Entry) -> None:
        run = self._pool.run

        def opener(start: int, /) -> BlobReader:
            reader = self._source.open_blob(self._blob, start)
            return run.bandwidth.paced(reader, self._hosts, run.abandon)

        name = f"{self._source.name}@{self._blob.digest}"
        push = Push(opener, writer, self._meter, run, entry)
        push.run(self._blob.size, self._blob.digest, name)

    def _ask_for_help(self, job: Callable[[], None]) -> None:
        if self._pool.workers:
            self._pool.submit(job, rank=Rank.HELPER, size=self._blob.size, hosts=self._hosts)

    def _fetched(self, outcome: Future[None]) -> None:
        error = outcome.exception()
        if error is None:
            self._land(State.DONE)
        else:
            self._meter.state(State.FAILED, detail=str(error))
            self.outcome.set_exception(error)

    def _land(self, state: State) -> None:
        self._meter.state(state, position=self._blob.size)
        destination = self._destination
        repository = destination.repository if isinstance(destination, Mounter) else ""
        self.outcome.set_result(Landed(self._blob, destination.name, repository, state))


# Begins the move of a blob, by `BlobMove.start`, and returns what completes with it.
Begin: TypeAlias = Callable[[BlobMove, Iterable[str]], Future[Landed]]
