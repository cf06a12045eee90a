"""What content is and what refers to what: digests, descriptors, manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from concil.digest import Body, Digest, Verifier
from concil.errors import InvalidManifest, shown
from concil.strict_json import InvalidJson, read_json

__all__ = ["Body", "Descriptor", "Digest", "Manifest", "Platform", "Verifier"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn; some have them
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
OCTETS = "application/octet-stream"  # of a blob that no manifest describes

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT})
ACCEPTED_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT)

# RFC 6838 names, long enough for every type in use: what reaches a header or a message.
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
)
_FOREIGN = re.compile(r"\.(nondistributable|foreign)\.")
_LARGEST = 2**63 - 1  # bytes; the int64 of the specification
# What decides on the kind of a document. Go, which most tools are written in, does not
# care for upper and lower case in the names of fields.
_TELLING = {name.lower(): name for name in ("mediaType", "manifests", "layers", "config")}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image of an index runs on.

    Source: image-spec, image-index, "platform".
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/architecture[/variant]``, as on the command line.

        Raises:
            InvalidManifest: fewer than two parts or more than three, or an empty one.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidManifest(
                f"not a platform: {shown(text)}", remedy="write it as linux/amd64 or linux/arm/v7"
            )
        return cls(*parts)

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def matches(self, wanted: Platform) -> bool:
        """Whether it serves the wanted one: a variant counts only if it was asked for."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return not wanted.variant or self.variant == wanted.variant


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of content elsewhere.

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
        """Read one, checking every field that is used.

        Raises:
            InvalidManifest, InvalidDigest: a field is missing or has no sense.
        """
        if not isinstance(entry, dict):
            raise InvalidManifest("a descriptor is not a JSON object")
        media_type, size = entry.get("mediaType"), entry.get("size")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise InvalidManifest("a descriptor has no usable mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
            raise InvalidManifest("a descriptor has no usable size")
        digest = Digest.parse(entry.get("digest", ""))
        return cls(
            media_type,
            digest,
            size,
            annotations=_strings(entry.get("annotations")),
            platform=_platform(entry.get("platform")),
            urls=_texts(entry.get("urls")),
            artifact_type=str(entry.get("artifactType") or ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, fields in the order of the specification."""
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
        """Whether it names a manifest or index rather than a blob."""
        return self.media_type in INDEX_TYPES or self.media_type in MANIFEST_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether the layer lives elsewhere by license and is not pushed by default."""
        return bool(_FOREIGN.search(self.media_type))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: its bytes exactly as served, and what they refer to."""

    media_type: str
    body: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes, media_type: str = "") -> Manifest:
        """Read the bytes of a manifest.

        Args:
            media_type: what the server or the descriptor called it; "" if unknown.
        Raises:
            InvalidManifest: no JSON object, of an unknown kind, or one that claims to
                be an index and a manifest at once, to one reader or another
                (CVE-2021-41190).
        """
        try:
            document = read_json(body)
        except InvalidJson as error:
            raise InvalidManifest(f"a manifest is {error}") from error
        if not isinstance(document, dict):
            raise InvalidManifest("a manifest is not a JSON object")
        kind = _kind(document, media_type.partition(";")[0].strip().lower())
        return cls(kind, body)

    @property
    def _document(self) -> dict[str, Any]:
        """What the bytes say; not kept, for it may need twenty times as much memory as they."""
        document: dict[str, Any] = read_json(self.body)
        return document

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests rather than blobs."""
        return self.media_type in INDEX_TYPES

    @property
    def digest(self) -> Digest:
        """The sha256 of the bytes."""
        return Digest.of(self.body)

    @property
    def descriptor(self) -> Descriptor:
        """A descriptor that names it."""
        return Descriptor(self.media_type, self.digest, len(self.body))

    def listed(self, digest: Digest) -> Descriptor:
        """What a list of referrers says of it.

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
        """The manifests an index lists, in its order; none for a manifest."""
        return tuple(_descriptors(self._document, "manifests")) if self.is_index else ()

    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and the layers of a manifest, in its order; none for an index."""
        if self.is_index:
            return ()
        document = self._document
        config = document.get("config")
        first = (Descriptor.from_json(config),) if config is not None else ()
        return first + tuple(_descriptors(document, _list_of(self.media_type)))

    @property
    def subject(self) -> Descriptor | None:
        """What it is attached to, for a signature or another referrer."""
        entry = self._document.get("subject")
        return None if entry is None else Descriptor.from_json(entry)

    @property
    def artifact_type(self) -> str:
        """What kind of artifact it is: its own word, else its config's media type."""
        document = self._document
        own, config = document.get("artifactType"), document.get("config")
        if isinstance(own, str) and own:
            return own
        kind = config.get("mediaType") if isinstance(config, dict) else None
        return kind if isinstance(kind, str) else ""

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations; anything that is not text is left out."""
        return _strings(self._document.get("annotations"))

    def keeping(self, children: tuple[Descriptor, ...]) -> Manifest:
        """The same index with only these of its children: new bytes, a new digest."""
        kept = {str(child.digest) for child in children}
        document = self._document
        entries = [e for e in document.get("manifests") or () if e.get("digest") in kept]
        body = json.dumps({**document, "manifests": entries}, separators=(",", ":")).encode()
        return Manifest.parse(body, self.media_type)


def _descriptors(document: dict[str, Any], name: str) -> Iterator[Descriptor]:
    # An encoder of Go writes null for a list without entries; `_kind` has seen to the rest.
    return (Descriptor.from_json(entry) for entry in document.get(name) or ())


def _list_of(kind: str) -> str:
    """The field in which a document of a media type lists what it consists of."""
    if kind in INDEX_TYPES:
        return "manifests"
    return "blobs" if kind == OCI_ARTIFACT else "layers"


def _kind(document: dict[str, Any], claimed: str) -> str:
    """The media type of a document: the class that it is told to be of must fit what it holds.

    A field that is null is as good as missing, to every reader. Whether a manifest or index
    is Docker's or OCI's, and so by which of both names others call it, is of no importance.
    """
    for name in document:
        if _TELLING.get(name.lower(), name) != name:
            raise InvalidManifest(f"a manifest has {shown(name)}, which others read differently")
    own = document.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise InvalidManifest("the mediaType of a manifest is not text")
    filled = {name for name in ("manifests", "layers", "config") if document.get(name) is not None}
    if "manifests" in filled and len(filled) > 1:
        raise InvalidManifest("a document claims to be an index and a manifest at once")
    known = claimed in INDEX_TYPES or claimed in MANIFEST_TYPES
    if own and known and _class_of(own) != _class_of(claimed):
        raise InvalidManifest(f"a manifest served as {claimed} calls itself {shown(own)}")
    kind = own or (claimed if known else _guessed(document))
    if document.get("schemaVersion") == 1 and not filled:
        raise InvalidManifest(
            "this is a schema 1 manifest, which registries have given up",
            remedy="push the image again with a current tool",
        )
    if _class_of(kind) is None or not (own or _MARKS & document.keys()):
        raise InvalidManifest(f"not a manifest or index: {shown(kind or 'a JSON object')}")
    strangers = filled - _FIELDS[_list_of(kind)]
    if strangers:
        raise InvalidManifest(f"{shown(kind)} with {' and '.join(sorted(strangers))}")
    if not isinstance(document.get(_list_of(kind), []), list | None):
        raise InvalidManifest(f"not a manifest or index: {shown(kind)} without its list")
    return kind


# One of these is in every document that does not say what it is: an error has none.
_MARKS = {"schemaVersion", "manifests", "layers", "config"}
# What a document that lists its parts in a field may have of those that tell its class.
_FIELDS = {"manifests": {"manifests"}, "layers": {"layers", "config"}, "blobs": set[str]()}


def _class_of(kind: str) -> str | None:
    """Whether a media type is an index or a manifest; None: neither."""
    if kind in INDEX_TYPES:
        return "index"
    return "manifest" if kind in MANIFEST_TYPES else None


def _guessed(document: dict[str, Any]) -> str:
    """The media type of a document that nobody calls by one; "" if it holds nothing of any."""
    if "manifests" in document:
        return OCI_INDEX
    return OCI_MANIFEST if {"layers", "config"} & document.keys() else ""


def _platform(entry: object) -> Platform | None:
    if not isinstance(entry, dict):
        return None
    return Platform(*(str(entry.get(name) or "") for name in ("os", "architecture", "variant")))


def _texts(entry: object) -> tuple[str, ...]:
    if entry is None:
        return ()
    if not isinstance(entry, list) or not all(isinstance(text, str) for text in entry):
        raise InvalidManifest("the urls of a descriptor are not a list of texts")
    return tuple(entry)


def _strings(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict):
        return {}
    return {k: v for k, v in entry.items() if isinstance(v, str)}
