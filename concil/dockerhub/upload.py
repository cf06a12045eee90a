"""Uploads of DockerHub, resumable through the journal."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import requests

from concil.fs.local_file import LocalFile
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest, Verifier
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, ProgressSink, State
from concil.registry.client import RegistryClient
from concil.registry.quirks import MIN_ADAPTIVE_CHUNK, HostProfiles
from concil.runtime import arguments
from concil.store.registry.repository import RepositoryStore
from concil.transfer.blob.source import BlobSource
from concil.transfer.blob.transfer_blob import BlobTarget, transfer_blob
from concil.transfer.context import TransferContext
from concil.transfer.journal import Journal


class BytesReader:
    """A BlobReader of bytes in memory."""

    def __init__(self, content: memoryview, start: int, stop: int | None = None) -> None:
        """Read from ``start`` up to ``stop``, half-open."""
        self._content = content[:stop]
        self.start = self._position = start

    def readinto(self, buffer: memoryview, /) -> int:
        """Copy the next bytes; return their number, 0 at the end."""
        block = self._content[self._position : self._position + len(buffer)]
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def close(self) -> None:
        """Do nothing."""


def file_source(filename: str | os.PathLike[str], cancel: threading.Event) -> BlobSource:
    """Return the source for a file that is named after its digest.

    Raises:
        InvalidDigest: the file's name is not a digest.
        UsageError: the file does not exist.
    """
    path = Path(arguments.to_path("filename", filename))
    digest = Digest.parse(path.name if ":" in path.name else f"sha256:{path.name}")
    file = LocalFile(path)
    verify = partial(file.verify, digest, cancel=cancel)
    return BlobSource(
        file.open,
        file.size,
        digest,
        f"blob {digest}",
        check_unchanged=file.check_unchanged,
        verify_digest=verify,
    )


def bytes_source(data: bytes, digest: str | Digest) -> BlobSource:
    """Return the source for bytes in memory.

    Raises:
        InvalidDigest: ``digest`` is malformed.
    """
    content, expected_digest = (
        arguments.to_memoryview("data", data),
        Digest.from_argument("digest", digest),
    )

    def verify() -> None:
        verifier = Verifier(expected_digest.algorithm)
        verifier.update(content)
        verifier.verify(expected_digest, None, "the bytes to upload")

    opener = partial(BytesReader, content)
    name = f"blob {expected_digest}"
    return BlobSource(opener, len(content), expected_digest, name, verify_digest=verify)


class BlobUploader:
    """Runs the uploads of one client. Any thread may call any method.

    The documented client need not be closed, so the journal is open only during uploads.
    """

    def __init__(self, run: TransferContext) -> None:
        """Use built-in host profiles, and load those of earlier processes when needed."""
        self._context = run
        self._is_journal_usable = True  # False after a failure, so that there is only one warning
        self._host_profiles = HostProfiles(self._load_host_profile, self._save_host_profile)

    def upload(
        self,
        source: BlobSource,
        client: RegistryClient,
        destination: str,
        progress: ProgressSink | None,
    ) -> requests.Response | None:
        """Upload one blob.

        Args:
            destination: the repository's name in the engine, so that either can resume the
                other's uploads.
        Returns:
            The response that committed the blob; None if it was lost although the blob exists.
        """
        arguments.check_callable("progress", progress)
        url = client.endpoint.base_url + client.path("").rstrip("/")
        subject, size = str(source.digest), source.size
        meter = Meter(progress, kind="blob", subject=subject, target=url, total=size)
        store = RepositoryStore(client, name=url, host_profiles=self._host_profiles)
        writer = store.create_writer(size, source.digest)
        # Only chunked uploads can be resumed.
        is_chunked = size > MIN_ADAPTIVE_CHUNK
        meter.set_state(State.STARTED, position=0)

        def find(_lost_session: WriterState) -> Digest | None:
            digest = source.digest
            if digest is None or not store.has_blob(Descriptor(OCTET_STREAM, digest, size)):
                return None
            if source.verify_digest is not None:  # as for bytes that are sent
                source.verify_digest()
            return digest

        with self._open_journal(needed=is_chunked) as journal:
            target = BlobTarget(destination, subject, writer.start, store.host, journal, find)
            transfer_blob(source, target, meter, self._context)
        meter.set_state(State.DONE, position=size)
        return writer.response

    @contextlib.contextmanager
    def _open_journal(self, *, needed: bool = True) -> Iterator[Journal]:
        path = Journal.default_path() if needed and self._is_journal_usable else None
        with contextlib.closing(Journal(path)) as journal:
            try:
                yield journal
            finally:
                if path is not None and not journal.is_usable:
                    self._is_journal_usable = False

    def _load_host_profile(self, host: str) -> dict[str, Any]:
        with self._open_journal() as journal:
            return journal.load_host_profile(host)

    def _save_host_profile(self, host: str, profile: dict[str, Any]) -> None:
        with self._open_journal() as journal:
            journal.save_host_profile(host, profile)


def journal_destination(client: RegistryClient, *, is_explicit: bool) -> str:
    """Return the repository's name in the engine, so that either can resume the other's uploads.

    Args:
        is_explicit: plain http is written, since it is not what the address implies.
    """
    scheme, _, host = client.endpoint.base_url.partition("://")
    prefix = "http://" if scheme == "http" and is_explicit else ""
    return f"{prefix}{host}/{client.repository}"
