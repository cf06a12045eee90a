"""A repository in a registry, as a store."""

from __future__ import annotations

import http.client
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Self

import requests

from concil.config import KIB
from concil.content import Descriptor, Digest, Manifest
from concil.errors import (
    ConcilError,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    SizeMismatch,
    StatusError,
)
from concil.registry import failures, read_back
from concil.registry.client import RegistryClient
from concil.registry.quirks import LEAST_PACE, Knowledge, Strategy
from concil.registry.referrers import Referrers, SharedReferrers
from concil.registry.session import content_length
from concil.registry.upload import UploadSession
from concil.registry.urls import redacted
from concil.store.protocol import WriterState
from concil.store.remote_writer import RemoteWriter

logger = logging.getLogger(__name__)
_HOLD = 0.05  # seconds in which what arrives is gathered into one buffer
_LOST = (requests.RequestException, OSError, http.client.HTTPException, failures.HTTP_ERRORS)


class RemoteBlob:
    """The body of a blob on the wire, a BlobReader."""

    def __init__(self, response: requests.Response, start: int) -> None:
        """Read ``response``, whose first byte is the blob's byte ``start``; closes it."""
        self._url = response.url
        self._raw = response.raw
        # urllib3 only returns new bytes objects: a copy, and page faults for each of them,
        # cost as much CPU as the receiving. The response below it fills a buffer; where
        # there is none, or chunked coding is to be undone, urllib3 reads.
        below = getattr(response.raw, "_fp", None)
        plain = isinstance(below, http.client.HTTPResponse) and not below.chunked
        self._below = below if plain else None
        self._failure: BaseException | None = None  # that came behind bytes to hand on first
        self.start = start

    @classmethod
    def at(cls, response: requests.Response, start: int) -> Self:
        """Read a response to a range request from ``start`` on, also where it has everything."""
        reader = cls(response, start if response.status_code == requests.codes.partial else 0)
        reader.pass_over(start)
        return reader

    def readinto(self, buffer: memoryview, /) -> int:
        """Take what is there or comes soon, up to the buffer; a cut loses nothing that came."""
        try:
            if self._failure is not None:
                raise self._failure
            if self._below is not None:
                return self._gather(self._below, buffer)
            piece = self._raw.read1(len(buffer), decode_content=False)
        except _LOST as error:
            what = f"GET {redacted(self._url)}"
            raise failures.translate(error, what, answered=True) from error
        buffer[: len(piece)] = piece
        return len(piece)

    def pass_over(self, start: int) -> None:
        """Drop the bytes before ``start``, by large reads whatever the next reader asks for.

        Raises:
            ConnectionLost: they broke off; it is closed then.
        """
        buffer = memoryview(bytearray(min(256 * KIB, max(0, start - self.start))))
        count = 1
        try:
            while self.start < start and count:
                count = self.readinto(buffer[: start - self.start])
                self.start += count
        except ConcilError:
            self.close()
            raise
        if self.start < start:
            self.close()
            raise ConnectionLost(f"GET {redacted(self._url)}: ended at byte {self.start}")

    def close(self) -> None:
        """Let go of the connection; one with unread bytes is closed."""
        below = self._below
        if below is not None and below.isclosed() and below.length == 0:
            self._raw.release_conn()  # urllib3 has not seen that all was read
        self._raw.close()
        self._raw.release_conn()

    def _gather(self, below: http.client.HTTPResponse, buffer: memoryview) -> int:
        """Fill the buffer by what the kernel has each time, as long as that comes quickly.

        Large pieces, for each call into the kernel also hands the interpreter from thread
        to thread.
        """
        count, until = 0, time.monotonic() + _HOLD
        while count < len(buffer) and (not count or time.monotonic() < until):
            try:
                got = _receive(below, buffer[count:])
            except _LOST as error:
                if not count:
                    raise
                self._failure = error
                break
            count += got
            if got == 0:
                break
        return count


def _receive(below: http.client.HTTPResponse, buffer: memoryview) -> int:
    """Read once from the connection into the buffer; 0: the body is at its end, or was cut.

    As `HTTPResponse.readinto`, which waits until the whole buffer is full.
    """
    if below.fp is None or below.length is None:
        return below.readinto(buffer)
    got: int = below.fp.readinto1(buffer[: below.length])
    below.length -= got
    if below.length == 0:
        below.readinto(buffer[:0])  # sees that nothing is left, and lets go of the connection
    return got


