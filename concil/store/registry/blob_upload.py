"""Uploads a blob to a registry: chooses a strategy, resumes, starts over."""

from __future__ import annotations

import logging
import time
from typing import Self

import requests

from concil.config import MIB
from concil.errors import (
    ConnectionLost,
    SessionLost,
    StatusError,
)
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Body, Digest
from concil.registry.client import RegistryClient
from concil.registry.quirks import MIN_ADAPTIVE_CHUNK, HostProfiles, Strategy
from concil.registry.upload_session import UploadSession
from concil.store.protocols import DigestRequired
from concil.store.registry.blob_check import (
    check_stored,
    check_stored_size,
    has_blob,
    repository_name,
)
from concil.store.registry.refusal import (
    RESUMABLE_STATUSES,
    ChunkLimits,
    Fail,
    Monolithic,
    Refusal,
    Resume,
    decide,
    is_unsupported,
)

logger = logging.getLogger(__name__)
# Bytes; the time of a smaller chunk is mostly the latency of the answer.
MIN_TIMED_CHUNK = MIN_ADAPTIVE_CHUNK // 2
# Bytes; no chunk is halved below it, or below an eighth of the requested size.
MIN_CHUNK_SIZE = 1 * MIB


class RegistryBlobWriter:
    """An upload as a BlobWriter: picks a strategy, adapts to refusals, restarts if necessary.

    One thread at a time.
    """

    def __init__(  # noqa: PLR0913 - what is known of the host and of the blob
        self,
        client: RegistryClient,
        host_profiles: HostProfiles,
        chunk_size: int | None,
        size: int,
        digest: Digest | None,
        *,
        has_to_check_size: bool = False,
    ) -> None:
        """Prepare the upload; `start` sends the first request.

        Args:
            chunk_size: bytes of one PATCH, unless the host has its own limits;
                None: what the host transfers in about two seconds.
            has_to_check_size: the registry had a blob with this digest and another size.
        """
        self._client = client
        self._host_profiles = host_profiles
        self._requested_chunk_size = chunk_size
        self._min_chunk_size = min(MIN_CHUNK_SIZE, max((chunk_size or MIN_ADAPTIVE_CHUNK) // 8, 1))
        self._size = size
        self._digest = digest
        self._session: UploadSession | None = None
        self._committed_digest: Digest | None = None  # set after a PUT with a body
        self._error_count = 0  # consecutive 500 answers to chunks at one offset of this session
        self._error_offset = 0  # that offset
        self._is_offset_current = False  # the session was asked since the last bytes were sent
        self._largest_accepted_chunk = 0  # bytes of the largest chunk that this session accepted
        self._is_throughput_recorded = False  # the throughput of the host was measured
        self._closing_error_count = 0  # 500 answers to closing PUTs without a body
        self.response: requests.Response | None = None  # of the request that committed the blob
        self._has_to_check_size = has_to_check_size
        self.chunk_size = self._host_chunk_size()
        self._strategy = self._choose_strategy()

    @property
    def offset(self) -> int:
        """Number of bytes that the registry has acknowledged."""
        if self._committed_digest is not None:
            return self._size
        return self._session.offset if self._session else 0

    def set_size(self, size: int, /) -> None:
        """Set the size of a stream, which is known at its end."""
        self._size = size

    def start(self, resume: WriterState | None = None) -> Self:
        """Resume an upload session if it still exists, else open a new one; return itself."""
        if resume is not None:
            session = UploadSession(
                self._client, resume.location, resume.offset, max_sent_offset=self._size
            )
            try:
                session.status()
            except (SessionLost, StatusError) as error:
                logger.info("%s: not resumed: %s", self._name, error)
            else:
                self._session, self.chunk_size = session, resume.chunk_size
                self._strategy = Strategy.CHUNKS
                return self
        self._open_session()
        return self

    def append(self, body: Body, /) -> None:
        """Send the next bytes with the current strategy."""
        session, strategy, digest = self._require_session(), self._strategy, self._digest
        self._is_offset_current = False
        is_last = session.offset + len(body) >= self._size
        is_monolithic = strategy is Strategy.MONOLITHIC
        is_closing = is_monolithic or (is_last and strategy is Strategy.CHUNKS_LAST_IN_PUT)
        start_time = time.monotonic()
        try:
            if is_closing and digest is not None:
                ranged = session.offset > 0 and not is_monolithic
                self._close_session(session, digest, body, ranged=ranged)
                self._committed_digest = digest
            else:
                session.patch(body, with_content_range=strategy is not Strategy.STREAM)
                self._record_accepted_chunk(session, len(body))
        except StatusError as error:
            self._handle_refusal(error, session, len(body))
            raise
        if len(body) >= MIN_TIMED_CHUNK:
            self._host_profiles.record_throughput(
                self._host, len(body), time.monotonic() - start_time
            )
            self._is_throughput_recorded = True
            if self._requested_chunk_size is None and self._strategy.is_chunked:
                self.chunk_size = self._host_profiles.next_chunk_size(
                    self._host, self.chunk_size, self.offset, self._size - self.offset
                )

    def resync(self) -> int:
        """Ask the session for its offset; open a new session if it is gone."""
        if self._committed_digest is not None:
            return self._size
        if self._session is not None and self._strategy is not Strategy.MONOLITHIC:
            if self._is_offset_current:
                self._is_offset_current = False
                return self._session.offset
            try:
                return self._session.status()
            except SessionLost as error:
                logger.info("%s: %s; starting over", self._name, error)
        self._host_profiles.record_lost_session(self._host, self.chunk_size)
        self._open_session()
        return 0

    def state(self) -> WriterState | None:
        """Return the Location and offset of the session, if it can be resumed in chunks."""
        session = self._session
        if session is None or self._strategy is not Strategy.CHUNKS or self._committed_digest:
            return None
        return WriterState(session.location, session.offset, self.chunk_size)

    def commit(self, digest: Digest, /) -> None:
        """Close the upload; if the answer is lost, check whether the blob exists."""
        if self._committed_digest is None:
            self._commit(digest)
        if self._has_to_check_size:
            check_stored_size(self._client, digest, self._size)
        self._save_throughput()

    def _commit(self, digest: Digest) -> None:
        session = self._require_session()
        # All bytes are hashed now, so a new session may send the last ones in the PUT.
        self._digest = digest
        try:
            self._close_session(session, digest)
        except StatusError as error:
            self._classify_closing_refusal(error)
            raise
        check_stored(self._client, digest, self._size, self.response)

    def close(self) -> None:
        """Keep the session; the registry expires it."""
        self._session = None
        self._save_throughput()

    def abort(self) -> None:
        """Cancel the upload session."""
        if self._session is not None:
            self._session.cancel()
        self._session = None

    def _save_throughput(self) -> None:
        """Store the throughput of the host for later processes."""
        if self._is_throughput_recorded:
            self._host_profiles.save_throughput(self._host)
            self._is_throughput_recorded = False

    @property
    def _host(self) -> str:
        return self._client.endpoint.host

    @property
    def _name(self) -> str:
        return repository_name(self._client)

    def _host_chunk_size(self) -> int:
        """Return the bytes of one PATCH to this host, as currently known."""
        return self._host_profiles.chunk_size(self._host, self._requested_chunk_size, self._size)

    def _choose_strategy(self) -> Strategy:
        """Choose one PUT for a blob that fits into a chunk, else the strategy the host needs."""
        strategy = self._host_profiles.quirks_for(self._host).strategy
        fits = self._size <= self.chunk_size and self._digest is not None
        if strategy is Strategy.MONOLITHIC or fits:
            if self._digest is None:
                raise DigestRequired(
                    f"{self._host} requires the digest of a blob before the upload"
                )
            self.chunk_size = max(self._size, 1)
            return Strategy.MONOLITHIC
        if strategy is Strategy.STREAM:
            self.chunk_size = self._size
        return strategy

    def _open_session(self) -> None:
        """Open a session."""
        self.use_session(UploadSession.start(self._client))

    def use_session(self, session: UploadSession) -> Self:
        """Send the blob into a new session; return itself.

        The chunk limits that the session announces apply to the host from then on.
        """
        if session.min_chunk_size is not None or session.max_chunk_size is not None:
            self._host_profiles.set_chunk_size_range(
                self._host, session.min_chunk_size, session.max_chunk_size
            )
        self._session = session
        self._error_count = self._largest_accepted_chunk = 0
        self.chunk_size = self._host_chunk_size()
        self._strategy = self._choose_strategy()
        return self

    def _record_accepted_chunk(self, session: UploadSession, length: int) -> None:
        self._error_count = 0
        self._largest_accepted_chunk = max(self._largest_accepted_chunk, length)
        if session.is_range_stuck:
            self._host_profiles.distrust_range(self._host)

    def _close_session(
        self,
        session: UploadSession,
        digest: Digest,
        body: Body | bytes = b"",
        *,
        ranged: bool = False,
    ) -> None:
        """Send the closing PUT; on a lost answer, a 404 or a 5xx, check for the blob."""
        try:
            self.response = session.put(digest, body, with_content_range=ranged)
        except (SessionLost, ConnectionLost, StatusError) as error:
            if isinstance(error, StatusError) and error.status < 500:
                if error.status in RESUMABLE_STATUSES:
                    raise ConnectionLost(f"{self._name}: resuming the session: {error}") from error
                raise
            if not has_blob(self._client, digest, self._size):
                raise
        self._session = None

    def _handle_refusal(self, error: StatusError, session: UploadSession, length: int) -> None:
        """Adapt the upload to a refusal of ``length`` bytes; return if that cannot help.

        Raises:
            ConnectionLost: the session can be resumed.
            SessionLost: a new session has to be opened; its chunks may be smaller.
        """
        start, host = session.offset, self._host
        is_monolithic = self._strategy is Strategy.MONOLITHIC
        refusal = Refusal(
            error.status,
            length,
            start,
            None if is_monolithic else self._offset_after_refusal(error, session),
            is_monolithic,
            is_unsupported(error),
            self._count_500(error, start),
        )
        limits = ChunkLimits(
            self._min_chunk_size, self._host_chunk_size(), self._largest_accepted_chunk
        )
        decision = decide(refusal, limits)
        if isinstance(decision, Resume):
            self._is_offset_current = decision.offset is not None
            raise ConnectionLost(f"{self._name}: resuming the session: {error}") from error
        self._error_count, self._error_offset = refusal.error_count, start
        if isinstance(decision, Fail):
            return
        if isinstance(decision, Monolithic):
            self._host_profiles.set_strategy(host, Strategy.MONOLITHIC)
        elif decision.max_chunk_size is not None:
            if is_monolithic:
                self._host_profiles.set_strategy(host, Strategy.CHUNKS)
            self._host_profiles.set_max_chunk_size(host, decision.max_chunk_size)
        if isinstance(decision, Monolithic) or not decision.is_session_gone:
            session.cancel()  # it is not used again, and some registries limit open sessions
        self._session = None
        raise SessionLost(f"{self._name}: starting over: {error.reason or error}") from error

    def _offset_after_refusal(self, error: StatusError, session: UploadSession) -> int | None:
        """Request the offset of the session after a 416; None: another status, or it is gone."""
        if error.status != requests.codes.range_not_satisfiable:
            return None
        try:
            return session.status()
        except SessionLost:
            return None

    def _count_500(self, error: StatusError, offset: int) -> int:
        """Return the number of consecutive 500 answers to chunks at ``offset``."""
        if error.status != requests.codes.server_error:
            return 0
        return 1 + (self._error_count if offset == self._error_offset else 0)

    def _classify_closing_refusal(self, error: StatusError) -> None:
        """On a 500 to an empty closing PUT, switch to sending the last chunk in the PUT.

        A single 500 may be accidental, unless the Range header is stuck: that identifies ECR.
        Source: REGISTRIES.md 2.8.
        """
        if error.status != 500 or self._size == 0 or self._strategy is not Strategy.CHUNKS:
            return
        self._closing_error_count += 1
        if (
            self._closing_error_count > 1
            or self._host_profiles.quirks_for(self._host).ignore_range_header
        ):
            self._host_profiles.set_strategy(self._host, Strategy.CHUNKS_LAST_IN_PUT)
            self._session = None

    def _require_session(self) -> UploadSession:
        if self._session is None:
            raise SessionLost(f"{self._name}: the upload session is gone")
        return self._session
