"""The engine: what a library user holds to push, pull, copy and mirror."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.archives import ArchiveWriting
from concil.config import Timeouts, TransferConfig
from concil.content import Descriptor, Digest
from concil.errors import ConcilError, NotFound, UsageError
from concil.opening import Opening, Sides
from concil.progress import Event, Meter, ProgressSink, State, emit, told
from concil.reference import parse_address
from concil.registry.quirks import Knowledge
from concil.store.files import LocalFile, writable
from concil.store.partial import PartialFile
from concil.store.protocol import BlobReader, DigestNeeded, Source
from concil.store.remote import RemoteStore
from concil.stores import Stores, blob_size, listing
from concil.transfer.blob import Begin, upload_places
from concil.transfer.fetch import Fetch, spread
from concil.transfer.image import Copier, ImageResult
from concil.transfer.job import ForeignLayers, ImageJob
from concil.transfer.journal import Journal
from concil.transfer.mirror import Manner, Mirror, MirrorItem, MirrorReport, Outcome, copied
from concil.transfer.pool import Rank, WorkerPool, wait
from concil.transfer.prune import Pruned, Pruner, Pruning
from concil.transfer.push import Push
from concil.transfer.refusals import Refusals
from concil.transfer.run import Run
from concil.transfer.survey import Surveyor

__all__ = ["Engine", "Sides"]

OCTETS = "application/octet-stream"
GRACE = 10.0  # seconds for chunks in flight after an error
LAST_GRACE = 2.0  # seconds for threads to notice that they are abandoned


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
        self._owns_journal = journal is None
        journal = journal or Journal(Journal.default_path())
        self._run = Run(self.config, journal=journal)
        self._cancel = self._run.cancel
        self._stores = Stores(
            self.config,
            timeouts=timeouts,
            cancel=self._cancel,
            knowledge=Knowledge(journal.known_of, journal.remember_host, self._run.bandwidth.of),
        )
        self._opening = Opening(self._stores, sides or Sides())
        self._pool = WorkerPool(self._run)
        self._copier = Copier(self._pool, progress)
        self._refusals = Refusals()
        self._pruner = Pruner(self._pool, self._opening.find)

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
        store = self._opening.repository(repository)
        file = LocalFile(path)
        meter = self._meter(str(path), store.name, file.size)
        job = self._pool.submit(
            lambda: self._push(file, store, digest, meter),
            size=file.size,
            hosts=(store.host,),
            places=upload_places(store),
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
        store = self._opening.source(reference)
        target = writable(Path(path))
        size = blob_size(store, reference.digest)
        if size is None:
            raise NotFound(f"{address} is not there", remedy="check the repository and digest")
        blob = Descriptor(OCTETS, reference.digest, size)
        meter = self._meter(str(reference.digest), str(target), size)
        with told(meter, size):
            fetch = wait(
                self._pool.submit(
                    lambda: self._fetch(store, blob, target, meter), size=size, hosts=(store.host,)
                ),
                self._cancel,
            )
            wait(fetch.outcome, self._cancel)
        return blob

    def copy(
        self,
        source: str,
        destination: str,
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
    ) -> ImageResult:
        """Copy one image with all its platforms, or only some; tags and digests stay.

        Args:
            source, destination: store addresses.
            platforms: ``os/architecture[/variant]`` each; none: all.
            referrers: with its signatures, attestations and SBOMs, and theirs.
            foreign_layers: "skip", "source" or "urls": whether layers that are not to be
                distributed are copied, and from where.
        Raises:
            NotFound: the source has no such image or platform.
        """
        foreign = ForeignLayers(foreign_layers)
        item = MirrorItem(source, destination, tuple(platforms), referrers, foreign)
        self._stores.referrers.forget()
        with self._stores.writing(self._progress) as archives:
            result = self._copier.copy(self._prepare(item, archives))
            archives.finish(strict=True)
            return result

    def copy_item(self, item: MirrorItem) -> ImageResult:
        """Copy one image of a mirror that somebody else keeps the list of. Raises as `copy`."""
        return copied(self._copier, self._prepare(item))

    def mirror(
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep: bool = True,
        fail_fast: bool = False,
        dry_run: bool = False,
    ) -> MirrorReport:
        """Copy many images; one that fails is an entry of the report.

        Args:
            items: taken lazily, a few at a time.
            on_image: gets what became of each image, as soon as it has; from several
                threads, one at a time; for archives when these are there. What it raises ends all.
            keep: False: images that did not fail are only counted, so that the report is small.
            fail_fast: begin no more images after one that failed.
            dry_run: write nothing; what would be copied is WAITING, with blobs that are missing.
        Raises:
            Cancelled: somebody cancelled; run it again to go on.
            ConcilError: an archive could not be written; it is as it was.
        """
        self._stores.referrers.forget()
        with self._stores.writing(self._progress) as archives:
            manner = Manner(on_image, keep, fail_fast, self._refusals, archives)
            prepare = partial(self._prepare, archives=archives)
            mirror = Mirror(self._copier, prepare, self._cancel, manner)
            if dry_run:
                mirror = Mirror(Surveyor(self._pool), self._opening.survey, self._cancel, manner)
            return mirror.run(items, max(1, self.config.images if self.config.workers else 1))

    def prune(self, repository: str, pruning: Pruning) -> Pruned:
        """Delete tags of a repository or layout whose source is gone; blobs stay.

        Args:
            repository: ``[docker://|http://]host[:port]/name`` or ``oci:DIR``.
        Returns:
            What became of it; an error of the registry is in it.
        Raises:
            Cancelled: somebody cancelled.
        """
        address = parse_address(repository)
        store = self._opening.written(address)
        return Pruned(str(address)) if store is None else self._pruner.prune(store, pruning)

    def tags(self, address: str) -> Iterator[str]:
        """Yield the tags of a repository, or the names in a layout or archive, page by page.

        Raises:
            NotFound: there is no such repository, layout or archive.
        """
        yield from self._opening.tags(parse_address(address), self._refusals)

    def repositories(self, registry: str) -> Iterator[str]:
        """Yield the repositories of ``[http://]host[:port]``, if it lists them."""
        return self._opening.repositories(registry, self._refusals)

    def begin_blobs_by(self, begin: Begin) -> None:
        """Let ``begin`` decide when a blob of an image is moved, beside other engines."""
        self._copier.blobs.begin = begin

    def listing(self, address: str) -> Iterator[tuple[str, Digest | None]]:
        """Yield images by name as `tags` does, "" for none; digests where that costs nothing."""
        yield from listing(self._opening.source(parse_address(address)))

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
        self._run.journal.flush()
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
        with told(meter, file.size):
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

        def opener(start: int, /) -> BlobReader:
            reader = file.open(start)
            return self._run.bandwidth.paced(reader, (store.host,), self._run.abandon)

        push = Push(opener, writer, meter, self._run, entry)
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

    def _prepare(self, item: MirrorItem, archives: ArchiveWriting | None = None) -> ImageJob:
        try:
            return self._opening.image(item, archives)
        except ConcilError as error:  # told as any image that fails, then raised again
            names = (str(parse_address(item.source)), str(parse_address(item.destination)))
            emit(self._progress, Event("image", *names, State.FAILED, 0, None, str(error)))
            raise

    def _meter(self, subject: str, target: str, size: int) -> Meter:
        return Meter(self._progress, kind="blob", subject=subject, target=target, total=size)
