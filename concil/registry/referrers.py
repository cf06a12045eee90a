"""Lists and updates referrers: the referrers API and the referrers tag schema."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any, TypeAlias

import requests

from concil.errors import ConcilError, InvalidManifest, ProtocolViolation, StatusError, safe_repr
from concil.http.pagination import Paginator
from concil.http.redirects import REDIRECT_STATUSES, TooManyRedirects, resolve_location
from concil.http.transport import SendOptions
from concil.http.urls import origin
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import ACCEPTED_TYPES, OCI_INDEX
from concil.oci.referrers_tag import referrers_tag, split_digest_tag
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)
Exclusive: TypeAlias = Callable[[str], contextlib.AbstractContextManager[object]]

MAX_PAGE_SIZE = 4 * 1024 * 1024  # bytes
MAX_PAGES = 1_000
MAX_REFERRERS = 10_000  # per manifest
MAX_TAGS = 20_000  # tags listed per repository to find cosign's
MAX_WRITE_ATTEMPTS = 6  # writes of a tag before concurrent writers are reported
COSIGN_SUFFIXES = ("sig", "att", "sbom")  # tried if the tags cannot be listed
# Responses of registries without the referrers API.
_UNSUPPORTED_STATUSES = frozenset({400, 404, 405, 406, 410, 501}) | REDIRECT_STATUSES
_UNKNOWN_NAME_CODES = (b"NAME_UNKNOWN", b"MANIFEST_UNKNOWN")


@dataclass(slots=True)
class _TagWriters:
    """Threads that are writing one tag at the same time, and their entries."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0