class RemoteStore:
    """A repository as Source, Destination, Mounter, Narrow, TagLister and Referring."""

    def __init__(
        self,
        client: RegistryClient,
        *,
        name: str,
        knowledge: Knowledge,
        chunk_size: int | None = None,
        referrers: SharedReferrers | None = None,
    ) -> None:
        """Speak through ``client``.

        Args:
            name: the repository as people write it.
            knowledge: what is known of the hosts; shared by all stores of a run.
            referrers: what is known of their referrers; shared like that.
            chunk_size: bytes of one PATCH, where the host has no opinion of its own;
                None: what it carries in about two seconds, 10 to 64 MiB.
        """
        self.client = client
        self.name = name
        self.repository = client.repository
        self._knowledge = knowledge
        self._chunk_size = chunk_size
        self._damaged: set[Digest] = set()  # blobs that the registry has with another size
        self._referrers = Referrers(client, referrers or SharedReferrers())

    @property
    def host(self) -> str:
        """The registry's host[:port]."""
        return self.client.endpoint.host

    @property
    def realm(self) -> str:
        """All repositories of a registry can mount from one another."""
        return self.host

    @property
    def losses(self) -> int:
        """How many answers of the registry were lost so far. See `transfer.past`."""
        return self.client.endpoint.losses

    @property
    def uploads_at_once(self) -> int | None:
        """How many uploads the host bears at once. See `store.protocol.Narrow`."""
        return self._knowledge.of(self.host).uploads_at_once

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask by tag or digest what is there. See `store.protocol.Source`."""
        return self.client.head_manifest(reference or "latest")

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch by tag or digest; a digest is verified."""
        return self.client.get_manifest(reference or "latest")

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest, bytes unchanged; one that refers to another is listed there.

        Raises:
            RegistryError: the registry accepts it, and cannot return it.
        Source: distribution-spec, "Pushing Manifests with Subject".
        """
        subject = manifest.subject  # an error of the manifest, before anything is written
        reference = reference or "latest"

        def put() -> requests.Response:
            return self.client.put_manifest(manifest.body, manifest.media_type, reference)

        answer = put()
        read_back.confirm(self.client, manifest, reference, put, self._knowledge.returned)
        if subject is not None and "OCI-Subject" not in answer.headers:
            digest = Digest.parse(reference) if ":" in reference else manifest.digest
            self._referrers.add(manifest, digest, subject.digest)

    def referrers(self, subject: Digest, _beside: str = "", /) -> Sequence[Descriptor]:
        """What refers to a manifest. See `store.protocol.Referring`."""
        return self._referrers.of(subject)

    def digest_tags(self, subject: Digest, _beside: str = "", /) -> Sequence[str]:
        """Tags that are named by a digest. See `store.protocol.Referring`."""
        return self._referrers.digest_tags(subject)

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest, and with it every tag that names it.

        Raises:
            NotFound: there is no such tag or digest.
        """
        found = self.client.head_manifest(reference or "latest")
        if found is None:
            raise NotFound(
                f"{self.name}: there is no {reference or 'latest'}",
                remedy="check the tag or digest",
            )
        self.client.delete_manifest(str(found.digest))

    def delete_tag(self, tag: str) -> None:
        """Remove a tag and leave its manifest.

        Raises:
            StatusError: the registry cannot; distribution 2.8 answers 400.
        Source: distribution-spec, "Deleting tags".
        """
        self.client.delete_manifest(tag)

    def is_shut(self) -> bool:
        """Whether the registry has refused this user altogether. See `store.protocol.Guarded`."""
        return self.client.endpoint.auth.is_shut()

    def tags(self) -> Iterator[str]:
        """Yield the tags, page by page."""
        return self.client.tags()

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there; one of another size is not it."""
        size = self.client.head_blob(blob.digest)
        if size is not None and size not in (-1, blob.size):
            self._damaged.add(blob.digest)
        return size in (-1, blob.size)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there.

        Raises:
            ProtocolViolation: the registry does not tell.
        """
        size = self.client.head_blob(digest)
        if size == -1:
            raise ProtocolViolation(f"{self.name}@{digest}: the registry does not tell its size")
        return size

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> RemoteBlob:
        """Open the bytes from ``start``; a registry without ranges begins at 0.

        Raises:
            SizeMismatch: the whole blob has another size than the descriptor says.
        """
        ranged = blob.size > 0 and (start > 0 or (stop is not None and stop < blob.size))
        response = self.client.get_blob(
            blob.digest, start if ranged else 0, stop if ranged else None
        )
        partial = response.status_code == requests.codes.partial_content
        length = content_length(response)
        expected = (min(stop or blob.size, blob.size) - start) if partial else blob.size
        if length is not None and length != expected:
            response.close()
            raise SizeMismatch(
                f"{self.name}@{blob.digest}: the registry sends {length} bytes, not {expected}",
                remedy="its manifest and its blob do not fit; push the image again",
            )
        return RemoteBlob(response, start if partial else 0)

    def takes_unknown(self, size: int) -> bool:
        """Whether a blob of ``size`` bytes may be begun before its digest is known."""
        quirks = self._knowledge.of(self.host)
        # A fast host's larger chunks are no reason to read a file twice.
        large = size > quirks.chunk_size(self._chunk_size or LEAST_PACE)
        return large and quirks.strategy is Strategy.CHUNKS

    def mount(self, blob: Descriptor, source: str) -> bool:
        """Take ``blob`` from the repository ``source``; any trouble only means no."""
        try:
            location = self.client.mount_blob(blob.digest, source)
        except (StatusError, ConnectionLost) as error:
            logger.debug("%s: no mount from %s: %s", self.name, source, error)
            return False
        if location is not None:
            UploadSession(self.client, location).cancel()
        return location is None

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> RemoteWriter:
        """Begin an upload, or go on with one if the registry still has it."""
        writer = RemoteWriter(self.client, self._knowledge, self._chunk_size, size, digest)
        writer.check_size = digest in self._damaged
        writer.start(resume)
        return writer
