"""Uploads a blob to a registry: chooses a strategy, resumes, starts over."""

from __future__ import annotations

import logging
import time

import requests

from concil.config import MIB
from concil.errors import (
    ConnectionLost,
    ProtocolViolation,
    RegistryError,
    SessionLost,
    StatusError,
)
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Body, Digest
from concil.registry.client import RegistryClient
from concil.registry.quirks import MIN_ADAPTIVE_CHUNK, HostProfiles, Strategy
from concil.registry.upload_session import UploadSession
from concil.store.protocols import DigestRequired

logger = logging.getLogger(__name__)
MAX_500_AT_OFFSET = 3  # consecutive 500 answers to chunks at one offset; fewer may be an overload
# Bytes; the time of a smaller chunk is mostly the latency of the answer.
MIN_TIMED_CHUNK = MIN_ADAPTIVE_CHUNK // 2
# Bytes; no chunk is halved below it, or below an eighth of the requested size.
MIN_CHUNK_SIZE = 1 * MIB


class RegistryBlobWriter:
    """An upload as a BlobWriter: picks a strategy, adapts to refusals, restarts if necessary.

    One thread at a time.
    """

    def __init__(
        self,
        client: RegistryClient,
        host_profiles: HostProfiles,
        chunk_size: int | None,
        size: int,
        digest: Digest | None,
    ) -> None:
        """Prepare the upload; `start` sends the first request.

        Args:
            chunk_size: bytes of one PATCH, unless the host has its own limits;
                None: what the host transfers in about two seconds.
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
        self._largest_accepted_chunk = 0  # bytes of the largest chunk that this session accepted
        self._is_throughput_recorded = False  # the throughput of the host was measured
        self._closing_error_count = 0  # 500 answers to closing PUTs without a body
        self.response: requests.Response | None = None  # of the request that committed the blob
        # The registry had a blob with this digest and another size: check the size afterwards.
        self.has_to_check_size = False
        self.chunk_size = self._host_chunk_size()
        self._strategy = self._choose_strategy()

    @property
    def offset(self) -> int:
        """Number of bytes that the registry has acknowledged."""
        if self._committed_digest is not None:
            return self._size
        return self._session.offset if self._session else 0

    def start(self, resume: WriterState | None = None) -> None:
        """Resume an upload session if it still exists, else open a new one."""
        if resume is not None:
            session = UploadSession(self._client, resume.location, resume.offset)
            session.max_sent_offset = self._size
            try:
                session.status()
            except (SessionLost, StatusError) as error:
                logger.info("%s: not resumed: %s", self._name, error)
            else:
                self._session, self.chunk_size = session, resume.chunk_size
                self._strategy = Strategy.CHUNKS
                return
        self._open_session()

    def append(self, body: Body, /) -> None:
        """Send the next bytes with the current strategy."""
        session = self._require_session()
        is_last = session.offset + len(body) >= self._size
        start_time = time.monotonic()
        try:
            if self._strategy is Strategy.MONOLITHIC:
                self._put_last_chunk(session, body, ranged=False)
            elif self._strategy is Strategy.CHUNKS_LAST_IN_PUT and is_last and self._digest:
                self._put_last_chunk(session, body, ranged=session.offset > 0)
            else:
                session.patch(body, with_content_range=self._strategy is not Strategy.STREAM)
                self._error_count, self._largest_accepted_chunk = (
                    0,
                    max(self._largest_accepted_chunk, len(body)),
                )
                if session.is_range_stuck:
                    self._host_profiles.distrust_range(self._host)
        except StatusError as error:
            self._classify_refusal(error, session, len(body))
            raise
        if len(body) >= MIN_TIMED_CHUNK:
            self._host_profiles.record_throughput(
                self._host, len(body), time.monotonic() - start_time
            )
            self._is_throughput_recorded = True

    def resync(self) -> int:
        """Ask the session for its offset; open a new session if it is gone."""
        if self._committed_digest is not None:
            return self._size
        if self._session is not None and self._strategy is not Strategy.MONOLITHIC:
            try:
                return self._session.status()
            except SessionLost as error:
                logger.info("%s: %s; beginning again", self._name, error)
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
        if self.has_to_check_size:
            self._check_stored_size(digest)
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
        self._check_stored(digest)

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
        return f"{self._host}/{self._client.repository}"

    def _host_chunk_size(self) -> int:
        """Return the bytes of one PATCH to this host, as currently known."""
        return self._host_profiles.chunk_size(self._host, self._requested_chunk_size, self._size)

    def _choose_strategy(self) -> Strategy:
        """Choose one PUT for a blob that fits into a chunk, else the strategy the host needs."""
        strategy = self._host_profiles.quirks_for(self._host).strategy
        fits = self._size <= self.chunk_size and self._digest is not None
        if strategy is Strategy.MONOLITHIC or fits:
            if self._digest is None:
                raise DigestRequired(f"{self._host} takes no blob of an unknown digest")
            self.chunk_size = max(self._size, 1)
            return Strategy.MONOLITHIC
        if strategy is Strategy.STREAM:
            self.chunk_size = self._size
        return strategy

    def _open_session(self) -> None:
        """Open a session; the chunk limits that it announces apply to the host from then on."""
        session = UploadSession.start(self._client)
        if session.min_chunk_size is not None or session.max_chunk_size is not None:
            self._host_profiles.set_chunk_size_range(
                self._host, session.min_chunk_size, session.max_chunk_size
            )
        self._session = session
        self._error_count = self._largest_accepted_chunk = 0
        self.chunk_size = self._host_chunk_size()
        self._strategy = self._choose_strategy()

    def _put_last_chunk(self, session: UploadSession, body: Body, *, ranged: bool) -> None:
        digest = self._digest
        assert digest is not None  # noqa: S101 - _pick and append see to it
        self._close_session(session, digest, body, ranged=ranged)
        self._committed_digest = digest

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
                self._raise_if_resumable(error)
                raise
            if not self._has_blob(digest):
                raise
        self._session = None

    def _check_stored(self, digest: Digest) -> None:
        """Check that a blob exists whose digest the registry did not confirm."""
        if self.response is None:  # its answer was lost, and a HEAD has confirmed the blob
            return
        stored_digest = self.response.headers.get("Docker-Content-Digest")
        if stored_digest != str(digest) and not self._has_blob(digest):
            raise ProtocolViolation(
                f"{self._name}: the registry took {digest} and does not have it",
                remedy="its storage or a proxy in front of it loses what it accepts",
            )

    def _check_stored_size(self, digest: Digest) -> None:
        """Check the size of a blob that the registry had with another size.

        Distribution 2.8 does not overwrite an existing file, whatever its content.
        """
        size = self._client.head_blob(digest, scopes=self._client.push_scopes)
        if size not in (-1, self._size):
            raise RegistryError(
                f"{self._name}: the registry accepts {self._size} bytes and keeps"
                f" {size or 0} bytes of {digest}",
                remedy="its stored file is damaged: remove"
                f" blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex} from the registry's"
                " storage, then run it again",
            )

    def _classify_refusal(self, error: StatusError, session: UploadSession, length: int) -> None:
        """Adapt to a refusal with a smaller chunk or without chunks; then raise SessionLost.

        Source: REGISTRIES.md 2.4 (416 for too large a chunk), 2.10, 2.11, 2.19.
        """
        profiles, host = self._host_profiles, self._host
        is_too_large, is_gone = error.status == 413, error.status == 404
        if self._strategy is not Strategy.MONOLITHIC:
            if error.status == 416:
                # Either the offset was right or it is unknown, so the size may be the reason.
                is_gone = not self._is_at_offset(session.offset, session, error)
                is_too_large = length > self._largest_accepted_chunk
            if not is_gone and not is_too_large:
                self._raise_if_resumable(error)
            if error.status != 500 or session.offset != self._error_offset:
                self._error_count, self._error_offset = 0, session.offset
            self._error_count += error.status == 500
            # An interrupted body breaks a session of Gitea for good (REGISTRIES.md 2.15).
            is_gone = is_gone or self._error_count >= MAX_500_AT_OFFSET
        if is_too_large and self._strategy is Strategy.MONOLITHIC:
            if length <= self._min_chunk_size:
                return
            profiles.set_strategy(host, Strategy.CHUNKS)
            largest = min(length, self._host_chunk_size()) // 2
            profiles.set_max_chunk_size(host, max(self._min_chunk_size, largest))
        elif is_too_large and length > self._min_chunk_size:
            profiles.set_max_chunk_size(host, max(self._min_chunk_size, length // 2))
        elif _is_patch_unsupported(error) and self._strategy is not Strategy.MONOLITHIC:
            profiles.set_strategy(host, Strategy.MONOLITHIC)
        elif not is_gone:
            return
        if not is_gone:
            session.cancel()  # it is not used again, and some registries limit open sessions
        self._session = None
        raise SessionLost(f"{self._name}: begins again: {error}") from error

    def _raise_if_resumable(self, error: StatusError) -> None:
        """On 409 or 416 raise ConnectionLost, so that the caller resyncs and resumes."""
        if error.status in (409, 416):
            raise ConnectionLost(f"{self._name}: asks where to go on: {error}") from error

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

    def _is_at_offset(self, offset: int, session: UploadSession, error: StatusError) -> bool:
        """Return whether the session still exists; raise ConnectionLost if its offset differs."""
        try:
            status_offset = session.status()
        except SessionLost:
            return False
        if status_offset != offset:
            raise ConnectionLost(
                f"{self._name}: goes on at byte {status_offset}: {error}"
            ) from error
        return True

    def _has_blob(self, digest: Digest) -> bool:
        size = self._client.head_blob(digest, scopes=self._client.push_scopes)
        return size is not None and size in (-1, self._size)

    def _require_session(self) -> UploadSession:
        if self._session is None:
            raise SessionLost(f"{self._name}: the upload session is gone")
        return self._session


def _is_patch_unsupported(error: StatusError) -> bool:
    """Return whether an answer says that PATCH is not supported.

    Source: REGISTRIES.md 2.10.
    """
    return error.status in (405, 501) or (error.status == 400 and "UNSUPPORTED" in error.args[0])
