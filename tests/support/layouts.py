"""Layouts made and looked at without concil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from concil.errors import ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST

REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
OLD = Descriptor(OCI_MANIFEST, Digest.from_bytes(b"old"), 3)
NEW = Descriptor(OCI_MANIFEST, Digest.from_bytes(b"new"), 3)


def has_message(error: ConcilError, *parts: str) -> bool:
    """Return whether an error is one line with these parts and has a remedy."""
    text = str(error)
    return "\n" not in text and bool(error.remedy) and all(part in text for part in parts)


def read_index(place: Path) -> dict[str, Any]:
    """Return index.json as it is."""
    document: dict[str, Any] = json.loads((place / "index.json").read_bytes())
    return document


def write_index(place: Path, *entries: dict[str, Any], **fields: object) -> None:
    """Replace index.json."""
    document = {"schemaVersion": 2, "manifests": entries, **fields}
    (place / "index.json").write_text(json.dumps(document))


def entry(content: bytes, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """Return an entry of an index."""
    return Descriptor(OCI_MANIFEST, Digest.from_bytes(content), 3, annotations or {}).to_json()
