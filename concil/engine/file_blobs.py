"""Transfers single blobs between local files, streams, memory and stores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from concil.config import MIB
from concil.engine.blobs.temporary import open_temporary, temporary_source, write_temporary
from concil.engine.store_factory import DestinationStore, SourceStore, blob_size
from concil.errors import Cancelled, DigestMismatch, NotFound, UsageError
from concil.fs.local_file import LocalFile
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.address import Address
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Verifier
from concil.oci.manifest import Digest
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, ProgressSink, State, report_transfer
from concil.store.protocols import DigestRequired, Source
from concil.store.registry.repository import UNKNOWN_SIZE, RepositoryStore
from concil.transfer.blob.memory import memory_source
from concil.transfer.blob.source import BlobSource
from concil.transfer.blob.stream import StreamReader, StreamUpload, SupportsRead
from concil.transfer.blob.transfer import upload_slots
from concil.transfer.blob.transfer_blob import BlobTarget, transfer_blob
from concil.transfer.worker_pool import WorkerPool, wait_for


class FileBlobTransfers:
    """Uploads and downloads of single blobs. Any thread but a worker may call any method.

    The methods that begin with `start` return at once; the future has the descriptor of the blob,
    of type application/octet-stream.
    """

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Run the transfers in the workers of ``pool``."""
        self._pool = pool
        self._context = pool.context
        self._progress = progress

    def start_push(
        self, file: LocalFile, store: DestinationStore, digest: Digest | None = None
    ) -> Future[Descriptor]:
        """Upload a file, unless the store has it.

        Args:
            digest: expected digest, which is always verified; None: compute it.
        Raises:
            DigestMismatch, FileChanged: nothing was committed.
        """
        meter = self._create_meter(str(file.path), store.name, file.size)
        return self._submit(lambda: self._push_file(file, store, digest, meter), store, file.size)

    def start_push_source(self, source: BlobSource, store: DestinationStore) -> Future[Descriptor]:
        """Upload a blob whose digest is known, unless the store has it."""
        meter = self._create_meter(source.name, store.name, source.size)
        return self._submit(lambda: self._push_source(source, store, meter), store, source.size)

    def start_push_stream(
        self,
        stream: SupportsRead,
        store: DestinationStore,
        name: str,
        digest: Digest | None = None,
    ) -> Future[Descriptor]:
        """Upload a stream of unknown length, read once from its current position.

        It is sent by chunks while it is read. Where the destination needs size or digest first,
        the stream is written to a temporary file.

        Args:
            name: of the stream in messages.
            digest: expected digest; None: any.
        Raises:
            UsageError: the stream is empty, because its program may have failed.
            DigestMismatch: nothing was committed.
        """
        reader = StreamReader(stream, self._context, name)
        return self._submit(lambda: self._push_stream(reader, store, digest), store, 0)

    def pull(self, store: SourceStore, address: Address, destination: Path) -> Descriptor:
        """Download the blob of an address, which has a digest, and wait for it.

        Raises:
            NotFound: the store does not have it. Other errors as in `Engine.pull_blob`.
        """
        return wait_for(
            self.start_pull(store, find_blob(store, address), destination), self._context.cancel
        )

    def start_pull(
        self,
        store: SourceStore,
        blob: Descriptor,
        destination: Path,
        is_present: Callable[[], bool] = lambda: False,
        name: str = "",
    ) -> Future[Descriptor]:
        """Download a blob into a file.

        Args:
            name: of the file in progress events; "" for its path.
            is_present: returns whether the file has the content of the blob already; called by a
                worker.
        """
        meter = self._create_meter(str(blob.digest), name or str(destination), blob.size)
        finished: Future[Descriptor] = Future()

        def finish(download: Future[Digest], state: State = State.DONE) -> None:
            error = download.exception()
            if error is None:
                meter.set_state(state, position=blob.size)
                finished.set_result(blob)
            else:
                fail(error)

        def fail(error: BaseException) -> None:
            meter.report_failure(error)
            finished.set_exception(error)

        def run() -> None:
            if is_present():
                meter.set_state(State.PRESENT, position=blob.size)
                finished.set_result(blob)
            else:
                self._fetch_blob(store, blob, destination, meter).add_done_callback(finish)

        def on_job_done(job: Future[None]) -> None:
            if job.cancelled():
                finished.set_exception(Cancelled("cancelled before it started"))
                return
            error = job.exception()
            if error is not None:
                fail(error)

        meter.set_state(State.STARTED, position=0)
        self._pool.submit(run, size=blob.size, hosts=(store.host,)).add_done_callback(on_job_done)
        return finished

    def _submit(
        self, job: Callable[[], Descriptor], store: DestinationStore, size: int
    ) -> Future[Descriptor]:
        return self._pool.submit(job, size=size, hosts=(store.host,), slots=upload_slots(store))

    def _push_file(
        self, file: LocalFile, store: DestinationStore, digest: Digest | None, meter: Meter
    ) -> Descriptor:
        journal, identity = self._context.journal, file.identity
        known_digest = digest or journal.find_digest(identity.path, identity.to_text)
        if known_digest is None and not _can_upload_without_digest(store, file.size):
            known_digest = self._hash_file(file)
        if known_digest is not None and store.has_blob(
            Descriptor(OCTET_STREAM, known_digest, file.size)
        ):
            if digest is not None:
                file.verify(digest, cancel=self._context.cancel)
            for subject in (str(known_digest), identity.to_text):
                journal.delete_abandoned(store.name, subject)
            meter.set_state(State.PRESENT, position=file.size)
            return Descriptor(OCTET_STREAM, known_digest, file.size)
        with report_transfer(meter, file.size):
            try:
                committed_digest = self._upload(
                    file, store, known_digest, meter, expected_digest=digest
                )
            except DigestRequired:  # the registry has only now turned out not to accept chunks
                committed_digest = self._upload(file, store, self._hash_file(file), meter)
        for subject in (str(committed_digest), identity.to_text):
            journal.delete_abandoned(store.name, subject)
        journal.save_digest(identity.path, identity.to_text, committed_digest)
        return Descriptor(OCTET_STREAM, committed_digest, file.size)

    def _hash_file(self, file: LocalFile) -> Digest:
        """Hash a file, and record the digest at once, in case the push is interrupted."""
        digest = file.compute_digest(cancel=self._context.cancel)
        self._context.journal.save_digest(file.identity.path, file.identity.to_text, digest)
        return digest

    def _upload(
        self,
        file: LocalFile,
        store: DestinationStore,
        digest: Digest | None,
        meter: Meter,
        *,
        expected_digest: Digest | None = None,
    ) -> Digest:
        """Upload a file that the registry lacks; return its digest."""
        verify_digest = (
            partial(file.verify, expected_digest, cancel=self._context.cancel)
            if expected_digest is not None
            else None
        )
        source = BlobSource(
            file.open,
            file.size,
            digest,
            str(file.path),
            check_unchanged=file.check_unchanged,
            verify_digest=verify_digest,
        )
        subject = str(digest or file.identity.to_text)
        begin = partial(store.begin_blob, file.size, digest)

        def find(lost_session: WriterState) -> Digest | None:
            # A known digest was asked about before, and an incomplete session committed nothing.
            if digest is not None or lost_session.offset < file.size:
                return None
            found = self._hash_file(file)
            return found if store.has_blob(Descriptor(OCTET_STREAM, found, file.size)) else None

        target = BlobTarget(store.name, subject, begin, store.host, find=find)
        return transfer_blob(source, target, meter, self._context).result()

    def _push_source(self, source: BlobSource, store: DestinationStore, meter: Meter) -> Descriptor:
        digest = source.digest
        if digest is None:
            raise ValueError(f"{source.name}: the digest is not known")
        blob = Descriptor(OCTET_STREAM, digest, source.size)
        if store.has_blob(blob):
            self._context.journal.delete_abandoned(store.name, str(digest))
            meter.set_state(State.PRESENT, position=blob.size)
            return blob
        begin = partial(store.begin_blob, source.size, digest)
        target = BlobTarget(store.name, str(digest), begin, store.host)
        with report_transfer(meter, blob.size):
            transfer_blob(source, target, meter, self._context).result()
        return blob

    def _push_stream(
        self, reader: StreamReader, store: DestinationStore, digest: Digest | None
    ) -> Descriptor:
        chunk_size = self._context.config.chunk_size or _STREAM_CHUNK_SIZE
        first = reader.read_block(chunk_size)
        if not first:
            raise UsageError(
                f"{reader.name} is empty: the program that writes it may have failed",
                remedy="push an empty file if that is what you want",
            )
        is_small = len(first) < chunk_size
        if is_small:
            algorithm = "sha256" if digest is None else digest.algorithm
            actual = Digest.from_bytes(bytes(first), algorithm)
            source = memory_source(first, reader.name, digest=actual)
            check_digest(source.digest, digest, reader.name)
            meter = self._create_meter(reader.name, store.name, source.size)
            return self._push_source(source, store, meter)
        if not isinstance(store, RepositoryStore) or not _can_upload_without_digest(
            store, UNKNOWN_SIZE
        ):
            return self._push_spooled(reader, first, store, digest)
        meter = Meter(
            self._progress, kind="blob", subject=reader.name, target=store.name, total=None
        )
        meter.set_state(State.STARTED, position=0)
        try:
            upload = StreamUpload(reader, store.begin_stream(), meter, self._context, store.host)
            committed_digest, size = upload.run(first, digest)
        except BaseException as error:
            meter.report_failure(error)
            raise
        meter.set_state(State.DONE, position=size)
        return Descriptor(OCTET_STREAM, committed_digest, size)

    def _push_spooled(
        self,
        reader: StreamReader,
        first: bytearray,
        store: DestinationStore,
        digest: Digest | None,
    ) -> Descriptor:
        """Write a stream to a temporary file, and upload that."""
        verifier = Verifier("sha256" if digest is None else digest.algorithm)
        with open_temporary() as file:
            block = first
            while block:
                verifier.update(block)
                write_temporary(file, block)
                block = reader.read_block(_BLOCK_SIZE)
            check_digest(verifier.digest(), digest, reader.name)
            source = temporary_source(file, verifier.position, verifier.digest(), reader.name)
            meter = self._create_meter(reader.name, store.name, source.size)
            return self._push_source(source, store, meter)

    def _fetch_blob(
        self, store: Source, blob: Descriptor, destination: Path, meter: Meter
    ) -> Future[Digest]:
        """Start the download of a blob, and fetch ranges until none is left for this thread."""
        digest = blob.digest

        def begin(resume: WriterState | None) -> PartialFile:
            partial_path = destination.with_name(f"{digest.hex}.partial")
            return PartialFile(
                destination, digest, blob.size, partial_path=partial_path, resume=resume
            )

        target = BlobTarget(str(destination.absolute()), str(digest), begin)
        submit_helper = partial(self._pool.submit_helper, size=blob.size, hosts=(store.host,))
        source = BlobSource.in_store(store, blob)
        return transfer_blob(source, target, meter, self._context, submit_helper)

    def _create_meter(self, subject: str, destination: str, size: int) -> Meter:
        return Meter(self._progress, kind="blob", subject=subject, target=destination, total=size)


_STREAM_CHUNK_SIZE = 10 * MIB  # bytes that are read before an upload of a stream begins
_BLOCK_SIZE = MIB


def find_blob(store: SourceStore, address: Address) -> Descriptor:
    """Return the descriptor of the blob at an address.

    Raises:
        UsageError: the address has no digest.
        NotFound: the store does not have the blob.
    """
    digest = address.digest
    if digest is None:
        raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
    size = blob_size(store, digest)
    if size is None:
        raise NotFound(f"{address} does not exist", remedy="check the repository and digest")
    return Descriptor(OCTET_STREAM, digest, size)


def _can_upload_without_digest(store: DestinationStore, size: int) -> bool:
    """Return whether a blob may be started before its digest is known."""
    return isinstance(store, RepositoryStore) and store.can_upload_without_digest(size)


def check_digest(actual: Digest | None, expected: Digest | None, name: str) -> None:
    """Compare the digest of content with the expected one; None: any.

    Raises:
        DigestMismatch: they differ.
    """
    if expected is not None and actual != expected:
        raise DigestMismatch(
            f"{name} hashes to {actual}, not to {expected}",
            remedy="the content is damaged, or the digest belongs to other content",
        )
