"""RegistryClient: one method per endpoint of the distribution specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import requests

from concil import retry
from concil.auth.scope import Scopes, repository_scope
from concil.config import MIB, RetryPolicy
from concil.errors import (
    DigestMismatch,
    InvalidManifest,
    ProtocolViolation,
    StatusError,
    safe_repr,
)
from concil.http.content_range import parse_content_range_start
from concil.http.redirects import resolve_location
from concil.http.transport import ResponseTooLarge, content_length, drain_response
from concil.http.urls import describe_request, redact_url
from concil.http.web_page import WEB_PAGE_REMEDY, describe_web_page, is_web_page
from concil.oci.descriptor import Descriptor
from concil.oci.digest import repeated_mismatch
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import ACCEPTED_TYPES
from concil.oci.reference import check_tag
from concil.registry import name_lists
from concil.registry.endpoint import Call, Endpoint
from concil.registry.list_cache import ListCache, PageReader
from concil.registry.manifest_headers import find_mismatch, parse_descriptor
from concil.runtime.redaction import SECRETS


class RegistryClient:
    """Client for one repository of a registry. Any thread may call any method.

    Small requests are retried after transient errors. Blob bodies are not: their reader knows
    the offset and resumes them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        *,
        policy: RetryPolicy | None = None,
        max_manifest_size: int = 4 * MIB,
        list_cache: ListCache | None = None,
    ) -> None:
        """Use ``repository``, a valid name, of the registry at ``endpoint``.

        Args:
            list_cache: of lists of tags; None: they are always read.
        """
        self.endpoint = endpoint
        self.repository = repository
        self.policy = policy or RetryPolicy()
        self._max_manifest_size = max_manifest_size
        self._list_cache = list_cache
        self.pull_scopes: Scopes = (repository_scope(repository, "pull"),)
        self.push_scopes: Scopes = (repository_scope(repository, "pull", "push"),)

    def path(self, rest: str) -> str:
        """Return the URL path of ``rest`` in the repository."""
        return f"/v2/{self.repository}/{rest}"

    # Blobs -------------------------------------------------------------------------

    def head_blob(self, digest: Digest, *, scopes: Scopes | None = None) -> int | None:
        """Return the blob's size in bytes, -1 if it is unknown, None if the blob is missing."""
        expected_statuses = frozenset({200, 404, 405})
        url = self.path(f"blobs/{digest}")
        call = Call("HEAD", url, scopes or self.pull_scopes, expected_statuses=expected_statuses)
        response = self.endpoint.send_with_retry(call, self.policy)
        if response.status_code == requests.codes.method_not_allowed:
            drain_response(response)
            call = Call("GET", url, call.scopes, expected_statuses=frozenset({200, 404}))
            response = self.endpoint.send_with_retry(call, self.policy)
        exists = response.status_code == requests.codes.ok
        length = content_length(response)
        response.close() if call.method == "GET" else drain_head_response(response)
        if not exists:
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
        """Request the bytes from ``start`` to ``stop`` (exclusive); the caller closes the response.

        Args:
            policy: for retries of the request; None for one attempt. Reading the body is not
                retried.
        Returns:
            The response with its body unread: 206 with exactly these bytes, or 200 with all.
        Raises:
            ProtocolViolation: a 206 starts at another byte than requested.
        """
        headers = {"Accept-Encoding": "identity"}  # the digest is of the unencoded bytes
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        call = Call(
            "GET",
            self.path(f"blobs/{digest}"),
            self.pull_scopes,
            headers,
            expected_statuses=frozenset({200, 206}),
        )
        response = (
            self.endpoint.send_with_retry(call, policy) if policy else self.endpoint.send(call)
        )
        if response.status_code == requests.codes.partial_content:
            content_range = response.headers.get("Content-Range", "")
            if parse_content_range_start(content_range) != start:
                response.close()
                raise ProtocolViolation(
                    f"GET {redact_url(response.url)}: requested bytes from {start}, received "
                    f"{safe_repr(content_range or 'no Content-Range')}"
                )
        return response

    def delete_blob(self, digest: Digest) -> None:
        """Delete a blob from the repository.

        Raises:
            StatusError: many registries do not support it (405).
        """
        self._send_delete(self.path(f"blobs/{digest}"))

    def session_url(self, response: requests.Response, location: str) -> str:
        """Resolve the Location of an upload session and register it as secret.

        Raises:
            ProtocolViolation: as for `resolve_location`.
        """
        self.hide_session(location)  # an error of `resolve_location` would show it
        url = resolve_location(response.url, location)
        self.hide_session(url)
        return url

    def hide_session(self, location: str) -> None:
        """Register an upload session's Location as secret, so that messages redact it."""
        SECRETS.register_session(location, self.path("blobs/uploads/"))

    # Manifests ---------------------------------------------------------------------

    def head_manifest(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest; None if it is missing.

        The digest of a tag is unverified until the manifest has been read.
        """
        call = Call(
            "HEAD",
            self.path(f"manifests/{_check_reference(reference)}"),
            self.pull_scopes,
            {"Accept": ", ".join(ACCEPTED_TYPES)},
            expected_statuses=frozenset({200, 404, 405}),
        )
        response = self.endpoint.send_with_retry(call, self.policy)
        drain_head_response(response)
        if response.status_code == requests.codes.not_found:
            return None
        descriptor = parse_descriptor(response)
        if descriptor is not None:
            # Keep the requested digest: another one would name another image.
            return (
                replace(descriptor, digest=Digest.parse(reference))
                if ":" in reference
                else descriptor
            )
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
            operation = f"{self.repository}: manifest {reference}"
            if is_web_page(media_type, body):
                url = self.endpoint.absolute_url(self.path(f"manifests/{reference}"))
                raise InvalidManifest(
                    f"{describe_request('GET', url)}: {describe_web_page(body)}",
                    remedy=WEB_PAGE_REMEDY,
                ) from error
            raise InvalidManifest(f"{operation}: {error}", remedy=error.remedy) from error

    def read_manifest(self, reference: str, accept: str) -> tuple[bytes, str]:
        """Fetch a manifest's bytes and Content-Type; a digest is verified.

        After a mismatch the manifest is fetched once more.

        Raises:
            DigestMismatch: the second fetch mismatched too. For a tag, two identical bodies are
                accepted: then the registry's Docker-Content-Digest is wrong.
        """
        operation = f"{self.repository}: manifest {reference}"
        call = Call(
            "GET",
            self.path(f"manifests/{_check_reference(reference)}"),
            self.pull_scopes,
            {"Accept": accept} if accept else {},
            max_response_size=self._max_manifest_size,
            operation=operation,
        )
        first: tuple[bytes, DigestMismatch] | None = None
        while True:
            try:
                response = self.endpoint.send_with_retry(call, self.policy)
            except ResponseTooLarge as error:
                raise InvalidManifest(
                    f"{operation} is larger than {self._max_manifest_size} bytes",
                    remedy="registries refuse such a manifest; build it again with fewer entries",
                ) from error
            body = response.content
            mismatch = find_mismatch(reference, body, response, operation)
            if mismatch is None or (first and ":" not in reference and body == first[0]):
                return body, response.headers.get("Content-Type", "")
            if first is not None:
                raise repeated_mismatch(first[1], mismatch)
            first = body, mismatch

    def put_manifest(self, body: bytes, media_type: str, reference: str) -> requests.Response:
        """Put a manifest's exact bytes under a tag or its digest; return the response."""
        call = Call(
            "PUT",
            self.path(f"manifests/{_check_reference(reference)}"),
            self.push_scopes,
            {"Content-Type": media_type},
            body,
            expected_statuses=frozenset({200, 201, 202}),
            max_response_size=MIB,
            operation=f"{self.repository}: response to a manifest PUT",
        )
        return self.endpoint.send_with_retry(call, self.policy)

    def delete_manifest(self, reference: str) -> None:
        """Delete a manifest by digest, or a tag alone if the registry supports it.

        Raises:
            RegistryNotFound; StatusError: deletion is disabled (405, 400).
        """
        self._send_delete(self.path(f"manifests/{_check_reference(reference)}"))

    # Tags --------------------------------------------------------------------------

    def list_tags(self) -> Iterator[str]:
        """Yield the repository's tags in the registry's order, reading page by page.

        Raises:
            ProtocolViolation: as for `name_lists.iter_names`.
        Source: distribution-spec, "Listing Tags".
        """
        reader = self._page_reader(self.policy, self._list_cache)
        yield from name_lists.iter_names(reader, self.path("tags/list"), self.repository, "tags")

    def list_first_tags(self) -> list[str] | None:
        """Return the repository's tags by one request, which is not repeated.

        Returns:
            None if there are further pages.
        Raises:
            RegistryNotFound, StatusError, ProtocolViolation: they cannot be listed.
        """
        reader = self._page_reader(retry.limit_attempts(self.policy, 1))
        page = reader.read(f"{self.path('tags/list')}?n={name_lists.PAGE_LENGTH}")
        return name_lists.parse_only_page(page, self.repository, "tags")

    def _page_reader(self, policy: RetryPolicy, cache: ListCache | None = None) -> PageReader:
        operation = f"{self.repository}: tags"
        return PageReader(self.endpoint, policy, self.pull_scopes, operation, cache)

    def _send_delete(self, path: str) -> None:
        scopes = (repository_scope(self.repository, "pull", "delete"),)
        call = Call("DELETE", path, scopes, expected_statuses=frozenset({200, 202, 204}))
        drain_response(self.endpoint.send_with_retry(call, self.policy))


def drain_head_response(response: requests.Response) -> None:
    """Release the connection of a HEAD, whose Content-Length announces no body."""
    response.raw.read(decode_content=False)
    response.close()


def _check_reference(reference: str) -> str:
    """Return a tag or digest after checking its syntax, as it becomes part of a URL."""
    return str(Digest.parse(reference)) if ":" in reference else check_tag(reference)
