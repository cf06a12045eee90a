"""Upload session: POST, PATCH, status, PUT and DELETE."""

from __future__ import annotations

import contextlib
import logging
import re
import urllib.parse
from dataclasses import replace
from typing import Self

import requests

from concil import retry
from concil.auth.scope import Scopes, repository_scope
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
from concil.http import status_errors
from concil.http.transport import (
    MAX_ERROR_SIZE,
    SendOptions,
    drain_response,
    read_error,
    read_limited,
)
from concil.http.urls import add_query_parameter, redact_url
from concil.oci.manifest import Body, Digest
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call
from concil.registry.quirks import VALID_CHUNK_SIZES

logger = logging.getLogger(__name__)

# At most 19 digits: int() rejects numbers of thousands of digits.
_RANGE = re.compile(r"(?:bytes=)?0-(-?[0-9]{1,19})")


def parse_range(header: str | None) -> int | None:
    """Return the number of bytes that a Range header acknowledges.

    Returns:
        Bytes; None if the header is missing or invalid. "0-0" counts as 0: registries send it
        for an empty session, and only the last chunk can have one byte.
    Source: distribution-spec, "Pushing a blob in chunks"; REGISTRIES.md 1.4.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    last_byte = int(match[1])
    return 0 if last_byte <= 0 else last_byte + 1


class UploadSession:
    """One upload session. Not thread-safe; only the POST and the status are retried.

    ``offset`` is the number of bytes the registry has acknowledged, ``max_sent_offset`` the
    end of the furthest byte sent. After a lost connection the real offset lies in between.
    """

    def __init__(
        self,
        client: RegistryClient,
        location: str,
        offset: int = 0,
        *,
        max_sent_offset: int | None = None,
    ) -> None:
        """Resume the session at ``location``, a secret URL, from ``offset``.

        Args:
            max_sent_offset: end of the furthest byte that was sent; None: ``offset``.
        """
        client.hide_session(location)
        self._client = client
        self.location = location
        self.offset = offset
        self.max_sent_offset = offset if max_sent_offset is None else max_sent_offset
        self.min_chunk_size: int | None = None  # bytes, as announced
        self.max_chunk_size: int | None = None  # bytes, as announced
        self.is_range_stuck = False  # its Range stays behind the bytes accepted

    @classmethod
    def start(cls, client: RegistryClient) -> Self:
        """Open a new session.

        Source: distribution-spec, end-4a.
        """
        call = _post_call(client, "", client.push_scopes, _ACCEPTED_STATUSES)
        response = client.endpoint.send_with_retry(call, client.policy)
        drain_response(response)
        return cls._from_response(client, response)

    @classmethod
    def start_by_mount(cls, client: RegistryClient, digest: Digest, source: str) -> Self | None:
        """Mount a blob from the repository ``source`` of the same registry, or the same one.

        Returns:
            None if it was mounted; otherwise the session that the registry opened instead.
        Raises:
            ProtocolViolation: the response names no session.
        Source: distribution-spec, "Mounting a blob from another repository".
        """
        blob, repository = (urllib.parse.quote(text, ":/") for text in (str(digest), source))
        query = f"mount={blob}&from={repository}"
        scopes, policy = client.push_scopes, client.policy
        if source != client.repository:
            scopes = (*scopes, repository_scope(source, "pull"))
        else:  # the caller can do without
            policy = retry.limit_attempts(policy, 2)
        call = _post_call(client, f"?{query}", scopes, frozenset({201, 202}))
        response = client.endpoint.send_with_retry(call, policy)
        drain_response(response)
        if response.status_code == requests.codes.created:
            return None
        session = cls._from_response(client, response)
        # Early versions of zot append the session's name to the query of the request.
        if "mount=" in urllib.parse.urlsplit(session.location).query:
            raise ProtocolViolation(f"{client.repository}: a mount named no upload session")
        return session

    @classmethod
    def _from_response(cls, client: RegistryClient, response: requests.Response) -> Self:
        """Return the session that a response to a POST names in its Location."""
        location = response.headers.get("Location")
        if location is None:
            raise ProtocolViolation(
                f"{client.repository}: the response to an upload request has no Location header"
            )
        session = cls(client, client.session_url(response, location))
        session.min_chunk_size = _parse_chunk_size(response, "OCI-Chunk-Min-Length")
        session.max_chunk_size = _parse_chunk_size(response, "OCI-Chunk-Max-Length")
        return session

    def patch(self, body: Body, *, with_content_range: bool = True) -> None:
        """Send the next bytes from ``offset``; update offset and Location from the response.

        Args:
            with_content_range: send a Content-Range; without it the registry appends the bytes.
        Raises:
            ConnectionLost, StatusError: call `status` for the offset to resume at.
        """
        start, end = self.offset, self.offset + len(body)
        call = self._body_call("PATCH", self.location, body, with_content_range=with_content_range)
        call = replace(call, expected_statuses=call.expected_statuses | {416})
        response = self._client.endpoint.send(call)
        self._raise_for_redirect(call, response)
        self._update_location(response)
        if response.status_code == requests.codes.range_not_satisfiable:
            # A 416 of Cloudflare or Quay says where to resume.
            raise status_errors.create_status_error(response, read_error(response))
        acknowledged_end = parse_range(response.headers.get("Range"))
        drain_response(response)
        if acknowledged_end is not None and start < acknowledged_end < end:
            self.offset = acknowledged_end  # the registry kept a part of the chunk
        else:
            self.is_range_stuck = self.is_range_stuck or (
                acknowledged_end is not None and 0 < acknowledged_end <= start
            )
            # The Range is missing, stays at an earlier chunk (ECR), or counts this request
            # only (zot's streams): a success status means that the whole chunk was accepted.
            self.offset = end

    def status(self) -> int:
        """Request the session's status; set and return ``offset``.

        Raises:
            SessionLost: the session is gone, or its offset is impossible.
            ConnectionLost, StatusError: all attempts failed.
        Source: distribution-spec, end-13; REGISTRIES.md 1.5.
        """
        call = Call(
            "GET",
            self.location,
            self._client.push_scopes,
            expected_statuses=frozenset({200, 202, 204}),
            options=SendOptions(credentials_url=self._credentials_url, session=True),
        )
        # A broken session answers 500 every time, so a 500 is retried only briefly.
        brief_policy = retry.limit_attempts(self._client.policy, 2)
        try:
            response = self._client.endpoint.send_with_retry(
                replace(call, expected_statuses=call.expected_statuses | {500}), self._client.policy
            )
            if response.status_code == requests.codes.internal_server_error:
                drain_response(response)
                response = self._client.endpoint.send_with_retry(call, brief_policy)
        except StatusError as error:
            if error.status in (401, 403) or error.status > 500:
                raise
            raise SessionLost(f"{self._client.repository}: the upload session is gone") from error
        self._update_location(response)
        acknowledged_end = parse_range(response.headers.get("Range"))
        drain_response(response)
        # Quay's GET counts one byte too many and sends no Location (REGISTRIES.md 2.6).
        if acknowledged_end is not None and "Location" not in response.headers:
            has_unit = response.headers.get("Range", "").startswith("bytes=")
            acknowledged_end -= acknowledged_end > self.max_sent_offset or (
                has_unit and acknowledged_end > self.offset
            )
        if acknowledged_end is None or not self.offset <= acknowledged_end <= self.max_sent_offset:
            raise SessionLost(
                f"{self._client.repository}: the registry holds {acknowledged_end} bytes of an "
                f"upload, acknowledged {self.offset}, was sent {self.max_sent_offset}"
            )
        self.offset = acknowledged_end
        return acknowledged_end

    def put(
        self, digest: Digest, body: Body | bytes = b"", *, with_content_range: bool = False
    ) -> requests.Response:
        """Commit the blob as ``digest``; the body is the last bytes, all of them, or empty.

        Returns:
            The response, its body read.

        Raises:
            DigestMismatch: the registry computed another digest; nothing was committed.
            SessionLost: the registry does not know the session.
            ConnectionLost: there was no response; a HEAD of the blob shows whether it exists.
        Source: distribution-spec, end-6.
        """
        url = add_query_parameter(self.location, "digest", str(digest))
        commit_timeout = self._client.endpoint.transport.timeouts.commit
        call = self._body_call(
            "PUT", url, body, with_content_range=with_content_range, read_timeout=commit_timeout
        )
        try:
            response = self._client.endpoint.send(call)
        except RegistryNotFound as error:
            raise SessionLost(f"{self._client.repository}: the upload session is gone") from error
        except StatusError as error:
            if error.status == 400 and "DIGEST_INVALID" in error.args[0]:
                raise DigestMismatch(
                    f"{self._client.repository}: the registry received content that does not "
                    f"match {digest}",
                    remedy="the source may be damaged or have changed during the upload, or a "
                    "proxy may alter the data",
                ) from error
            raise
        self._raise_for_redirect(call, response)
        read_limited(response, MAX_ERROR_SIZE, f"{self._client.repository}: response to a PUT")
        self._check_committed(response, digest)
        return response

    def cancel(self) -> None:
        """Delete the session, ignoring errors: many registries do not support it."""
        call = Call(
            "DELETE",
            self.location,
            self._client.push_scopes,
            expected_statuses=frozenset(range(200, 600)),
            options=SendOptions(credentials_url=self._credentials_url, session=True),
        )
        with contextlib.suppress(ConcilError):
            drain_response(self._client.endpoint.send(call))

    @property
    def _credentials_url(self) -> str:
        """The URL whose origin may receive credentials; the Location may be on another host."""
        return self._client.endpoint.base_url

    def _raise_for_redirect(self, call: Call, response: requests.Response) -> None:
        """Raise ConnectionLost if a request with a body was redirected: the body is lost.

        The retry sends it to the new location.
        """
        if response.status_code in _REDIRECT_STATUSES:
            self._update_location(response)
            drain_response(response)
            raise ConnectionLost(
                f"{call.method} {redact_url(call.url)}: the registry redirects the upload"
            )

    def _body_call(
        self,
        method: str,
        url: str,
        body: Body | bytes,
        *,
        with_content_range: bool,
        read_timeout: float | None = None,
    ) -> Call:
        """Return a call that sends the next bytes; ``read_timeout`` is in seconds."""
        headers = {"Content-Type": "application/octet-stream"}
        if with_content_range and len(body):
            headers["Content-Range"] = f"{self.offset}-{self.offset + len(body) - 1}"
        self.max_sent_offset = max(self.max_sent_offset, self.offset + len(body))
        options = SendOptions(
            read_timeout=read_timeout,
            allow_redirects=False,
            credentials_url=self._credentials_url,
            session=True,
        )
        return Call(
            method,
            url,
            self._client.push_scopes,
            headers,
            body,
            _ACCEPTED_STATUSES | _REDIRECT_STATUSES,
            options,
        )

    def _update_location(self, response: requests.Response) -> None:
        """Use the response's Location from now on, as it may hold the session's state."""
        location = response.headers.get("Location")
        if location:
            try:
                self.location = self._client.session_url(response, location)
            except ProtocolViolation:
                response.close()
                raise

    def _check_committed(self, response: requests.Response, digest: Digest) -> None:
        """Compare with Docker-Content-Digest, if it has the same algorithm."""
        try:
            stored = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
        except InvalidDigest:
            return
        if stored.algorithm == digest.algorithm and stored != digest:
            raise DigestMismatch(
                f"{self._client.repository}: sent {digest}, the registry stored {stored}",
                remedy="its storage or a proxy in front of it alters the content",
            )


_ACCEPTED_STATUSES = frozenset({200, 201, 202, 204})
_REDIRECT_STATUSES = frozenset({301, 302, 307, 308})


def _post_call(
    client: RegistryClient, query: str, scopes: Scopes, expected_statuses: frozenset[int]
) -> Call:
    path = client.path(f"blobs/uploads/{query}")
    headers = {"Content-Length": "0"}
    return Call("POST", path, scopes, headers, expected_statuses=expected_statuses)


def _parse_chunk_size(response: requests.Response, name: str) -> int | None:
    value = response.headers.get(name, "")
    size = int(value) if value.isdecimal() and len(value) < 20 else 0
    return size if size in VALID_CHUNK_SIZES else None
