"""The engine: what a library user holds to push, pull, copy and mirror."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.config import Timeouts, TransferConfig
from concil.content import Descriptor, Digest, Platform
from concil.errors import ConcilError, NotFound, UsageError
from concil.progress import Event, Meter, ProgressSink, State, emit
from concil.reference import Address, LayoutAddress, parse_address
from concil.registry.quirks import Knowledge
from concil.store.files import LocalFile
from concil.store.partial import PartialFile
from concil.store.protocol import DigestNeeded, Source
from concil.store.remote import RemoteStore
from concil.stores import Access, Stores, blob_size, reference_of
from concil.transfer.fetch import Fetch, spread
from concil.transfer.image import Copier, ImageJob, ImageResult
from concil.transfer.journal import Journal
from concil.transfer.mirror import Manner, Mirror, MirrorItem, MirrorReport, Outcome
from concil.transfer.pool import Rank, WorkerPool, wait
from concil.transfer.push import Push
from concil.transfer.run import Run

OCTETS = "application/octet-stream"
GRACE = 10.0  # seconds for chunks in flight after an error
LAST_GRACE = 2.0  # seconds for threads to notice that they are abandoned


@dataclass(frozen=True, slots=True)
class Sides:
    """How the source and the destination are reached."""

    source: Access = field(default_factory=Access)
    destination: Access = field(default_factory=Access)


class Engine:
    """Worker threads, connections and settings of one run. Any thread may call any method.

    Use it in a ``with``, or call `close`. A call from a worker's progress callback back
    into the engine waits for itself: do not.
    """

    def __init__(
        self,
        config: TransferConfig | None = None,
        *,
        progress: ProgressSink | None = None,
        sides: Sides | None = None,
        timeouts: Timeouts | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Start the workers.

        Args:
            progress: gets an `Event` for every change, from any thread.
            sides: TLS settings and credentials; what an address itself says comes first.
            journal: what makes an interrupted transfer resumable in another process;
                None: the user's own. ``Journal(None)`` remembers nothing. Whoever
                gives one closes it.
        """
        self.config = config or TransferConfig()
        self._progress = progress
        self._sides = sides or Sides()
        self._owns_journal = journal is None
        journal = journal or Journal(Journal.default_path())
        self._run = Run(self.config, journal=journal)
        self._cancel = self._run.cancel
        self._stores = Stores(
            self.config,
            timeouts=timeouts,
            cancel=self._cancel,
            knowledge=Knowledge(journal.known_of, journal.remember_host),
        )
        self._pool = WorkerPool(self._run)
        self._copier = Copier(self._pool, progress)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after an error nothing that waits is begun, and nobody waits for long."""
        if error is not None:
            self.cancel()
        self.close(None if error is None else GRACE)

    def push_blob(
        self, path: str | os.PathLike[str], repository: str, *, digest: Digest | None = None
    ) -> Descriptor:
        """Upload a local file as a blob.

        Args:
            repository: ``[docker://|http://]host[:port]/name``.
            digest: what it must hash to; None: whatever it hashes to. A file that was
                pushed before and has not changed is not read if the registry has it.
        Returns:
            A descriptor of the blob, of type application/octet-stream.
        Raises:
            UsageError: no such file, or no such kind of address.
            DigestMismatch, FileChanged: nothing was committed.
        """
        store = self._repository(repository, self._sides.destination)
        file = LocalFile(path)
        meter = self._meter(str(path), store.name, file.size)
        job = self._pool.submit(
            lambda: self._push(file, store, digest, meter), size=file.size, hosts=(store.host,)
        )
        return wait(job, self._cancel)

    def pull_blob(self, address: str, path: str | os.PathLike[str]) -> Descriptor:
        """Download a blob into a local file, by parallel ranges, verified before it appears.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
        Raises:
            UsageError: the address has no digest, or the path is a directory.
            NotFound, DigestMismatch, StoreError: no file appears.
        """
        reference = parse_address(address)
        if reference.digest is None:
            raise UsageError(f"{address}: no digest", remedy="write REPOSITORY@sha256:...")
        store = self._stores.source(reference, self._sides.source)
        target = _target(Path(path))
        size = blob_size(store, reference.digest)
        if size is None:
            raise NotFound(f"{address} is not there", remedy="check the repository and digest")
        blob = Descriptor(OCTETS, reference.digest, size)
        meter = self._meter(str(reference.digest), str(target), size)
        with telling(meter, size):
            fetch = wait(
                self._pool.submit(
                    lambda: self._fetch(store, blob, target, meter), size=size, hosts=(store.host,)
                ),
                self._cancel,
            )
            wait(fetch.outcome, self._cancel)
        return blob

    def copy(self, source: str, destination: str, *, platforms: Sequence[str] = ()) -> ImageResult:
        """Copy one image with all its platforms, or only some; tags and digests stay.

        Args:
            source, destination: store addresses.
            platforms: ``os/architecture[/variant]`` each; none: all.
        Raises:
            NotFound: the source has no such image or platform.
        """
        item = MirrorItem(source, destination, tuple(platforms))
        return self._copier.copy(self._prepare(item))

    def mirror(
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep: bool = True,
        fail_fast: bool = False,
    ) -> MirrorReport:
        """Copy many images; one that fails is an entry of the report.

        Args:
            items: taken lazily, a few at a time.
            on_image: gets what became of each image, as soon as it has; from several
                threads, never two at a time. What it raises ends the mirror.
            keep: False: images that were up to date are only counted, so that the report
                stays small however many they are.
            fail_fast: begin no more images after one that failed.
        Raises:
            Cancelled: somebody cancelled; run it again to go on.
        """
        coordinators = max(1, self.config.images if self.config.workers else 1)
        manner = Manner(on_image, keep, fail_fast)
        return Mirror(self._copier, self._prepare, self._cancel, manner).run(items, coordinators)

    def tags(self, address: str) -> Iterator[str]:
        """Yield the tags of a repository, or the names in a layout, page by page.

        Args:
            address: ``[docker://|http://]host[:port]/name`` or ``oci:DIR``.
        Raises:
            NotFound: there is no such repository or layout.
        """
        yield from self._stores.source(parse_address(address), self._sides.source).tags()

    def cancel(self) -> None:
        """Stop soon; calls under way raise Cancelled, chunks in flight may end until `close`."""
        self._cancel.set()

    def close(self, timeout: float | None = None) -> bool:
        """End the workers and close the connections, and the journal unless it was given.

        Args:
            timeout: seconds to let chunks in flight end after `cancel`; None: until all
                that runs has ended.
        Returns:
            Whether all of it has ended.
        """
        ended = self._pool.close(timeout)
        if not ended:
            self._run.abandon.set()
            ended = self._pool.close(LAST_GRACE)
        self._stores.close()
        if self._owns_journal:
            self._run.journal.close()
        return ended

    def _push(
        self, file: LocalFile, store: RemoteStore, digest: Digest | None, meter: Meter
    ) -> Descriptor:
        journal, identity = self._run.journal, file.identity
        known = digest or journal.digest_of(identity.path, identity.text)
        if known is None and not store.takes_unknown(file.size):
            known = self._hash(file)
        if known is not None and store.has_blob(Descriptor(OCTETS, known, file.size)):
            meter.state(State.PRESENT, position=file.size)
            return Descriptor(OCTETS, known, file.size)
        with telling(meter, file.size):
            try:
                found = self._send(file, store, known, meter)
            except DigestNeeded:  # only now did the registry show that it takes no chunks
                found = self._send(file, store, self._hash(file), meter)
        journal.remember_digest(identity.path, identity.text, found)
        return Descriptor(OCTETS, found, file.size)

    def _hash(self, file: LocalFile) -> Digest:
        """Hash a file; the journal knows it at once, for a push that does not come to its end."""
        found = file.digest(cancel=self._cancel)
        self._run.journal.remember_digest(file.identity.path, file.identity.text, found)
        return found

    def _send(
        self, file: LocalFile, store: RemoteStore, known: Digest | None, meter: Meter
    ) -> Digest:
        """Push a file that the registry has not; return its digest."""
        subject = str(known or file.identity.text)
        entry = self._run.journal.entry(store.name, subject, file.size)
        try:
            writer = store.begin_blob(file.size, known, entry.state)
        except BaseException:
            entry.release()
            raise
        push = Push(file.open, writer, meter, self._run, entry)
        return push.run(file.size, known, str(file.path), check=file.check_unchanged)

    def _fetch(self, store: Source, blob: Descriptor, target: Path, meter: Meter) -> Fetch:
        """Take part in the fetch of a blob until nothing is left for this thread."""
        digest, hosts = blob.digest, (store.host,)
        partial = target.with_name(f"{digest.hex}.partial")
        entry = self._run.journal.entry(str(target.absolute()), str(digest), blob.size)
        try:
            writer = PartialFile(target, digest, blob.size, partial=partial, resume=entry.state)
        except BaseException:
            entry.release()
            raise
        fetch = Fetch(store, blob, writer, meter, self._run)
        fetch.entry = entry

        def help_wanted(job: Callable[[], None]) -> None:
            if self._pool.workers:
                self._pool.submit(job, rank=Rank.HELPER, size=blob.size, hosts=hosts)

        spread(fetch, help_wanted)
        return fetch

    def _repository(self, text: str, access: Access) -> RemoteStore:
        address = parse_address(text)
        if isinstance(address, LayoutAddress):
            raise UsageError(f"{text}: not a registry", remedy="write host[:port]/repository")
        return self._stores.repository(address, access)

    def _prepare(self, item: MirrorItem) -> ImageJob:
        source, destination = parse_address(item.source), parse_address(item.destination)
        try:
            return self._open(item, source, destination)
        except ConcilError as error:  # told as any image that fails, then raised again
            names = (str(source), str(destination))
            emit(self._progress, Event("image", *names, State.FAILED, 0, None, str(error)))
            raise

    def _open(self, item: MirrorItem, source: Address, destination: Address) -> ImageJob:
        platforms = tuple(Platform.parse(text) for text in item.platforms)
        store, reference = self._stores.source(source, self._sides.source), reference_of(source)
        new = isinstance(destination, LayoutAddress) and not Path(destination.path).exists()
        if new and store.find_manifest(reference) is None:
            # Said before the layout is made: a wrong name leaves no empty one behind.
            store.get_manifest(reference)
        return ImageJob(
            store,
            reference,
            self._stores.destination(destination, self._sides.destination),
            reference_of(destination),
            platforms,
        )

    def _meter(self, subject: str, target: str, size: int) -> Meter:
        return Meter(self._progress, kind="blob", subject=subject, target=target, total=size)


@contextlib.contextmanager
def telling(meter: Meter, size: int) -> Iterator[None]:
    """Tell the beginning and the end of one blob."""
    meter.state(State.STARTED, position=0)
    try:
        yield
    except BaseException as error:  # told, then raised again
        meter.state(State.FAILED, detail=str(error))
        raise
    meter.state(State.DONE, position=size)


def _target(path: Path) -> Path:
    if path.is_dir():
        raise UsageError(f"{path} is a directory", remedy="name the file to write")
    if path.exists() and not path.is_file() and not path.is_symlink():
        # A rename would put a file in the place of the device or pipe.
        raise UsageError(f"{path} is not a regular file", remedy="name the file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", remedy="make it first")
    return path
