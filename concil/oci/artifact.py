"""Manifests of artifacts: files in a registry, as oras writes them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from concil.errors import UsageError, safe_repr
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.oci.media_types import (
    OCI_EMPTY,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    UNKNOWN_ARTIFACT,
    is_media_type,
)

__all__ = [
    "CONTENT_DIGEST",
    "CREATED",
    "EMPTY_BLOB",
    "EMPTY_CONFIG",
    "TITLE",
    "UNKNOWN_CONFIG",
    "UNPACK",
    "build_manifest",
    "check_annotations",
    "check_media_type",
    "layer_descriptor",
]

# Annotations. Source: image-spec, annotations; oras, "ORAS Artifact File Annotations".
TITLE = "org.opencontainers.image.title"  # the path of the file, relative to where it is pulled
CREATED = "org.opencontainers.image.created"  # RFC 3339
CONTENT_DIGEST = "io.deis.oras.content.digest"  # of the tar archive of a directory
UNPACK = "io.deis.oras.content.unpack"  # "true": the blob is the tar+gzip of a directory

# The config of an artifact that has none. Source: image-spec, "Guidance for an Empty Descriptor".
EMPTY_BLOB = b"{}"
EMPTY_CONFIG = Descriptor(OCI_EMPTY, Digest.from_bytes(EMPTY_BLOB), len(EMPTY_BLOB))
UNKNOWN_CONFIG = "application/vnd.unknown.config.v1+json"  # as oras calls it
# What Go's encoding/json escapes: equal files give equal digests, whichever tool pushes them.
_GO_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_EMPTY_DATA = {"data": "e30="}  # the empty blob in base64
_EMPTY_ENTRY = EMPTY_CONFIG.to_json() | _EMPTY_DATA


def build_manifest(
    layers: Sequence[Descriptor],
    *,
    artifact_type: str = "",
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
    config: Descriptor = EMPTY_CONFIG,
) -> Manifest:
    """Return the manifest of an artifact, with the fields that oras writes, in their order.

    Args:
        artifact_type: "": that of an unknown artifact; with a config its media type says it.
        annotations: of the manifest; the time of creation is added unless it is given.
        subject: the manifest to which the artifact is attached.
        config: its blob, with its annotations.
    Raises:
        UsageError: the artifact type or an annotation is invalid.
    Source: image-spec, manifest, "Guidelines for Artifact Usage".
    """
    check_media_type("artifact type", artifact_type or UNKNOWN_ARTIFACT)
    has_config = config.media_type != OCI_EMPTY
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    if artifact_type or not has_config:
        document["artifactType"] = artifact_type or UNKNOWN_ARTIFACT
    document["config"] = config.to_json() | ({} if has_config else _EMPTY_DATA)
    document["layers"] = [layer.to_json() for layer in layers]
    if not layers and "artifactType" in document:
        # A manifest without layers is refused by some registries.
        document["layers"] = [_EMPTY_ENTRY]
    if subject is not None:
        document["subject"] = subject.to_json()
    created = {CREATED: dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    document["annotations"] = dict(sorted((created | check_annotations(annotations or {})).items()))
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Manifest.parse(text.translate(_GO_ESCAPES).encode(), OCI_MANIFEST)


def layer_descriptor(
    blob: Descriptor,
    title: str,
    media_type: str = "",
    *,
    content_digest: Digest | None = None,
) -> Descriptor:
    """Return the descriptor of a file or directory in the manifest of an artifact.

    Args:
        media_type: "": that which oras uses.
        content_digest: of the tar archive if the blob is a directory as tar+gzip.
    """
    annotations = {TITLE: title}
    if content_digest is not None:
        annotations = {CONTENT_DIGEST: str(content_digest), UNPACK: "true", TITLE: title}
    default_type = OCI_LAYER if content_digest is None else OCI_LAYER_GZIP
    return Descriptor(media_type or default_type, blob.digest, blob.size, annotations)


def check_media_type(what: str, text: str) -> str:
    """Return a media type.

    Args:
        what: for the message, as in "artifact type".
    Raises:
        UsageError: it is not one.
    Source: RFC 6838, 4.2.
    """
    if not is_media_type(text):
        raise UsageError(
            f"not a valid {what}: {safe_repr(text)}", remedy="write it as in application/json"
        )
    return text


def check_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return annotations.

    Raises:
        UsageError: a key is empty, a value is not text, or the time of creation is not a time.
    """
    checked = dict(annotations)
    for key, value in checked.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise UsageError(
                f"not an annotation: {safe_repr(key)}", remedy="give a key and a value, both text"
            )
        _check_encodable((key, value))
    if CREATED in checked:
        try:
            created = dt.datetime.fromisoformat(checked[CREATED])
        except ValueError:
            created = None
        if created is None or created.tzinfo is None:
            raise UsageError(
                f"{CREATED} is not a time: {safe_repr(checked[CREATED])}",
                remedy="write it as in 2026-01-31T12:00:00Z",
            )
    return checked


def _check_encodable(texts: Iterable[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"not valid text: {safe_repr(text)}", remedy="write annotations in UTF-8"
            ) from error
