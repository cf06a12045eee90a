"""What refers to a manifest: a registry's own list of it, or the tag that clients keep instead."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

from concil.content import ACCEPTED_TYPES, OCI_INDEX, Descriptor, Digest, Manifest
from concil.digest_tags import digest_tag, digest_tag_parts
from concil.errors import (
    ConcilError,
    InvalidManifest,
    ProtocolViolation,
    StatusError,
    shown,
)
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call
from concil.registry.links import Links
from concil.registry.session import Options, read_error
from concil.registry.urls import origin, resolve
from concil.strict_json import InvalidJson, read_json

logger = logging.getLogger(__name__)

PAGE_LIMIT = 4 * 1024 * 1024  # bytes
MOST_PAGES = 1_000
MOST_REFERRERS = 10_000  # of one manifest
MOST_NAMES = 20_000  # tags that are listed to find those of cosign among them
ROUNDS = 6  # times that a tag is written before others are told to keep quiet
SUFFIXES = ("sig", "att", "sbom")  # of cosign's tags, where tags cannot be listed
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Answers of registries that do not list referrers. Quay has 400 for a subject that it does
# not know; GHCR sends its users to a web page.
_NO_LIST = frozenset({400, 404, 405, 406, 410, 501}) | _REDIRECTS
_UNKNOWN_NAME = (b"NAME_UNKNOWN", b"MANIFEST_UNKNOWN")


@dataclass(slots=True)
class _Together:
    """Threads that write to one tag, from the first that begins to the last that ends."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    writers: int = 0


