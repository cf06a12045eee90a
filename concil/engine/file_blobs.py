"""Transfers single blobs between local files and stores."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path

from concil.engine.store_factory import SourceStore, blob_size
from concil.errors import NotFound
from concil.fs.local_file import LocalFile
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.address import Address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, ProgressSink, State, report_transfer
from concil.store.protocols import DigestRequired, Source
from concil.store.registry.repository import RepositoryStore
from concil.transfer.blob.source import BlobSource
from concil.transfer.blob.transfer import upload_slots
from concil.transfer.blob.transfer_blob import BlobTarget, transfer_blob
from concil.transfer.worker_pool import WorkerPool, wait_for


class FileBlobTransfers:
    """Uploads and downloads of single blobs. Any thread but a worker may call any method."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Run the transfers in the workers of ``pool``."""
        self._pool = pool
        self._context = pool.context
        self._progress = progress

    def push(self, file: LocalFile, store: RepositoryStore, digest: Digest | None) -> Descriptor:
        """Upload a file and wait for it, unless the repository has it.

        Args:
            digest: expected digest, which is always verified; None: compute it.
        Raises:
            DigestMismatch, FileChanged: nothing was committed.
        """
        meter = self._create_meter(str(file.path), store.name, file.size)
        job = self._pool.submit(
            lambda: self._push_file(file, store, digest, meter),
            size=file.size,
            hosts=(store.host,),
            slots=upload_slots(store),
        )
        return wait_for(job, self._context.cancel)

    def pull(self, store: SourceStore, address: Address, destination: Path) -> Descriptor:
        """Download the blob of an address, which has a digest, and wait for it.

        Raises:
            NotFound: the store does not have it. Other errors as in `Engine.pull_blob`.
        """
        digest = address.digest
        size = None if digest is None else blob_size(store, digest)
        if digest is None or size is None:
            raise NotFound(f"{address} does not exist", remedy="check the repository and digest")
        blob = Descriptor(OCTET_STREAM, digest, size)
        meter = self._create_meter(str(blob.digest), str(destination), blob.size)
        with report_transfer(meter, blob.size):
            job = self._pool.submit(
                lambda: self._fetch_blob(store, blob, destination, meter),
                size=blob.size,
                hosts=(store.host,),
            )
            download = wait_for(job, self._context.cancel)
            wait_for(download, self._context.cancel)
        return blob

    def _push_file(
        self, file: LocalFile, store: RepositoryStore, digest: Digest | None, meter: Meter
    ) -> Descriptor:
        journal, identity = self._context.journal, file.identity
        known_digest = digest or journal.find_digest(identity.path, identity.to_text)
        if known_digest is None and not store.can_upload_without_digest(file.size):
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
        store: RepositoryStore,
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
        target = BlobTarget(store.name, subject, begin, store.host)
        return transfer_blob(source, target, meter, self._context).result()

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
