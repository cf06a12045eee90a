"""Uploads of local files as blobs: what the file hashes to, and what need not be sent."""

from __future__ import annotations

from functools import partial

from concil.content import OCTETS, Descriptor, Digest
from concil.progress import Meter, State, told
from concil.store.files import LocalFile
from concil.store.protocol import BlobReader, DigestNeeded
from concil.store.remote import RemoteStore
from concil.transfer.push import Push
from concil.transfer.run import Run


class FileUploads:
    """The uploads of local files of one run. Any thread may call any method."""

    def __init__(self, run: Run) -> None:
        """Remember digests and unfinished uploads in the journal of ``run``."""
        self._run = run
        self._cancel = run.cancel

    def push(
        self, file: LocalFile, store: RemoteStore, digest: Digest | None, meter: Meter
    ) -> Descriptor:
        """Send a file unless the repository has it; return its descriptor.

        Args:
            digest: what the file must hash to, which is always looked at; None: whatever
                it hashes to.
        Raises:
            DigestMismatch, FileChanged: nothing was committed.
        """
        journal, identity = self._run.journal, file.identity
        known = digest or journal.digest_of(identity.path, identity.text)
        if known is None and not store.takes_unknown(file.size):
            known = self._hash(file)
        if known is not None and store.has_blob(Descriptor(OCTETS, known, file.size)):
            if digest is not None:
                file.verify(digest, cancel=self._cancel)
            meter.state(State.PRESENT, position=file.size)
            return Descriptor(OCTETS, known, file.size)
        with told(meter, file.size):
            try:
                found = self._send(file, store, known, meter, asked=digest)
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
        verify = partial(file.verify, asked, cancel=self._cancel) if asked is not None else None
        name = str(file.path)
        return push.run(file.size, known, name, check=file.check_unchanged, verify=verify)
