"""Uploads of the documented client: by the engine's machine, with no file left open."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests

from concil import arguments
from concil.digest import Digest, Verifier
from concil.progress import Meter, ProgressSink, State
from concil.registry.client import RegistryClient
from concil.registry.quirks import LEAST_PACE, Knowledge
from concil.store.files import LocalFile
from concil.store.protocol import BlobReader
from concil.store.remote import RemoteStore
from concil.transfer.journal import Journal
from concil.transfer.push import Opener, Push
from concil.transfer.run import Run


@dataclass(frozen=True, slots=True)
class Upload:
    """One blob to send."""

    opener: Opener
    size: int  # bytes
    digest: Digest
    check: Callable[[], None] | None = None  # raises if the source is not what it was
    verify: Callable[[], None] | None = None  # raises if the source has another digest


class Bytes:
    """Bytes in memory as a BlobReader."""

    def __init__(self, content: memoryview, start: int) -> None:
        """Begin at ``start``."""
        self._content = content
        self.start = self._position = start

    def readinto(self, buffer: memoryview, /) -> int:
        """Copy the next bytes."""
        piece = self._content[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        """Nothing to let go of."""


def file_upload(filename: str | os.PathLike[str], cancel: threading.Event) -> Upload:
    """Return the upload of a file that is named by its digest.

    Raises:
        InvalidDigest: the file's name is no digest.
        UsageError: there is no such file.
    """
    path = Path(arguments.path("filename", filename))
    digest = Digest.parse(path.name if ":" in path.name else f"sha256:{path.name}")
    file = LocalFile(path)
    verify = partial(file.verify, digest, cancel=cancel)
    return Upload(file.open, file.size, digest, file.check_unchanged, verify)


def bytes_upload(data: bytes, digest: str | Digest) -> Upload:
    """Return the upload of bytes in memory.

    Raises:
        InvalidDigest: it is none.
    """
    content, wanted = arguments.content("data", data), Digest.argument("digest", digest)

    def opener(start: int, /) -> BlobReader:
        return Bytes(content, start)

    def verify() -> None:
        verifier = Verifier(wanted.algorithm)
        verifier.update(content)
        verifier.check(wanted, None, "the bytes to upload")

    return Upload(opener, len(content), wanted, verify=verify)


class Uploads:
    """What the uploads of one client share. Any thread may call any method.

    Nobody has to close the documented client: between two uploads no file is open.
    """

    def __init__(self, run: Run) -> None:
        """Know what is declared; what earlier processes learned is looked up when needed."""
        self._run = run
        self._usable = True  # after one warning the journal is not tried again
        self._knowledge = Knowledge(self._recall, self._record)

    def send(
        self, upload: Upload, client: RegistryClient, place: str, progress: ProgressSink | None
    ) -> requests.Response | None:
        """Send one blob.

        Args:
            place: the repository as the engine calls it: either goes on with the other's.
        Returns:
            The response that committed the blob; None if it was lost, and the blob is there.
        """
        arguments.callback("progress", progress)
        url = client.endpoint.base + client.path("").rstrip("/")
        digest, size = upload.digest, upload.size
        meter = Meter(progress, kind="blob", subject=str(digest), target=url, total=size)
        store = RemoteStore(client, name=url, knowledge=self._knowledge)
        # Only what goes in chunks can be gone on with.
        large = size > LEAST_PACE
        meter.state(State.STARTED, position=0)
        with self._journal(needed=large) as journal:
            entry = journal.entry(place, str(digest), size)
            try:
                writer = store.begin_blob(size, digest, entry.state)
            except BaseException:
                entry.release()
                raise
            push = Push(upload.opener, writer, meter, self._run, entry)
            push.run(size, digest, f"blob {digest}", check=upload.check, verify=upload.verify)
        meter.state(State.DONE, position=size)
        return writer.response

    @contextlib.contextmanager
    def _journal(self, *, needed: bool = True) -> Iterator[Journal]:
        path = Journal.default_path() if needed and self._usable else None
        with contextlib.closing(Journal(path)) as journal:
            try:
                yield journal
            finally:
                if path is not None and not journal.usable:
                    self._usable = False

    def _recall(self, host: str) -> dict[str, Any]:
        with self._journal() as journal:
            return journal.known_of(host)

    def _record(self, host: str, known: dict[str, Any]) -> None:
        with self._journal() as journal:
            journal.remember_host(host, known)
