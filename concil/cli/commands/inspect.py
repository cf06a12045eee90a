"""`concil inspect`: prints a JSON summary of an image."""

from __future__ import annotations

import json
from typing import Any

from concil.cli.commands import images
from concil.cli.context import CommandContext
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.oci.address import Address, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.transfer.blob.image_config import CONFIG_TYPES, read_config


def run(command: CommandContext) -> int:
    """Print a summary of an image's manifest and config."""
    address = parse_address(command.arguments.address)
    platform = images.single_platform(command)
    with open_store_factory(command) as stores:
        store = stores.open_source(address, settings.build_endpoint_options(command.arguments))
        digest, manifest = images.fetch_manifest(command, store, address, platform)
        document = _describe_image(address, digest, manifest)
        if not manifest.is_index:
            context = images.create_context(command)
            config = read_config(store, manifest, context, str(address))
            if config is not None:
                document |= _describe_config(config)
    results.print_json(document)
    return DONE


def _describe_image(address: Address, digest: Digest, manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": str(address),
        "digest": str(digest),
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
    return document


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
