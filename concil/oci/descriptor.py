"""Descriptors: media type, digest and size of content."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from concil.errors import InvalidManifest
from concil.oci.digest import Digest
from concil.oci.media_types import (
    _FOREIGN_LAYER,
    _MEDIA_TYPE,
    INDEX_TYPES,
    MANIFEST_TYPES,
)
from concil.oci.platform import Platform, _parse_platform
from concil.runtime.dataclass import dataclass

__all__ = ["Descriptor"]

_MAX_SIZE = 2**63 - 1  # bytes; the int64 of the specification


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content by media type, digest and size.

    Source: image-spec, descriptor.
    """

    media_type: str
    digest: Digest
    size: int  # bytes
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def from_json(cls, entry: object) -> Descriptor:
        """Parse a descriptor and check every field that is used.

        Raises:
            InvalidManifest, InvalidDigest: a field is missing or invalid.
        """
        if not isinstance(entry, dict):
            raise InvalidManifest("a descriptor is not a JSON object")
        media_type, size = entry.get("mediaType"), entry.get("size")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise InvalidManifest("a descriptor has no valid mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
            raise InvalidManifest("a descriptor has no valid size")
        digest = Digest.parse(entry.get("digest", ""))
        return cls(
            sys.intern(media_type),
            digest,
            size,
            annotations=_parse_string_map(entry.get("annotations")),
            platform=_parse_platform(entry.get("platform")),
            urls=_parse_urls(entry.get("urls")),
            artifact_type=str(entry.get("artifactType") or ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with the fields in the order of the specification."""
        entry: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.urls:
            entry["urls"] = list(self.urls)
        if self.annotations:
            entry["annotations"] = dict(self.annotations)
        if self.platform is not None:
            entry["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                entry["platform"]["variant"] = self.platform.variant
        if self.artifact_type:
            entry["artifactType"] = self.artifact_type
        return entry

    @property
    def is_manifest(self) -> bool:
        """Whether it refers to a manifest or an index rather than a blob."""
        return self.media_type in INDEX_TYPES or self.media_type in MANIFEST_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether it is a foreign layer, which by license is not pushed by default."""
        return bool(_FOREIGN_LAYER.search(self.media_type))


def _parse_urls(entry: object) -> tuple[str, ...]:
    if entry is None:
        return ()
    if not isinstance(entry, list) or not all(isinstance(text, str) for text in entry):
        raise InvalidManifest("the urls of a descriptor are not a list of strings")
    return tuple(entry)


def _parse_string_map(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict):
        return {}
    return {k: v for k, v in entry.items() if isinstance(v, str)}
