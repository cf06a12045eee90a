"""Parses manifests and indexes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from concil.errors import InvalidManifest, safe_repr
from concil.oci.descriptor import Descriptor, _parse_string_map
from concil.oci.digest import Body, Digest, Verifier
from concil.oci.media_types import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
)
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass

__all__ = ["Body", "Digest", "Manifest", "Verifier"]


# Fields that determine the kind of a document. Parsers written in Go, like most tools, ignore
# case in field names.
_MANIFEST_FIELDS = {name.lower(): name for name in ("mediaType", "manifests", "layers", "config")}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: its bytes exactly as served, and the content it refers to."""

    media_type: str
    body: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes, media_type: str = "") -> Manifest:
        """Parse the bytes of a manifest.

        Args:
            media_type: from the server or the descriptor; "" if unknown.
        Raises:
            InvalidManifest: it is not a JSON object, of an unknown kind, or can be read as
                an index by one parser and as a manifest by another (CVE-2021-41190).
        """
        try:
            document = parse_json(body)
        except InvalidJSON as error:
            raise InvalidManifest(f"a manifest is {error}") from error
        if not isinstance(document, dict):
            raise InvalidManifest("a manifest is not a JSON object")
        kind = _determine_media_type(document, media_type.partition(";")[0].strip().lower())
        return cls(kind, body)

    @property
    def _document(self) -> dict[str, Any]:
        """The parsed JSON; not cached, because it may take twenty times the memory of the bytes."""
        document: dict[str, Any] = parse_json(self.body)
        return document

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests rather than blobs."""
        return self.media_type in INDEX_TYPES

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes."""
        return Digest.from_bytes(self.body)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest."""
        return Descriptor(self.media_type, self.digest, len(self.body))

    def referrer_descriptor(self, digest: Digest) -> Descriptor:
        """Return the descriptor for a list of referrers.

        Source: distribution-spec, "Listing Referrers".
        """
        return Descriptor(
            self.media_type,
            digest,
            len(self.body),
            annotations=self.annotations,
            artifact_type=self.artifact_type,
        )

    def children(self) -> tuple[Descriptor, ...]:
        """Return the manifests of an index, in order; none for a manifest."""
        return tuple(_parse_descriptors(self._document, "manifests")) if self.is_index else ()

    def blobs(self) -> tuple[Descriptor, ...]:
        """Return the config and the layers of a manifest, in order; none for an index."""
        if self.is_index:
            return ()
        document = self._document
        config = document.get("config")
        first = (Descriptor.from_json(config),) if config is not None else ()
        return first + tuple(_parse_descriptors(document, _list_field(self.media_type)))

    @property
    def subject(self) -> Descriptor | None:
        """The manifest that a signature or another referrer is attached to."""
        entry = self._document.get("subject")
        return None if entry is None else Descriptor.from_json(entry)

    @property
    def artifact_type(self) -> str:
        """The artifact type, or else the media type of the config."""
        document = self._document
        artifact_type, config = document.get("artifactType"), document.get("config")
        if isinstance(artifact_type, str) and artifact_type:
            return artifact_type
        kind = config.get("mediaType") if isinstance(config, dict) else None
        return kind if isinstance(kind, str) else ""

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations; values that are not strings are dropped."""
        return _parse_string_map(self._document.get("annotations"))

    def with_children(self, children: tuple[Descriptor, ...]) -> Manifest:
        """Return the index with only these children: new bytes and a new digest."""
        digests = {str(child.digest) for child in children}
        document = self._document
        entries = [e for e in document.get("manifests") or () if e.get("digest") in digests]
        body = json.dumps({**document, "manifests": entries}, separators=(",", ":")).encode()
        return Manifest.parse(body, self.media_type)


def _parse_descriptors(document: dict[str, Any], name: str) -> Iterator[Descriptor]:
    # Go encoders write null for an empty list; `_determine_media_type` has checked everything
    # else.
    return (Descriptor.from_json(entry) for entry in document.get(name) or ())


def _list_field(media_type: str) -> str:
    """Return the field in which documents of a media type list their content."""
    if media_type in INDEX_TYPES:
        return "manifests"
    return "blobs" if media_type == OCI_ARTIFACT else "layers"


def _determine_media_type(document: dict[str, Any], served_type: str) -> str:
    """Return the media type of a document: its class must match its content.

    A field with null counts as missing, as for all parsers. Between Docker's and OCI's media
    type for the same class no difference is made.
    """
    for name in document:
        if _MANIFEST_FIELDS.get(name.lower(), name) != name:
            raise InvalidManifest(
                f"a manifest has {safe_repr(name)}, which other programs read differently"
            )
    own_type = document.get("mediaType")
    if own_type is not None and not isinstance(own_type, str):
        raise InvalidManifest("the mediaType of a manifest is not a string")
    present_fields = {
        name for name in ("manifests", "layers", "config") if document.get(name) is not None
    }
    if "manifests" in present_fields and len(present_fields) > 1:
        raise InvalidManifest("a document is both an index and a manifest")
    is_known_type = served_type in INDEX_TYPES or served_type in MANIFEST_TYPES
    if own_type and is_known_type and _manifest_class(own_type) != _manifest_class(served_type):
        raise InvalidManifest(
            f"a manifest is served as {served_type}, but its mediaType is {safe_repr(own_type)}"
        )
    media_type = own_type or (served_type if is_known_type else _guess_media_type(document))
    if document.get("schemaVersion") == 1 and not present_fields:
        raise InvalidManifest(
            "this is a schema 1 manifest, which registries no longer support",
            remedy="push the image again with a current tool",
        )
    if _manifest_class(media_type) is None or not (
        own_type or _IDENTIFYING_FIELDS & document.keys()
    ):
        raise InvalidManifest(
            f"not a manifest or index: {safe_repr(media_type or 'a JSON object')}"
        )
    unexpected_fields = present_fields - _ALLOWED_FIELDS[_list_field(media_type)]
    if unexpected_fields:
        raise InvalidManifest(
            f"{safe_repr(media_type)} with {' and '.join(sorted(unexpected_fields))}"
        )
    if not isinstance(document.get(_list_field(media_type), []), list | None):
        raise InvalidManifest(
            f"not a manifest or index: {safe_repr(media_type)} without its list of manifests or "
            "layers"
        )
    return media_type


# Every document without mediaType has one of these; an error response has none.
_IDENTIFYING_FIELDS = {"schemaVersion", "manifests", "layers", "config"}
# The class-defining fields that a document may have, by the field that lists its content.
_ALLOWED_FIELDS = {"manifests": {"manifests"}, "layers": {"layers", "config"}, "blobs": set[str]()}


def _manifest_class(media_type: str) -> str | None:
    """Return whether a media type is an index or a manifest; None for neither."""
    if media_type in INDEX_TYPES:
        return "index"
    return "manifest" if media_type in MANIFEST_TYPES else None


def _guess_media_type(document: dict[str, Any]) -> str:
    """Return the media type of a document that has none; "" if its content fits no type."""
    if "manifests" in document:
        return OCI_INDEX
    return OCI_MANIFEST if {"layers", "config"} & document.keys() else ""