class SharedReferrers:
    """Referrer state shared by all repositories of a run. Any thread may call any method."""

    def __init__(self, exclusive: Exclusive = contextlib.nullcontext) -> None:
        """Start with nothing known; ``exclusive`` lets one process at a time write a tag."""
        self.exclusive = exclusive
        self._lock = threading.Lock()  # guards all below
        self._hosts_without_api: set[str] = set()  # hosts without the referrers API
        self._digest_tags: dict[tuple[str, str], dict[str, list[str]] | None] = {}
        self._writers_by_tag: dict[tuple[str, str, str], _TagWriters] = {}

    def clear(self) -> None:
        """Forget cached tags and hosts, because new signatures may exist."""
        with self._lock:
            self._hosts_without_api.clear()
            self._digest_tags.clear()

    def is_api_missing(self, host: str) -> bool:
        """Return whether a host is known not to support the referrers API."""
        with self._lock:
            return host in self._hosts_without_api

    def record_missing_api(self, host: str) -> None:
        """Record that a host does not support the referrers API."""
        with self._lock:
            self._hosts_without_api.add(host)

    def digest_tags(self, client: RegistryClient) -> dict[str, list[str]] | None:
        """Return a repository's tags that are named after digests, by their ``sha256-...`` stem.

        Returns:
            None if there are too many tags, or they cannot be listed.
        """
        key = (client.endpoint.host, client.repository)
        with self._lock:
            if key in self._digest_tags:
                return self._digest_tags[key]
        tags = _list_digest_tags(client)
        with self._lock:
            return self._digest_tags.setdefault(key, tags)

    @contextlib.contextmanager
    def join_writers(
        self, client: RegistryClient, tag: str, entry: dict[str, Any]
    ) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Join the threads that are writing one tag; yield a function that returns all entries.

        Each thread writes the entries of all, including those of threads that have finished: a
        thread that read the tag before would otherwise remove them. Thus threads of one process
        lose no entries and need not wait for each other.
        """
        key = (client.endpoint.host, client.repository, tag)
        with self._lock:
            writers = self._writers_by_tag.setdefault(key, _TagWriters())
            writers.entries.append(entry)
            writers.count += 1

        def all_entries() -> list[dict[str, Any]]:
            with self._lock:
                return list(writers.entries)

        try:
            yield all_entries
        finally:
            with self._lock:
                writers.count -= 1
                if not writers.count:
                    del self._writers_by_tag[key]


class Referrers:
    """Referrers of the manifests of one repository. Any thread may call any method."""

    def __init__(self, client: RegistryClient, shared: SharedReferrers) -> None:
        """Use ``client`` for requests, and ``shared`` for the state of the run."""
        self._client = client
        self._shared = shared

    def list_referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the descriptors of a manifest's referrers, without duplicates.

        Raises:
            InvalidManifest, ProtocolViolation: the list is malformed or endless.
            StatusError, ConnectionLost: the list cannot be read, which does not mean "none".
        """
        entries: list[dict[str, Any]] | None = None
        if not self._shared.is_api_missing(self._client.endpoint.host):
            entries = self._list_by_api(subject)
        if entries is None:
            entries = _index_entries(self._read_tag(subject))
        descriptors: dict[Digest, Descriptor] = {}
        for entry in entries:
            try:
                descriptor = Descriptor.from_json(entry)
            except ConcilError as error:
                raise InvalidManifest(f"{self._describe(subject)}: {error}") from error
            descriptors.setdefault(descriptor.digest, descriptor)
        if len(descriptors) > MAX_REFERRERS:
            raise InvalidManifest(f"{self._describe(subject)} are more than {MAX_REFERRERS}")
        return tuple(descriptors.values())

    def digest_tags(self, subject: Digest) -> tuple[str, ...]:
        """Return the tags that are named after a digest, like cosign's signatures.

        If the repository's tags cannot be listed, these are candidates that may not exist.
        """
        stem = referrers_tag(subject)
        tags_by_stem = self._shared.digest_tags(self._client)
        if tags_by_stem is None:
            return tuple(f"{stem}.{suffix}" for suffix in COSIGN_SUFFIXES)
        return tuple(tags_by_stem.get(stem, ()))

    def add_to_tag(self, manifest: Manifest, digest: Digest, subject: Digest) -> None:
        """Add a manifest to the referrers tag of its subject.

        Clients must do so if the registry does not send an OCI-Subject header.

        Raises:
            ProtocolViolation: other writers keep changing the tag.
            InvalidManifest: the tag is not a list of referrers.
        Source: distribution-spec, "Pushing Manifests with Subject".
        """
        tag = referrers_tag(subject)
        entry = manifest.referrer_descriptor(digest).to_json()
        name = f"tag {self._client.endpoint.host}/{self._client.repository}:{tag}"
        join_writers = self._shared.join_writers(self._client, tag, entry)
        with self._shared.exclusive(name), join_writers as all_entries:
            for _ in range(MAX_WRITE_ATTEMPTS):
                document = self._read_tag(subject, for_writing=True)
                listed_digests = {listed["digest"] for listed in _index_entries(document)}
                missing = {
                    e["digest"]: e for e in all_entries() if e["digest"] not in listed_digests
                }
                if not missing:
                    return
                entries = [*_index_entries(document), *missing.values()]
                body = json.dumps({**(document or _EMPTY_INDEX), "manifests": entries}).encode()
                # Registries have no conditional PUT, so another client may overwrite the tag.
                # Therefore read it again, and write again if entries are missing.
                self._client.put_manifest(body, OCI_INDEX, tag)
        raise ProtocolViolation(
            f"{self._describe(subject)}: other clients keep writing the tag {tag}",
            remedy="write the referrers of an image from one program at a time",
        )

    def _list_by_api(self, subject: Digest) -> list[dict[str, Any]] | None:
        """List referrers by the API; None if the registry does not support it."""
        client = self._client
        url = client.path(f"referrers/{subject}")
        entries: list[dict[str, Any]] = []
        paginator = Paginator(lambda: client.endpoint.base_url, "referrers")
        options = SendOptions(resolve_redirect=self._resolve_redirect)
        for page_number in range(MAX_PAGES):
            call = Call(
                "GET",
                url,
                client.pull_scopes,
                {"Accept": OCI_INDEX},
                expected_statuses=_UNSUPPORTED_STATUSES | {200},
                options=options,
                max_response_size=MAX_PAGE_SIZE,
                operation=self._describe(subject),
            )
            try:
                response = client.endpoint.send_with_retry(call, client.policy)
            except TooManyRedirects as error:
                self._handle_missing_list(subject, str(error), is_first_page=not page_number)
                return None
            page = self._parse_page(response, subject)
            if page is None:
                self._handle_missing_list(
                    subject,
                    str(response.status_code),
                    is_first_page=not page_number,
                    is_subject_unknown=_is_subject_unknown(response),
                )
                return None
            entries += page
            next_url = paginator.next_url(response, is_empty=not page)
            if next_url is None:
                return entries
            if len(entries) > MAX_REFERRERS:
                break
            url = next_url
        raise ProtocolViolation(f"{self._describe(subject)}: the list does not end")

    def _resolve_redirect(self, response_url: str, location: str) -> str | None:
        """Return another URL of the registry that a redirect leads to; None: do not follow it.

        GHCR redirects to a web page with a rate limit.
        """
        with contextlib.suppress(ProtocolViolation):
            target = resolve_location(response_url, location)
            is_inside = origin(target) == origin(self._client.endpoint.base_url)
            return target if is_inside and target != response_url else None
        return None

    def _parse_page(
        self, response: requests.Response, subject: Digest
    ) -> list[dict[str, Any]] | None:
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        # Some registries answer 200 with an HTML page to unknown paths.
        if response.status_code != requests.codes.ok or media_type != OCI_INDEX:
            return None
        return _index_entries(_parse_index(response.content, self._describe(subject)))

    def _handle_missing_list(
        self, subject: Digest, answer: str, *, is_first_page: bool, is_subject_unknown: bool = False
    ) -> None:
        """Record that the API is missing, unless the response is about the subject only.

        Raises:
            ProtocolViolation: the list broke off after its first page.
        """
        if not is_first_page:
            raise ProtocolViolation(f"{self._describe(subject)}: the list ended with {answer}")
        logger.debug("%s: %s; looking for a referrers tag", self._describe(subject), answer)
        if not is_subject_unknown:
            self._shared.record_missing_api(self._client.endpoint.host)

    def _read_tag(self, subject: Digest, *, for_writing: bool = False) -> dict[str, Any] | None:
        """Return the index under the referrers tag of a subject; None if there is none.

        Raises:
            InvalidManifest: the tag is not a list of referrers, and ``for_writing`` is set.
        """
        tag = referrers_tag(subject)
        try:
            body, media_type = self._client.read_manifest(tag, ", ".join(ACCEPTED_TYPES))
        except StatusError as error:
            if error.status == requests.codes.not_found:
                return None
            raise
        operation = self._describe(subject)
        # Some users tag images with their digest: then the tag is no list of referrers.
        is_subject = Digest.from_bytes(body, subject.algorithm) == subject
        if not is_subject and _is_index(body, media_type):
            return _parse_index(body, operation)
        if for_writing:
            raise InvalidManifest(
                f"{operation}: the tag {tag} is an image, not a list of referrers",
                remedy="give that image another tag: this one is reserved for referrers",
            )
        logger.debug("%s: the tag is not a list of referrers", operation)
        return None

    def _describe(self, subject: Digest) -> str:
        return f"{self._client.repository}: referrers of {subject}"


