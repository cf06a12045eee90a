"""The endpoints of the distribution specification, one method each."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace

import requests

from concil import retry
from concil.config import MIB, RetryPolicy
from concil.content import ACCEPTED_TYPES, Descriptor, Digest, Manifest, Verifier
from concil.digest import wrong_twice
from concil.errors import (
    ConnectionLost,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    ProtocolViolation,
    StatusError,
    shown,
)
from concil.redaction import SECRETS
from concil.reference import check_tag
from concil.registry import lists
from concil.registry.endpoint import Call, Endpoint
from concil.registry.scopes import Scopes, repository_scope
from concil.registry.session import TooLarge, content_length, discard, read_limited
from concil.registry.urls import redacted, resolve

# No more digits than a size has: Python refuses to read numbers of thousands of digits.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class RegistryClient:
    """One repository of a registry. Any thread may call any method.

    Small requests are repeated after transient errors; bodies of blobs are not: that
    is their reader's affair, who knows how far it came.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        *,
        policy: RetryPolicy | None = None,
        manifest_limit: int = 4 * MIB,
    ) -> None:
        """Talk to ``endpoint`` about ``repository``, whose name was checked already."""
        self.endpoint = endpoint
        self.repository = repository
        self.policy = policy or RetryPolicy()
        self._manifest_limit = manifest_limit
        self.pull: Scopes = (repository_scope(repository, "pull"),)
        self.push: Scopes = (repository_scope(repository, "pull", "push"),)

    def path(self, rest: str) -> str:
        """The path of something in the repository."""
        return f"/v2/{self.repository}/{rest}"

    # Blobs -------------------------------------------------------------------------

    def head_blob(self, digest: Digest, *, scopes: Scopes | None = None) -> int | None:
        """Return the blob's size in bytes, -1 if the registry does not tell; None: not there."""
        expect = frozenset({200, 404, 405})
        url = self.path(f"blobs/{digest}")
        call = Call("HEAD", url, scopes or self.pull, expect=expect)
        response = self.endpoint.repeat(call, self.policy)
        if response.status_code == requests.codes.method_not_allowed:
            discard(response)
            call = Call("GET", url, call.scopes, expect=frozenset({200, 404}))
            response = self.endpoint.repeat(call, self.policy)
        there = response.status_code == requests.codes.ok
        length = content_length(response)
        response.close() if call.method == "GET" else discard_head(response)
        if not there:
            return None
        return -1 if length is None else length

    def get_blob(
        self,
        digest: Digest,
        start: int = 0,
        stop: int | None = None,
        *,
        policy: RetryPolicy | None = None,
    ) -> requests.Response:
        """Ask for the bytes from ``start`` to ``stop``; the caller closes the answer.

        Args:
            policy: how often to ask; None: once. What becomes of the body is the reader's affair.
        Returns:
            The answer with its body unread: 206 with just those bytes, or 200 with all.
        Raises:
            ProtocolViolation: a 206 for another range than was asked for.
        """
        headers = {"Accept-Encoding": "identity"}  # the digest is of what is on the wire
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        call = Call(
            "GET", self.path(f"blobs/{digest}"), self.pull, headers, expect=frozenset({200, 206})
        )
        response = self.endpoint.repeat(call, policy) if policy else self.endpoint.send(call)
        if response.status_code == requests.codes.partial_content:
            told = response.headers.get("Content-Range", "")
            if first_byte(told) != start:
                response.close()
                raise ProtocolViolation(
                    f"GET {redacted(response.url)}: asked for bytes from {start}, "
                    f"got {shown(told or 'no Content-Range')}"
                )
        return response

    def delete_blob(self, digest: Digest) -> None:
        """Remove a blob from the repository.

        Raises:
            StatusError: many registries do not offer it (405).
        """
        self._delete(self.path(f"blobs/{digest}"))

    def mount_blob(self, digest: Digest, source: str) -> str | None:
        """Ask the registry to take a blob from its repository ``source``.

        Returns:
            None if it did; else the Location of the upload session it opened instead.
        Source: distribution-spec, "Mounting a blob from another repository".
        """
        query = urllib.parse.urlencode({"mount": str(digest), "from": source}, safe=":/")
        scopes = (*self.push, repository_scope(source, "pull"))
        call = Call(
            "POST",
            self.path(f"blobs/uploads/?{query}"),
            scopes,
            {"Content-Length": "0"},
            expect=frozenset({201, 202}),
        )
        response = self.endpoint.repeat(call, self.policy)
        location = response.headers.get("Location")
        discard(response)
        if response.status_code == requests.codes.created or location is None:
            return None
        return self.session_url(response, location)

    def session_url(self, response: requests.Response, location: str) -> str:
        """Return the URL of an upload session that an answer names; no message shows it.

        Raises:
            ProtocolViolation: as `resolve`.
        """
        self.hide_session(location)  # an error of `resolve` would show it
        url = resolve(response.url, location)
        self.hide_session(url)
        return url

    def hide_session(self, location: str) -> None:
        """Keep the Location of an upload session out of every message."""
        SECRETS.register_session(location, self.path("blobs/uploads/"))

    # Manifests ---------------------------------------------------------------------

    def head_manifest(self, reference: str) -> Descriptor | None:
        """Ask what a tag or digest names; None if there is nothing.

        The digest of a tag is the registry's word, a hint until the manifest was read.
        """
        call = Call(
            "HEAD",
            self.path(f"manifests/{_checked(reference)}"),
            self.pull,
            {"Accept": ", ".join(ACCEPTED_TYPES)},
            expect=frozenset({200, 404, 405}),
        )
        response = self.endpoint.repeat(call, self.policy)
        discard_head(response)
        if response.status_code == requests.codes.not_found:
            return None
        told = _told(response)
        if told is not None:
            # What was asked for counts: another digest would be another image.
            return replace(told, digest=Digest.parse(reference)) if ":" in reference else told
        try:
            return self.get_manifest(reference).descriptor
        except StatusError as error:
            if error.status == requests.codes.not_found:
                return None
            raise

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest or index by tag or digest; a digest is verified.

        Raises:
            RegistryNotFound, DigestMismatch, InvalidManifest.
        """
        body, media_type = self.read_manifest(reference, ", ".join(ACCEPTED_TYPES))
        try:
            return Manifest.parse(body, media_type)
        except InvalidManifest as error:
            what = f"{self.repository}: manifest {reference}"
            raise InvalidManifest(f"{what}: {error}", remedy=error.remedy) from error

    def read_manifest(self, reference: str, accept: str) -> tuple[bytes, str]:
        """Fetch the bytes of a manifest and what the registry calls them; a digest is verified.

        Bytes that are not what they should be are fetched once more.

        Raises:
            DigestMismatch: they were wrong twice. Of a tag the registry's word for the digest
                may be wrong, but then they are the same twice.
        """
        what = f"{self.repository}: manifest {reference}"
        body, response = self._manifest(reference, accept, what)
        wrong = _mismatch(reference, body, response, what)
        if wrong is not None:
            first, (body, response) = body, self._manifest(reference, accept, what)
            again = _mismatch(reference, body, response, what)
            if again is not None and (":" in reference or body != first):
                raise wrong_twice(wrong, again)
        return body, response.headers.get("Content-Type", "")

    def _manifest(self, reference: str, accept: str, what: str) -> tuple[bytes, requests.Response]:
        url = self.path(f"manifests/{_checked(reference)}")
        headers = {"Accept": accept} if accept else {}
        try:
            response, body = self.read(
                Call("GET", url, self.pull, headers), self._manifest_limit, what
            )
        except TooLarge as error:
            raise InvalidManifest(
                f"{what} is larger than {self._manifest_limit} bytes",
                remedy="no registry accepts such a manifest; build it again with fewer entries",
            ) from error
        return body, response

    def put_manifest(self, body: bytes, media_type: str, reference: str) -> requests.Response:
        """Write a manifest under a tag or its digest, bytes unchanged; return the answer (201)."""
        call = Call(
            "PUT",
            self.path(f"manifests/{_checked(reference)}"),
            self.push,
            {"Content-Type": media_type},
            body,
            expect=frozenset({200, 201, 202}),
        )
        return self.read(call, MIB, f"{self.repository}: answer to a manifest")[0]

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest by digest, or only a tag where the registry can.

        Raises:
            RegistryNotFound; StatusError: deletion is switched off (405, 400).
        """
        self._delete(self.path(f"manifests/{_checked(reference)}"))

    # Tags --------------------------------------------------------------------------

    def tags(self) -> Iterator[str]:
        """Yield the repository's tags, page by page as the registry orders them.

        Raises:
            ProtocolViolation: as `lists.names`.
        Source: distribution-spec, "Listing Tags".
        """

        def read(url: str) -> tuple[requests.Response, bytes]:
            return self.read(Call("GET", url, self.pull), lists.PAGE_LIMIT, what)

        what = f"{self.repository}: tags"
        path = self.path("tags/list")
        yield from lists.names(read, path, lambda: self.endpoint.base, self.repository, "tags")

    def read(self, call: Call, limit: int, what: str) -> tuple[requests.Response, bytes]:
        """Make a small call and read its answer, again if either breaks off."""

        def once() -> tuple[requests.Response, bytes]:
            response = self.endpoint.send(call)
            try:
                return response, read_limited(response, limit, what)
            except ConnectionLost:
                self.endpoint.transport.count_loss(response.url)
                raise

        return retry.call(once, self.policy, self.endpoint.cancel, lambda: what)

    def _delete(self, path: str) -> None:
        scopes = (repository_scope(self.repository, "pull", "delete"),)
        call = Call("DELETE", path, scopes, expect=frozenset({200, 202, 204}))
        discard(self.endpoint.repeat(call, self.policy))


