"""Single blobs between local files and stores, by the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from concil.content import OCTETS, Descriptor, Digest
from concil.errors import NotFound
from concil.progress import Meter, ProgressSink, State, told
from concil.reference import Address
from concil.store.files import LocalFile
from concil.store.partial import PartialFile
from concil.store.protocol import BlobReader, DigestNeeded, Source
from concil.store.remote import RemoteStore
from concil.stores import Store, blob_size
from concil.transfer.blob import upload_places
from concil.transfer.fetch import Fetch, spread
from concil.transfer.pool import Rank, WorkerPool, wait
from concil.transfer.push import Push


class FileBlobs:
    """Uploads and downloads of single blobs. Any thread but a worker may call any method."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Let the workers of ``pool`` move them."""
        self._pool = pool
        self._run = pool.run
        self._progress = progress

    def push(self, file: LocalFile, store: RemoteStore, digest: Digest | None) -> Descriptor:
        """Upload a file and wait for it, unless the repository has it.

        Args:
            digest: what the file must hash to, which is always verified; None: whatever it
                hashes to.
        Raises:
            DigestMismatch, FileChanged: nothing was committed.
        """
        meter = self._meter(str(file.path), store.name, file.size)
        job = self._pool.submit(
            lambda: self._push(file, store, digest, meter),
            size=file.size,
            hosts=(store.host,),
            places=upload_places(store),
        )
        return wait(job, self._run.cancel)

    def pull(self, store: Store, address: Address, target: Path) -> Descriptor:
        """Download the blob of an address, which has a digest, and wait for it.

        Raises:
            NotFound: the store does not have it. Others as `Engine.pull_blob`.
        """
        digest = address.digest
        size = None if digest is None else blob_size(store, digest)
        if digest is None or size is None:
            raise NotFound(f"{address} is not there", remedy="check the repository and digest")
        blob = Descriptor(OCTETS, digest, size)
        meter = self._meter(str(blob.digest), str(target), blob.size)
        with told(meter, blob.size):
            job = self._pool.submit(
                lambda: self._fetch(store, blob, target, meter), size=blob.size, hosts=(store.host,)
            )
            fetch = wait(job, self._run.cancel)
            wait(fetch.outcome, self._run.cancel)
        return blob

    def _push(
        self, file: LocalFile, store: RemoteStore, digest: Digest | None, meter: Meter
    ) -> Descriptor:
        journal, identity = self._run.journal, file.identity
        known = digest or journal.digest_of(identity.path, identity.text)
        if known is None and not store.takes_unknown(file.size):
            known = self._hash(file)
        if known is not None and store.has_blob(Descriptor(OCTETS, known, file.size)):
            if digest is not None:
                file.verify(digest, cancel=self._run.cancel)
            for subject in (str(known), identity.text):
                journal.drop(store.name, subject)
            meter.state(State.PRESENT, position=file.size)
            return Descriptor(OCTETS, known, file.size)
        with told(meter, file.size):
            try:
                found = self._send(file, store, known, meter, asked=digest)
            except DigestNeeded:  # only now did the registry show that it takes no chunks
                found = self._send(file, store, self._hash(file), meter)
        for subject in (str(found), identity.text):
            journal.drop(store.name, subject)
        journal.remember_digest(identity.path, identity.text, found)
        return Descriptor(OCTETS, found, file.size)

    def _hash(self, file: LocalFile) -> Digest:
        """Hash a file; the journal knows it at once, for a push that does not come to its end."""
        found = file.digest(cancel=self._run.cancel)
        self._run.journal.remember_digest(file.identity.path, file.identity.text, found)
        return found

    def _send(
        self,
        file: LocalFile,
        store: RemoteStore,
        known: Digest | None,
        meter: Meter,
        *,
        asked: Digest | None = None,
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
        verify = partial(file.verify, asked, cancel=self._run.cancel) if asked is not None else None
        name = str(file.path)
        return push.run(file.size, known, name, check=file.check_unchanged, verify=verify)

    def _fetch(self, store: Source, blob: Descriptor, target: Path, meter: Meter) -> Fetch:
        """Take part in the fetch of a blob until nothing is left for this thread."""
        digest, hosts = blob.digest, (store.host,)
        unfinished = target.with_name(f"{digest.hex}.partial")
        entry = self._run.journal.entry(str(target.absolute()), str(digest), blob.size)
        try:
            writer = PartialFile(target, digest, blob.size, partial=unfinished, resume=entry.state)
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

    def _meter(self, subject: str, target: str, size: int) -> Meter:
        return Meter(self._progress, kind="blob", subject=subject, target=target, total=size)
