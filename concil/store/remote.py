"""A repository in a registry, as a store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import requests

from concil.config import MIB
from concil.content import Body, Descriptor, Digest, Manifest
from concil.errors import (
    ConcilError,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    SessionLost,
    SizeMismatch,
    StatusError,
    UsageError,
)
from concil.registry import failures
from concil.registry.client import RegistryClient
from concil.registry.quirks import Knowledge, Quirks, Strategy
from concil.registry.upload import UploadSession
from concil.registry.urls import redacted
from concil.store.protocol import WriterState

logger = logging.getLogger(__name__)
LEAST_CHUNK = 1 * MIB  # bytes; a host that refuses even this gets no chunks


class RemoteBlob:
    """The body of a blob on the wire, a BlobReader."""

    def __init__(self, response: requests.Response, start: int) -> None:
        """Read ``response``, whose first byte is the blob's byte ``start``; closes it."""
        self._url = response.url
        self._raw = response.raw
        self.start = start

    def readinto(self, buffer: memoryview, /) -> int:
        """Take what is there, up to the buffer: one receive, so that a cut loses nothing."""
        try:
            piece = self._raw.read1(len(buffer), decode_content=False)
        except (requests.RequestException, OSError, failures.HTTP_ERRORS) as error:
            what = f"GET {redacted(self._url)}"
            raise failures.translate(error, what, answered=True) from error
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Let go of the connection; one with unread bytes is closed."""
        self._raw.close()
        self._raw.release_conn()


class RemoteStore:
    """A repository as Source, Destination, Mounter and TagLister."""

    def __init__(
        self, client: RegistryClient, *, name: str, knowledge: Knowledge, chunk_size: int = 10 * MIB
    ) -> None:
        """Speak through ``client``.

        Args:
            name: the repository as people write it.
            knowledge: what is known of the hosts; shared by all stores of a run.
            chunk_size: bytes of one PATCH, where the host has no opinion of its own.
        """
        self.client = client
        self.name = name
        self.repository = client.repository
        self._knowledge = knowledge
        self._chunk_size = chunk_size

    @property
    def host(self) -> str:
        """The registry's host[:port]."""
        return self.client.endpoint.base.partition("://")[2]

    @property
    def realm(self) -> str:
        """All repositories of a registry can mount from one another."""
        return self.host

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask by tag or digest what is there. See `store.protocol.Source`."""
        return self.client.head_manifest(reference or "latest")

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch by tag or digest; a digest is verified."""
        return self.client.get_manifest(reference or "latest")

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest, bytes unchanged."""
        self.client.put_manifest(manifest.body, manifest.media_type, reference or "latest")

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest, and with it every tag that names it.

        Raises:
            NotFound: there is no such tag or digest.
        """
        found = self.client.head_manifest(reference or "latest")
        if found is None:
            raise NotFound(
                f"{self.name}: there is no {reference or 'latest'}", remedy="see: concil tags"
            )
        self.client.delete_manifest(str(found.digest))

    def tags(self) -> Iterator[str]:
        """Yield the tags, page by page."""
        return self.client.tags()

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there; one of another size is not it."""
        size = self.client.head_blob(blob.digest)
        return size is not None and size in (-1, blob.size)

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
        length = response.headers.get("Content-Length", "")
        expected = (min(stop or blob.size, blob.size) - start) if partial else blob.size
        if length.isdigit() and int(length) != expected:
            response.close()
            raise SizeMismatch(
                f"{self.name}@{blob.digest}: the registry sends {length} bytes, not {expected}",
                remedy="its manifest and its blob do not fit; push the image again",
            )
        return RemoteBlob(response, start if partial else 0)

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
        writer = RemoteWriter(self, size, digest, resume)
        try:
            writer.start()
        except BaseException:  # also on Ctrl-C no session is left behind unnamed
            writer.close()
            raise
        return writer

    def quirks(self) -> Quirks:
        """How to upload to this host, as known now."""
        return self._knowledge.of(self.host)

    def writer_chunk(self) -> int:
        """Bytes of one PATCH to this host, as known now."""
        return self.quirks().chunk_size(self._chunk_size)

    def learn(self) -> Knowledge:
        """Where to note what the host taught."""
        return self._knowledge


class RemoteWriter:
    """An upload as a BlobWriter: picks a strategy, learns from refusals, begins again if it must.

    One thread at a time.
    """

    def __init__(
        self, store: RemoteStore, size: int, digest: Digest | None, resume: WriterState | None
    ) -> None:
        """Prepare; `start` talks to the registry."""
        self._store = store
        self._size = size
        self._digest = digest
        self._resume = resume
        self._session: UploadSession | None = None
        self._committed: Digest | None = None  # by a PUT that carried bytes
        self.response: requests.Response | None = None  # that committed the blob
        self.chunk_size = store.writer_chunk()
        self._strategy = self._pick()

    @property
    def offset(self) -> int:
        """Bytes the registry acknowledged."""
        if self._committed is not None:
            return self._size
        return self._session.offset if self._session else 0

    def start(self) -> None:
        """Go on with the remembered session if it lives, else open one."""
        resume = self._resume
        if resume is not None:
            session = UploadSession(self._store.client, resume.location, resume.offset)
            session.sent = self._size
            try:
                session.status()
            except (SessionLost, StatusError) as error:
                logger.info("%s: not resumed: %s", self._store.name, error)
            else:
                self._session, self.chunk_size = session, resume.chunk_size
                self._strategy = Strategy.CHUNKS
                return
        self._open()

    def append(self, body: Body, /) -> None:
        """Send the next stretch the way the strategy has it."""
        session = self._live()
        last = session.offset + len(body) >= self._size
        try:
            if self._strategy is Strategy.MONOLITHIC:
                self._put(session, body, ranged=False)
            elif self._strategy is Strategy.CHUNKS_LAST_IN_PUT and last and self._digest:
                self._put(session, body, ranged=session.offset > 0)
            else:
                session.patch(body, ranged=self._strategy is not Strategy.STREAM)
        except StatusError as error:
            self._learn(error, session, len(body))
            raise

    def resync(self) -> int:
        """Ask the session where to go on; open a new one if it is gone."""
        if self._committed is not None:
            return self._size
        if self._session is not None and self._strategy is not Strategy.MONOLITHIC:
            try:
                return self._session.status()
            except SessionLost as error:
                logger.info("%s: %s; beginning again", self._store.name, error)
        self._open()
        return 0

    def state(self) -> WriterState | None:
        """The session's Location and offset, where chunks could go on later."""
        session = self._session
        if session is None or self._strategy is not Strategy.CHUNKS or self._committed:
            return None
        return WriterState(session.location, session.offset, self.chunk_size)

    def commit(self, digest: Digest, /) -> None:
        """Close the upload; a lost answer is cleared up by asking for the blob."""
        if self._committed is not None:
            return
        session = self._live()
        try:
            self.response = session.put(digest)
        except (SessionLost, ConnectionLost, StatusError) as error:
            if isinstance(error, StatusError) and error.status < 500:
                raise
            if not self._is_there(digest):
                raise
        self._session = None

    def close(self) -> None:
        """Leave the session as it is; the registry forgets it in time."""
        self._session = None

    def abort(self) -> None:
        """Cancel the session."""
        if self._session is not None:
            self._session.cancel()
        self._session = None

    def _pick(self) -> Strategy:
        """One PUT for what fits into a chunk, else what the host is known to need."""
        strategy = self._store.quirks().strategy
        fits = self._size <= self.chunk_size and self._digest is not None
        if strategy is Strategy.MONOLITHIC or fits:
            if self._digest is None:
                raise UsageError(f"{self._store.host} takes no blob of an unknown digest")
            self.chunk_size = max(self._size, 1)
            return Strategy.MONOLITHIC
        if strategy is Strategy.STREAM:
            self.chunk_size = self._size
        return strategy

    def _open(self) -> None:
        """Open a session; what it announces about chunks counts for this host from now on."""
        session = UploadSession.open(self._store.client)
        if session.smallest_chunk is not None or session.largest_chunk is not None:
            self._store.learn().announce(
                self._store.host, session.smallest_chunk, session.largest_chunk
            )
        self._session = session
        self.chunk_size = self._store.writer_chunk()
        self._strategy = self._pick()

    def _put(self, session: UploadSession, body: Body, *, ranged: bool) -> None:
        digest = self._digest
        assert digest is not None  # noqa: S101 - _pick and append see to it
        try:
            self.response = session.put(digest, body, ranged=ranged)
        except ConnectionLost:
            if not self._is_there(digest):
                raise
        self._committed = digest
        self._session = None

    def _learn(self, error: StatusError, session: UploadSession, length: int) -> None:
        """Take a refusal as a lesson: a smaller chunk, or no chunks. Raises SessionLost then.

        Source: REGISTRIES.md 2.4 (416 for too large a chunk), 2.10, 2.11, 2.19.
        """
        known, host = self._store.learn(), self._store.host
        too_large = error.status == 413
        if error.status == 416 and self._strategy is not Strategy.MONOLITHIC:
            before = session.offset
            with contextlib.suppress(ConcilError):
                too_large = session.status() == before  # the offset was right: it is the size
        if too_large and self._strategy is Strategy.MONOLITHIC:
            if length <= LEAST_CHUNK:
                return
            known.use(host, Strategy.CHUNKS)
            known.limit_chunk(host, max(LEAST_CHUNK, min(length, self._store.writer_chunk()) // 2))
        elif too_large and length > LEAST_CHUNK:
            known.limit_chunk(host, max(LEAST_CHUNK, length // 2))
        elif error.status in (405, 501) and self._strategy is not Strategy.MONOLITHIC:
            known.use(host, Strategy.MONOLITHIC)
        elif error.status != 404:
            return
        self._session = None
        raise SessionLost(f"{self._store.name}: begins again: {error}") from error

    def _is_there(self, digest: Digest) -> bool:
        size = self._store.client.head_blob(digest, scopes=self._store.client.push)
        return size is not None and size in (-1, self._size)

    def _live(self) -> UploadSession:
        if self._session is None:
            raise SessionLost(f"{self._store.name}: the upload session is gone")
        return self._session
