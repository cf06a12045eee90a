"""Reads the config of an image, and the platform that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from concil.config import MIB
from concil.errors import InvalidManifest
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Manifest, Verifier
from concil.oci.media_types import DOCKER_CONFIG, OCI_CONFIG
from concil.oci.platform import Platform
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.store.protocols import Source
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.context import TransferContext

MAX_CONFIG_SIZE = 4 * MIB  # bytes
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})


def read_small_blob(store: Source, blob: Descriptor, context: TransferContext) -> bytes:
    """Read a blob of at most `MAX_CONFIG_SIZE` bytes into memory and verify it.

    Raises:
        InvalidManifest: it is larger.
        NotFound, DigestMismatch, ConnectionLost: as for any blob.
    """
    name = f"{store.name}@{blob.digest}"
    if blob.size > MAX_CONFIG_SIZE:
        raise InvalidManifest(
            f"{name} is larger than {MAX_CONFIG_SIZE} bytes, the limit for a config"
        )
    reader = ResumingReader(lambda start: store.open_blob(blob, start), blob.size, context, name)
    content = bytearray(blob.size)
    try:
        while count := reader.readinto(memoryview(content)[reader.position :]):
            del count
    finally:
        reader.close()
    verifier = Verifier(blob.digest.algorithm)
    verifier.update(content)
    verifier.verify(blob.digest, blob.size, name)
    return bytes(content)


def read_config(
    store: Source, manifest: Manifest, context: TransferContext, name: str
) -> dict[str, Any] | None:
    """Read the config of an image; None: it is an index, or an artifact without such a config.

    Args:
        name: of the image, for messages.
    Raises:
        InvalidManifest: the config is not a JSON object, or too large.
    """
    config = next(iter(manifest.blobs()), None)
    if config is None or config.media_type not in CONFIG_TYPES:
        return None
    try:
        document = parse_json(read_small_blob(store, config, context))
    except InvalidJSON as error:
        raise InvalidManifest(f"{name}: config is {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest(f"{name}: config is not a JSON object")
    return document


def platform_of(config: Mapping[str, Any] | None) -> Platform | None:
    """Return the platform that a config names; None: it is not of an image, or names none.

    The config of a cosign signature has empty fields.

    Source: image-spec, config, "Properties".
    """
    values = [str((config or {}).get(name) or "") for name in ("os", "architecture", "variant")]
    return Platform(*values) if values[0] and values[1] else None


def is_other_platform(platform: Platform | None, requested: Sequence[Platform]) -> bool:
    """Return whether an image of one platform is for none of the requested ones.

    Many configs lack the variant, so it counts only if the config has one.
    """
    if platform is None or not requested:
        return False
    if not platform.variant:
        requested = [Platform(wanted.os, wanted.architecture) for wanted in requested]
    return not any(platform.matches(wanted) for wanted in requested)
