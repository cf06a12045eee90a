"""An upload session of a registry: POST, PATCH, status, PUT, DELETE; it reconciles the offset."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import replace

import requests

from concil.content import Body, Digest
from concil.errors import (
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    InvalidDigest,
    ProtocolViolation,
    RegistryNotFound,
    SessionLost,
    StatusError,
)
from concil.registry import failures
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call
from concil.registry.quirks import SENSIBLE
from concil.registry.session import ERROR_LIMIT, Options, discard, read_error, read_limited
from concil.registry.urls import redacted, with_query

logger = logging.getLogger(__name__)

# No more digits than a size has: Python refuses to read numbers of thousands of digits.
_RANGE = re.compile(r"(?:bytes=)?0-(-?[0-9]{1,19})")


def acknowledged(header: str | None) -> int | None:
    """Return how many bytes a registry says it holds.

    Returns:
        Bytes; None if the header is missing or no range. "0-0" is 0: registries send it
        for an empty session, and one-byte chunks are not sent before the last.
    Source: distribution-spec, "Pushing a blob in chunks"; REGISTRIES.md 1.4.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    last = int(found[1])
    return 0 if last <= 0 else last + 1


class UploadSession:
    """One upload session. One thread at a time; nothing here is repeated but the POST.

    ``offset`` is what the registry acknowledged, ``sent`` the furthest byte that was
    ever sent: the truth after a loss lies between them.
    """

    def __init__(self, client: RegistryClient, location: str, offset: int = 0) -> None:
        """Go on with the session at ``location``, a secret."""
        client.hide_session(location)
        self._client = client
        self.location = location
        self.offset = offset
        self.sent = offset
        self.smallest_chunk: int | None = None  # bytes, as announced
        self.largest_chunk: int | None = None  # bytes, as announced
        self.stuck = False  # the Range of its answers stays behind what they accept

    @classmethod
    def open(cls, client: RegistryClient) -> UploadSession:
        """Begin a new session.

        Source: distribution-spec, end-4a.
        """
        call = Call(
            "POST",
            client.path("blobs/uploads/"),
            client.push,
            {"Content-Length": "0"},
            expect=frozenset({200, 201, 202, 204}),
        )
        response = client.endpoint.repeat(call, client.policy)
        location = response.headers.get("Location")
        discard(response)
        if location is None:
            raise ProtocolViolation(f"{client.repository}: an upload was opened without Location")
        session = cls(client, client.session_url(response, location))
        session.smallest_chunk = _announced(response, "OCI-Chunk-Min-Length")
        session.largest_chunk = _announced(response, "OCI-Chunk-Max-Length")
        return session

    def patch(self, body: Body, *, ranged: bool = True) -> None:
        """Send the next bytes, from ``offset`` on; take the answer's offset and Location.

        Args:
            ranged: with Content-Range; without, the registry appends what comes.
        Raises:
            ConnectionLost, StatusError: ask `status` where to go on.
        """
        began, end = self.offset, self.offset + len(body)
        call = self._carrying("PATCH", self.location, body, ranged=ranged)
        response = self._send(replace(call, expect=call.expect | {416}))
        self._follow(response)
        if response.status_code == requests.codes.range_not_satisfiable:
            # Cloudflare and Quay say where to go on.
            raise failures.status_error(response, read_error(response))
        told = acknowledged(response.headers.get("Range"))
        discard(response)
        if told is not None and began < told < end:
            self.offset = told  # it kept a part of the chunk
        else:
            self.stuck = self.stuck or (told is not None and 0 < told <= began)
            # Missing, stuck at an earlier chunk (ECR), or of this request only (zot's
            # streams): the status says that all of it was accepted.
            self.offset = end

    def status(self) -> int:
        """Ask what the registry holds; set and return ``offset``.

        Raises:
            SessionLost: the session is gone, or its offset makes no sense.
            ConnectionLost, StatusError: no answer, after several tries.
        Source: distribution-spec, end-13; REGISTRIES.md 1.5.
        """
        call = Call(
            "GET",
            self.location,
            self._client.push,
            expect=frozenset({200, 202, 204}),
            options=Options(home=self._home, session=True),
        )
        # A spoilt session answers 500 for ever: that is asked again, but not for long.
        brief = replace(self._client.policy, attempts=min(2, self._client.policy.attempts))
        try:
            response = self._client.endpoint.repeat(
                replace(call, expect=call.expect | {500}), self._client.policy
            )
            if response.status_code == requests.codes.internal_server_error:
                discard(response)
                response = self._client.endpoint.repeat(call, brief)
        except StatusError as error:
            if error.status in (401, 403) or error.status > 500:
                raise
            raise SessionLost(f"{self._client.repository}: the upload session is gone") from error
        self._follow(response)
        told = acknowledged(response.headers.get("Range"))
        discard(response)
        # Quay's GET counts one byte too many and sends no Location (REGISTRIES.md 2.6).
        if told is not None and "Location" not in response.headers:
            prefixed = response.headers.get("Range", "").startswith("bytes=")
            told -= told > self.sent or (prefixed and told > self.offset)
        if told is None or not self.offset <= told <= self.sent:
            raise SessionLost(
                f"{self._client.repository}: the registry holds {told} bytes of an upload, "
                f"acknowledged {self.offset}, was sent {self.sent}"
            )
        self.offset = told
        return told

    def put(
        self, digest: Digest, body: Body | bytes = b"", *, ranged: bool = False
    ) -> requests.Response:
        """Close the session under ``digest``, with the last or all bytes or none.

        Returns:
            The answer, its body read.

        Raises:
            DigestMismatch: the registry computed another digest; nothing was committed.
            SessionLost: it knows nothing of the session.
            ConnectionLost: no answer came; only a HEAD of the blob tells.
        Source: distribution-spec, end-6.
        """
        url = with_query(self.location, "digest", str(digest))
        wait = self._client.endpoint.transport.timeouts.commit
        try:
            response = self._send(self._carrying("PUT", url, body, ranged=ranged, wait=wait))
        except RegistryNotFound as error:
            raise SessionLost(f"{self._client.repository}: the upload session is gone") from error
        except StatusError as error:
            if error.status == 400 and "DIGEST_INVALID" in error.args[0]:
                raise DigestMismatch(
                    f"{self._client.repository}: the registry got other bytes than {digest}",
                    remedy="the source is damaged or changed while it was sent, or the way to the"
                    " registry changes what it carries",
                ) from error
            raise
        read_limited(response, ERROR_LIMIT, f"{self._client.repository}: answer to a PUT")
        self._check_committed(response, digest)
        return response

    def cancel(self) -> None:
        """Give the session up. Many registries refuse; the outcome is of no interest."""
        call = Call(
            "DELETE",
            self.location,
            self._client.push,
            expect=frozenset(range(200, 600)),
            options=Options(home=self._home, session=True),
        )
        with contextlib.suppress(ConcilError):
            discard(self._client.endpoint.send(call))

    @property
    def _home(self) -> str:
        """Whom the secrets belong to: a Location may lead elsewhere."""
        return self._client.endpoint.base

    def _send(self, call: Call) -> requests.Response:
        response = self._client.endpoint.send(call)
        if response.status_code in _MOVED:
            self._follow(response)
            discard(response)
            # The body went to the wrong place; from the new one it is sent again.
            raise ConnectionLost(
                f"{call.method} {redacted(call.url)}: the registry redirects the upload"
            )
        return response

    def _carrying(
        self, method: str, url: str, body: Body | bytes, *, ranged: bool, wait: float | None = None
    ) -> Call:
        """A call that carries the next bytes; ``wait``: seconds for its answer."""
        headers = {"Content-Type": "application/octet-stream"}
        if ranged and len(body):
            headers["Content-Range"] = f"{self.offset}-{self.offset + len(body) - 1}"
        self.sent = max(self.sent, self.offset + len(body))
        options = Options(read_timeout=wait, follow=False, home=self._home, session=True)
        return Call(method, url, self._client.push, headers, body, _ACCEPTED | _MOVED, options)

    def _follow(self, response: requests.Response) -> None:
        """Each answer's Location replaces the last: it may carry the state."""
        location = response.headers.get("Location")
        if location:
            try:
                self.location = self._client.session_url(response, location)
            except ProtocolViolation:
                response.close()
                raise

    def _check_committed(self, response: requests.Response, digest: Digest) -> None:
        """Compare with what the registry says it stored; another algorithm says nothing."""
        try:
            stored = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
        except InvalidDigest:
            return
        if stored.algorithm == digest.algorithm and stored != digest:
            raise DigestMismatch(
                f"{self._client.repository}: sent {digest}, the registry stored {stored}",
                remedy="its storage or a proxy in front of it changes what it accepts",
            )


_ACCEPTED = frozenset({200, 201, 202, 204})
_MOVED = frozenset({301, 302, 307, 308})


def _announced(response: requests.Response, name: str) -> int | None:
    value = response.headers.get(name, "")
    size = int(value) if value.isdecimal() and len(value) < 20 else 0
    return size if size in SENSIBLE else None
