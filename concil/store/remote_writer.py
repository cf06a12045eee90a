"""A blob on its way into a registry: picks a strategy, learns from refusals, begins again."""

from __future__ import annotations

import logging
import time

import requests

from concil.config import MIB
from concil.content import Body, Digest
from concil.errors import ConnectionLost, ProtocolViolation, SessionLost, StatusError
from concil.registry.client import RegistryClient
from concil.registry.quirks import LEAST_PACE, Knowledge, Strategy
from concil.registry.upload import UploadSession
from concil.store.protocol import DigestNeeded, WriterState

logger = logging.getLogger(__name__)
SPOILT = 3  # answers 500 in a row to chunks at one byte; fewer may be an overload
TELLING = LEAST_PACE // 2  # bytes of a chunk; of a smaller one the time is mostly its answer's
LEAST_CHUNK = 1 * MIB  # bytes; no chunk is halved below it, or an eighth of the wanted one


class RemoteWriter:
    """An upload as a BlobWriter: picks a strategy, learns from refusals, begins again if it must.

    One thread at a time.
    """

    def __init__(
        self,
        client: RegistryClient,
        knowledge: Knowledge,
        chunk_size: int | None,
        size: int,
        digest: Digest | None,
    ) -> None:
        """Prepare; `start` talks to the registry.

        Args:
            chunk_size: bytes of one PATCH, where the host has no opinion of its own;
                None: what it carries in about two seconds.
        """
        self._client = client
        self._knowledge = knowledge
        self._wanted_chunk = chunk_size
        self._least_chunk = min(LEAST_CHUNK, max((chunk_size or LEAST_PACE) // 8, 1))
        self._size = size
        self._digest = digest
        self._session: UploadSession | None = None
        self._committed: Digest | None = None  # by a PUT that carried bytes
        self._failed = 0  # answers 500 in a row to chunks at one byte of this session
        self._failed_at = 0  # that byte
        self._carried = 0  # bytes of the largest chunk that this session took
        self._timed = False  # it was seen how much the host carries
        self._refused = 0  # closing PUTs without a body that were answered with a 500
        self.response: requests.Response | None = None  # that committed the blob
        self.chunk_size = self._host_chunk()
        self._strategy = self._pick()

    @property
    def offset(self) -> int:
        """Bytes the registry acknowledged."""
        if self._committed is not None:
            return self._size
        return self._session.offset if self._session else 0

    def start(self, resume: WriterState | None = None) -> None:
        """Go on with a remembered session if it lives, else open one."""
        if resume is not None:
            session = UploadSession(self._client, resume.location, resume.offset)
            session.sent = self._size
            try:
                session.status()
            except (SessionLost, StatusError) as error:
                logger.info("%s: not resumed: %s", self._name, error)
            else:
                self._session, self.chunk_size = session, resume.chunk_size
                self._strategy = Strategy.CHUNKS
                return
        self._open()

    def append(self, body: Body, /) -> None:
        """Send the next stretch the way the strategy has it."""
        session = self._live()
        last = session.offset + len(body) >= self._size
        began = time.monotonic()
        try:
            if self._strategy is Strategy.MONOLITHIC:
                self._put(session, body, ranged=False)
            elif self._strategy is Strategy.CHUNKS_LAST_IN_PUT and last and self._digest:
                self._put(session, body, ranged=session.offset > 0)
            else:
                session.patch(body, ranged=self._strategy is not Strategy.STREAM)
                self._failed, self._carried = 0, max(self._carried, len(body))
                if session.stuck:
                    self._knowledge.count_ourselves(self._host)
        except StatusError as error:
            self._learn(error, session, len(body))
            raise
        if len(body) >= TELLING:
            self._knowledge.carried(self._host, len(body), time.monotonic() - began)
            self._timed = True

    def resync(self) -> int:
        """Ask the session where to go on; open a new one if it is gone."""
        if self._committed is not None:
            return self._size
        if self._session is not None and self._strategy is not Strategy.MONOLITHIC:
            try:
                return self._session.status()
            except SessionLost as error:
                logger.info("%s: %s; beginning again", self._name, error)
        self._knowledge.lost(self._host, self.chunk_size)
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
            self._keep_pace()
            return
        session = self._live()
        # The bytes are all hashed by then: a new session may send the last in the PUT.
        self._digest = digest
        try:
            self._close_session(session, digest)
        except StatusError as error:
            self._learn_closing(error)
            raise
        self._check_stored(digest)
        self._keep_pace()

    def close(self) -> None:
        """Leave the session as it is; the registry forgets it in time."""
        self._session = None
        self._keep_pace()

    def abort(self) -> None:
        """Cancel the session."""
        if self._session is not None:
            self._session.cancel()
        self._session = None

    def _keep_pace(self) -> None:
        """Let later processes know how much the host carries."""
        if self._timed:
            self._knowledge.keep(self._host)
            self._timed = False

    @property
    def _host(self) -> str:
        return self._client.endpoint.host

    @property
    def _name(self) -> str:
        return f"{self._host}/{self._client.repository}"

    def _host_chunk(self) -> int:
        """Bytes of one PATCH to this host, as known now."""
        return self._knowledge.chunk_size(self._host, self._wanted_chunk, self._size)

    def _pick(self) -> Strategy:
        """One PUT for what fits into a chunk, else what the host is known to need."""
        strategy = self._knowledge.of(self._host).strategy
        fits = self._size <= self.chunk_size and self._digest is not None
        if strategy is Strategy.MONOLITHIC or fits:
            if self._digest is None:
                raise DigestNeeded(f"{self._host} takes no blob of an unknown digest")
            self.chunk_size = max(self._size, 1)
            return Strategy.MONOLITHIC
        if strategy is Strategy.STREAM:
            self.chunk_size = self._size
        return strategy

    def _open(self) -> None:
        """Open a session; what it announces about chunks counts for this host from now on."""
        session = UploadSession.open(self._client)
        if session.smallest_chunk is not None or session.largest_chunk is not None:
            self._knowledge.announce(self._host, session.smallest_chunk, session.largest_chunk)
        self._session = session
        self._failed = self._carried = 0
        self.chunk_size = self._host_chunk()
        self._strategy = self._pick()

    def _put(self, session: UploadSession, body: Body, *, ranged: bool) -> None:
        digest = self._digest
        assert digest is not None  # noqa: S101 - _pick and append see to it
        self._close_session(session, digest, body, ranged=ranged)
        self._committed = digest

    def _close_session(
        self,
        session: UploadSession,
        digest: Digest,
        body: Body | bytes = b"",
        *,
        ranged: bool = False,
    ) -> None:
        """Send the closing PUT; a lost answer, or a 404 to it, is no proof that it failed."""
        try:
            self.response = session.put(digest, body, ranged=ranged)
        except (SessionLost, ConnectionLost, StatusError) as error:
            if isinstance(error, StatusError) and error.status < 500:
                self._may_go_on(error)
                raise
            if not self._is_there(digest):
                raise
        self._session = None

    def _check_stored(self, digest: Digest) -> None:
        """Ask for a blob whose digest the registry did not confirm when it took it."""
        if self.response is None:  # its answer was lost, and a HEAD has told
            return
        told = self.response.headers.get("Docker-Content-Digest")
        if told != str(digest) and not self._is_there(digest):
            raise ProtocolViolation(
                f"{self._name}: the registry took {digest} and does not have it",
                remedy="its storage or a proxy in front of it loses what it accepts",
            )

    def _learn(self, error: StatusError, session: UploadSession, length: int) -> None:
        """Take a refusal as a lesson: a smaller chunk, or no chunks. Raises SessionLost then.

        Source: REGISTRIES.md 2.4 (416 for too large a chunk), 2.10, 2.11, 2.19.
        """
        known, host = self._knowledge, self._host
        too_large, gone = error.status == 413, error.status == 404
        if self._strategy is not Strategy.MONOLITHIC:
            if error.status == 416:
                # The offset was right, or nobody can tell any more: it may be the size.
                gone = not self._still_at(session.offset, session, error)
                too_large = length > self._carried
            if not gone and not too_large:
                self._may_go_on(error)
            if error.status != 500 or session.offset != self._failed_at:
                self._failed, self._failed_at = 0, session.offset
            self._failed += error.status == 500
            # A body that broke off spoils a session of Gitea for ever (REGISTRIES.md 2.15).
            gone = gone or self._failed >= SPOILT
        if too_large and self._strategy is Strategy.MONOLITHIC:
            if length <= self._least_chunk:
                return
            known.use(host, Strategy.CHUNKS)
            largest = min(length, self._host_chunk()) // 2
            known.limit_chunk(host, max(self._least_chunk, largest))
        elif too_large and length > self._least_chunk:
            known.limit_chunk(host, max(self._least_chunk, length // 2))
        elif _takes_no_chunks(error) and self._strategy is not Strategy.MONOLITHIC:
            known.use(host, Strategy.MONOLITHIC)
        elif not gone:
            return
        if not gone:
            session.cancel()  # nobody comes back to it, and some registries count them
        self._session = None
        raise SessionLost(f"{self._name}: begins again: {error}") from error

    def _may_go_on(self, error: StatusError) -> None:
        """Raise ConnectionLost where the session is only busy, or stands elsewhere."""
        if error.status in (409, 416):
            raise ConnectionLost(f"{self._name}: asks where to go on: {error}") from error

    def _learn_closing(self, error: StatusError) -> None:
        """Take a 500 to an empty PUT as a lesson: the last chunk belongs into it.

        One may be an accident, but not where the Range sticks: so ECR is known.
        Source: REGISTRIES.md 2.8.
        """
        if error.status != 500 or self._size == 0 or self._strategy is not Strategy.CHUNKS:
            return
        self._refused += 1
        if self._refused > 1 or self._knowledge.of(self._host).own_offset:
            self._knowledge.use(self._host, Strategy.CHUNKS_LAST_IN_PUT)
            self._session = None

    def _still_at(self, offset: int, session: UploadSession, error: StatusError) -> bool:
        """Whether the session lives and stands where we were; ConnectionLost if elsewhere."""
        try:
            held = session.status()
        except SessionLost:
            return False
        if held != offset:
            raise ConnectionLost(f"{self._name}: goes on at byte {held}: {error}") from error
        return True

    def _is_there(self, digest: Digest) -> bool:
        size = self._client.head_blob(digest, scopes=self._client.push)
        return size is not None and size in (-1, self._size)

    def _live(self) -> UploadSession:
        if self._session is None:
            raise SessionLost(f"{self._name}: the upload session is gone")
        return self._session


def _takes_no_chunks(error: StatusError) -> bool:
    """Whether the answer to a PATCH says that there is no such thing.

    Source: REGISTRIES.md 2.10.
    """
    return error.status in (405, 501) or (error.status == 400 and "UNSUPPORTED" in error.args[0])
