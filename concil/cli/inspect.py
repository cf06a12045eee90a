"""`concil inspect`: what an image is, as JSON for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from concil.cli import images, options, results
from concil.cli.command import Command
from concil.cli.failures import DONE
from concil.config import MIB
from concil.content import DOCKER_CONFIG, OCI_CONFIG, Descriptor, Digest, Manifest, Verifier
from concil.errors import InvalidManifest
from concil.reference import Address, parse_address
from concil.stores import Store
from concil.strict_json import InvalidJson, read_json
from concil.transfer.push import ResumingReader
from concil.transfer.run import Run

if TYPE_CHECKING:
    from concil.cli.options import Subparsers

_CONFIG_LIMIT = 4 * MIB  # bytes of an image's config
_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "inspect",
        help="describe an image",
        description="Print what an image is as JSON: an index by its platforms, an image by "
        "its layers and the main parts of its config.",
    )
    parser.add_argument("address", metavar="REF", help=options.REF_HELP)
    options.add_platform(parser, "the image of an index for this platform")
    options.add_registry(parser)
    parser.set_defaults(work=run)


def run(command: Command) -> int:
    """Fetch manifest and config, and describe them."""
    address = parse_address(command.arguments.address)
    platform = images.only_platform(command)
    with command.stores() as stores:
        store = stores.source(address, options.access_of(command.arguments))
        digest, manifest = images.read(store, address, platform)
        document = _described(address, digest, manifest)
        if not manifest.is_index:
            config = next(iter(manifest.blobs()), None)
            if config is not None and config.media_type in _CONFIGS:
                run = Run(options.config_of(command.arguments), command.stop.event)
                document |= _config(_small(store, config, run), f"{address}: config")
    results.put_json(document)
    return DONE


def _described(address: Address, digest: Digest, manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": str(address),
        "digest": str(digest),
        "mediaType": manifest.media_type,
        "size": len(manifest.body),
    }
    if manifest.annotations:
        document["annotations"] = dict(manifest.annotations)
    if manifest.is_index:
        document["manifests"] = [_entry(child) for child in manifest.children()]
        return document
    blobs = manifest.blobs()
    has_config = json.loads(manifest.body).get("config") is not None
    if not has_config or blobs[0].media_type not in _CONFIGS:
        document["artifactType"] = manifest.artifact_type
    document["totalSize"] = sum({blob.digest: blob.size for blob in blobs}.values())
    document["layers"] = [_entry(layer) for layer in (blobs[1:] if has_config else blobs)]
    return document


def _entry(descriptor: Descriptor) -> dict[str, Any]:
    platform = {"platform": str(descriptor.platform)} if descriptor.platform else {}
    notes = {"annotations": dict(descriptor.annotations)} if descriptor.annotations else {}
    return {
        **platform,
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        **notes,
    }


def _config(content: bytes, name: str) -> dict[str, Any]:
    """The parts of an image's config that people look for.

    Source: image-spec, config.
    """
    try:
        config = read_json(content)
    except InvalidJson as error:
        raise InvalidManifest(f"{name} is {error}") from error
    if not isinstance(config, dict):
        raise InvalidManifest(f"{name} is not a JSON object")
    runs = config.get("config")
    labels = runs.get("Labels") if isinstance(runs, dict) else None
    names = ("os", "architecture", "variant", "created")
    parts = {name: config[name] for name in names if config.get(name)}
    return {**parts, "labels": labels if isinstance(labels, dict) else {}}


def _small(store: Store, blob: Descriptor, run: Run) -> bytes:
    """Read a small blob whole and verify it."""
    name = f"{store.name}@{blob.digest}"
    if blob.size > _CONFIG_LIMIT:
        raise InvalidManifest(f"{name} is larger than {_CONFIG_LIMIT} bytes, for a config")
    reader = ResumingReader(lambda start: store.open_blob(blob, start), blob.size, run, name)
    content = bytearray(blob.size)
    try:
        while count := reader.readinto(memoryview(content)[reader.position :]):
            del count
    finally:
        reader.close()
    verifier = Verifier(blob.digest.algorithm)
    verifier.update(content)
    verifier.check(blob.digest, blob.size, name)
    return bytes(content)