class SharedReferrers:
    """What the repositories of a run learn about referrers. Any thread may call any method."""

    def __init__(self) -> None:
        """Know nothing."""
        self._lock = threading.Lock()  # guards all below
        self._without: set[str] = set()  # hosts of registries that do not list referrers
        self._names: dict[tuple[str, str], dict[str, list[str]] | None] = {}
        self._writing: dict[tuple[str, str, str], _Together] = {}

    def forget(self) -> None:
        """Ask anew: a signature may have come since."""
        with self._lock:
            self._without.clear()
            self._names.clear()

    def has_no_list(self, host: str) -> bool:
        """Whether a registry has said that it does not list referrers."""
        with self._lock:
            return host in self._without

    def remember_no_list(self, host: str) -> None:
        """Do not ask a registry again."""
        with self._lock:
            self._without.add(host)

    def digest_tags(self, client: RegistryClient) -> dict[str, list[str]] | None:
        """The tags of a repository that are named by digests, by what they begin with.

        Returns:
            None where they are too many to look for, or cannot be listed.
        """
        key = (client.endpoint.host, client.repository)
        with self._lock:
            if key in self._names:
                return self._names[key]
        found = _digest_tags(client)
        with self._lock:
            return self._names.setdefault(key, found)

    @contextlib.contextmanager
    def writing(
        self, client: RegistryClient, tag: str, entry: dict[str, Any]
    ) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Join those who write to one tag at this moment; the block is told what all want in it.

        Each of them writes that, also for those who are done already: whoever has read the
        tag before they wrote would throw it out again. So threads of one process lose
        nothing to one another, and need not wait for one another either.
        """
        key = (client.endpoint.host, client.repository, tag)
        with self._lock:
            together = self._writing.setdefault(key, _Together())
            together.entries.append(entry)
            together.writers += 1

        def wanted() -> list[dict[str, Any]]:
            with self._lock:
                return list(together.entries)

        try:
            yield wanted
        finally:
            with self._lock:
                together.writers -= 1
                if not together.writers:
                    del self._writing[key]


class Referrers:
    """What refers to the manifests of one repository. Any thread may call any method."""

    def __init__(self, client: RegistryClient, shared: SharedReferrers) -> None:
        """Ask through ``client``."""
        self._client = client
        self._shared = shared

    def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to a manifest, each once.

        Raises:
            InvalidManifest, ProtocolViolation: the list makes no sense or has no end.
            StatusError, ConnectionLost: it cannot be had; that is not "none".
        """
        entries: list[dict[str, Any]] | None = None
        if not self._shared.has_no_list(self._client.endpoint.host):
            entries = self._listed(subject)
        if entries is None:
            entries = _entries(self._tagged(subject))
        found: dict[Digest, Descriptor] = {}
        for entry in entries:
            try:
                descriptor = Descriptor.from_json(entry)
            except ConcilError as error:
                raise InvalidManifest(f"{self._what(subject)}: {error}") from error
            found.setdefault(descriptor.digest, descriptor)
        if len(found) > MOST_REFERRERS:
            raise InvalidManifest(f"{self._what(subject)} are more than {MOST_REFERRERS}")
        return tuple(found.values())

    def digest_tags(self, subject: Digest) -> tuple[str, ...]:
        """Tags that are named by a digest, as cosign names those of signatures.

        They exist, or may do so where the tags of the repository were not listed.
        """
        stem = digest_tag(subject)
        known = self._shared.digest_tags(self._client)
        if known is None:
            return tuple(f"{stem}.{suffix}" for suffix in SUFFIXES)
        return tuple(known.get(stem, ()))

    def add(self, manifest: Manifest, digest: Digest, subject: Digest) -> None:
        """Write a manifest into the tag that lists what refers to its subject.

        The client's task where a registry does not say that it does so itself.

        Raises:
            ProtocolViolation: others write it all the time.
            InvalidManifest: the tag is something else.
        Source: distribution-spec, "Pushing Manifests with Subject".
        """
        tag = digest_tag(subject)
        entry = manifest.listed(digest).to_json()
        with self._shared.writing(self._client, tag, entry) as all_wanted:
            for _ in range(ROUNDS):
                document = self._tagged(subject, writing=True)
                there = {each["digest"] for each in _entries(document)}
                missing = {e["digest"]: e for e in all_wanted() if e["digest"] not in there}
                if not missing:
                    return
                entries = [*_entries(document), *missing.values()]
                body = json.dumps({**(document or _EMPTY), "manifests": entries}).encode()
                # A registry cannot be told to write only if nothing has changed: another
                # client may have written since. So it is read again, and written again.
                self._client.put_manifest(body, OCI_INDEX, tag)
        raise ProtocolViolation(
            f"{self._what(subject)}: others write the tag {tag} all the time",
            remedy="let only one program at a time write referrers of one image",
        )

    def _listed(self, subject: Digest) -> list[dict[str, Any]] | None:
        """What the registry itself lists; None if it does not."""
        client = self._client
        url = client.path(f"referrers/{subject}")
        found: list[dict[str, Any]] = []
        links = Links(lambda: client.endpoint.base, "referrers")
        pages = 0
        redirects: set[str] = set()
        for _ in range(MOST_PAGES):
            # A redirect is looked at first: GHCR's leads to a web page, and to its limits.
            options = Options(follow=False)
            headers = {"Accept": OCI_INDEX}
            expect = frozenset({200}) | _NO_LIST
            call = Call("GET", url, client.pull, headers, expect=expect, options=options)
            response, content = client.read(call, PAGE_LIMIT, self._what(subject))
            following = self._redirected(response)
            if following is None or following in redirects:
                page = self._page(response, content, subject)
                if page is None:
                    self._end_of_list(response, subject, first=not pages)
                    return None
                found += page
                pages += 1
                following = links.following(response, empty=not page)
            else:
                redirects.add(following)
            if following is None:
                return found
            if len(found) > MOST_REFERRERS:
                break
            url = following
        raise ProtocolViolation(f"{self._what(subject)}: the list has no end")

    def _redirected(self, response: requests.Response) -> str | None:
        """Where the same registry has the list; None: not elsewhere, or not in the registry."""
        location = response.headers.get("Location")
        if response.status_code not in _REDIRECTS or location is None:
            return None
        with contextlib.suppress(ProtocolViolation):
            target = resolve(response.url, location)
            return target if origin(target) == origin(self._client.endpoint.base) else None
        return None

    def _page(
        self, response: requests.Response, content: bytes, subject: Digest
    ) -> list[dict[str, Any]] | None:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        # Some answer 200 and a page for people to whatever they do not know.
        if response.status_code != requests.codes.ok or kind != OCI_INDEX:
            return None
        return _entries(_document(content, self._what(subject)))

    def _end_of_list(self, response: requests.Response, subject: Digest, *, first: bool) -> None:
        """There is no list, or no more of it.

        Raises:
            ProtocolViolation: half of it has come.
        """
        status = response.status_code
        if not first:
            raise ProtocolViolation(f"{self._what(subject)}: the list breaks off with {status}")
        logger.debug("%s: %d, so there may be a tag", self._what(subject), status)
        text = read_error(response)
        if status != requests.codes.bad_request and not any(c in text for c in _UNKNOWN_NAME):
            self._shared.remember_no_list(self._client.endpoint.host)

    def _tagged(self, subject: Digest, *, writing: bool = False) -> dict[str, Any] | None:
        """The index under the tag of a subject; None if there is none.

        Raises:
            InvalidManifest: the tag is something else, and is to be written.
        """
        tag = digest_tag(subject)
        try:
            body, media_type = self._client.read_manifest(tag, ", ".join(ACCEPTED_TYPES))
        except StatusError as error:
            if error.status == requests.codes.not_found:
                return None
            raise
        what = self._what(subject)
        # People name images by their digests, too: then it is no list of referrers.
        itself = Digest.of(body, subject.algorithm) == subject
        if not itself and _is_index(body, media_type):
            return _document(body, what)
        if writing:
            raise InvalidManifest(
                f"{what}: the tag {tag} is an image, and no list of referrers",
                remedy="give that image another tag: this one belongs to the referrers",
            )
        logger.debug("%s: the tag is no list", what)
        return None

    def _what(self, subject: Digest) -> str:
        return f"{self._client.repository}: referrers of {subject}"


_EMPTY: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}


def _is_index(body: bytes, media_type: str) -> bool:
    try:
        return Manifest.parse(body, media_type).is_index
    except ConcilError:
        return False


def _entries(document: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if document is None else list(document["manifests"])


def _document(content: bytes, what: str) -> dict[str, Any]:
    """An index whose entries are objects; their other fields are kept as they are."""
    try:
        document = read_json(content)
    except InvalidJson as error:
        raise InvalidManifest(f"{what} are {error}") from error
    entries = document.get("manifests") if isinstance(document, dict) else None
    # A registry without any sends null in place of an empty list.
    entries = [] if entries is None and isinstance(document, dict) else entries
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("digest"), str) for e in entries
    ):
        raise InvalidManifest(f"{what}: not a list: {shown(content[:60])}")
    return {**document, "manifests": entries}


def _digest_tags(client: RegistryClient) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    try:
        for count, name in enumerate(client.tags()):
            if count >= MOST_NAMES:
                return None
            stem, suffix = digest_tag_parts(name) or ("", "")
            if suffix:
                found.setdefault(stem, []).append(name)
    except (StatusError, ProtocolViolation) as error:
        logger.debug("%s: tags cannot be listed: %s", client.repository, error)
        return None
    return found