def discard_head(response: requests.Response) -> None:
    """Give the connection of a HEAD back; its Content-Length is not of a body."""
    response.raw.read(decode_content=False)
    response.close()


def _mismatch(
    reference: str, body: bytes, response: requests.Response, what: str
) -> DigestMismatch | None:
    """What is wrong with the bytes of a manifest, by its digest or what the registry says of it."""
    told = reference if ":" in reference else response.headers.get("Docker-Content-Digest", "")
    try:
        wanted = Digest.parse(told)
    except InvalidDigest:
        return None
    verifier = Verifier(wanted.algorithm)
    verifier.update(body)
    try:
        verifier.check(wanted, None, what)
    except DigestMismatch as error:
        return error
    return None


def _told(response: requests.Response) -> Descriptor | None:
    """What the headers of a HEAD say, if they say enough."""
    length = content_length(response)
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    try:
        digest = Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except InvalidDigest:
        return None
    if response.status_code != requests.codes.ok or media_type not in ACCEPTED_TYPES:
        return None
    return None if length is None else Descriptor(media_type, digest, length)


def _checked(reference: str) -> str:
    """A tag or digest whose syntax is right: before it becomes part of a URL."""
    return str(Digest.parse(reference)) if ":" in reference else check_tag(reference)


def first_byte(content_range: str) -> int | None:
    """The first byte that a Content-Range announces; None if it is no range of bytes.

    Source: RFC 9110, 14.4.
    """
    found = _CONTENT_RANGE.fullmatch(content_range)
    return int(found[1]) if found else None
