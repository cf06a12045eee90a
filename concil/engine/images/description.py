"""Describes an image: platforms, layers and config."""

from __future__ import annotations

import json
from typing import Any

from concil.engine.images.reader import ImageManifest, ImageReader
from concil.oci.descriptor import Descriptor
from concil.transfer.blob.image_config import CONFIG_TYPES


def describe_image(reader: ImageReader, image: ImageManifest) -> dict[str, Any]:
    """Return the platforms of an index, or the layers and main config fields of an image."""
    manifest = image.manifest
    document: dict[str, Any] = {
        "name": image.name,
        "digest": str(image.digest),
        "mediaType": manifest.media_type,
        "size": len(manifest.body),
    }
    if manifest.annotations:
        document["annotations"] = dict(manifest.annotations)
    if manifest.is_index:
        document["manifests"] = [_describe_descriptor(child) for child in manifest.children()]
        return document
    blobs = manifest.blobs()
    has_config = json.loads(manifest.body).get("config") is not None
    if not has_config or blobs[0].media_type not in CONFIG_TYPES:
        document["artifactType"] = manifest.artifact_type
    document["totalSize"] = sum({blob.digest: blob.size for blob in blobs}.values())
    document["layers"] = [
        _describe_descriptor(layer) for layer in (blobs[1:] if has_config else blobs)
    ]
    config = reader.read_config(image)
    return document if config is None else document | _describe_config(config)


def _describe_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    platform = {"platform": str(descriptor.platform)} if descriptor.platform else {}
    annotations = {"annotations": dict(descriptor.annotations)} if descriptor.annotations else {}
    return {
        **platform,
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        **annotations,
    }


def _describe_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an image's config that users look for.

    Source: image-spec, config.
    """
    container = config.get("config")
    labels = container.get("Labels") if isinstance(container, dict) else None
    names = ("os", "architecture", "variant", "created")
    parts = {name: config[name] for name in names if config.get(name)}
    return {**parts, "labels": labels if isinstance(labels, dict) else {}}