_EMPTY_INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}


def _is_subject_unknown(response: requests.Response) -> bool:
    """Return whether an error is about the subject; Quay answers 400 for an unknown one."""
    return response.status_code == requests.codes.bad_request or any(
        code in response.content for code in _UNKNOWN_NAME_CODES
    )


def _is_index(body: bytes, media_type: str) -> bool:
    try:
        return Manifest.parse(body, media_type).is_index
    except ConcilError:
        return False


def _index_entries(document: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if document is None else list(document["manifests"])


def _parse_index(content: bytes, operation: str) -> dict[str, Any]:
    """Parse an index and check that its entries are objects; other fields are kept."""
    try:
        document = parse_json(content)
    except InvalidJSON as error:
        raise InvalidManifest(f"{operation} are {error}") from error
    entries = document.get("manifests") if isinstance(document, dict) else None
    # Some registries send null instead of an empty list.
    entries = [] if entries is None and isinstance(document, dict) else entries
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("digest"), str) for e in entries
    ):
        raise InvalidManifest(f"{operation}: not a list: {safe_repr(content[:60])}")
    return {**document, "manifests": entries}


def _list_digest_tags(client: RegistryClient) -> dict[str, list[str]] | None:
    tags_by_stem: dict[str, list[str]] = {}
    try:
        for count, name in enumerate(client.list_tags()):
            if count >= MAX_TAGS:
                return None
            stem, suffix = split_digest_tag(name) or ("", "")
            if suffix:
                tags_by_stem.setdefault(stem, []).append(name)
    except (StatusError, ProtocolViolation) as error:
        logger.debug("%s: tags cannot be listed: %s", client.repository, error)
        return None
    return tags_by_stem
