"""`concil tags`, `tag`, `digest`, `manifest` and `delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concil.cli.context import CommandContext
from concil.cli.open_stores import open_store_factory
from concil.cli.options import settings
from concil.cli.output import results
from concil.cli.output.addresses import address_by_digest, address_with_name
from concil.cli.output.errors import DONE
from concil.engine.store_factory import SourceStore, reference_in_store
from concil.errors import NotFound, UsageError
from concil.oci.address import Address, LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform

if TYPE_CHECKING:
    from concil.transfer.context import TransferContext


def run_tags(command: CommandContext) -> int:
    """Print the tags of a repository as they are listed."""
    address = parse_address(command.arguments.address)
    name = address.name if isinstance(address, LayoutAddress) else address.tag
    if name or address.digest:
        raise UsageError(f"{address} is a single image", remedy="omit the tag and digest")
    with open_store_factory(command) as stores:
        for tag in stores.open_source(
            address, settings.build_endpoint_options(command.arguments)
        ).tags():
            results.print_line(tag)
    return DONE


def run_digest(command: CommandContext) -> int:
    """Print the digest of an image; only an index is fetched, and only to select a platform."""
    address = parse_address(command.arguments.address)
    platform = single_platform(command)
    with open_store_factory(command) as stores:
        store = stores.open_source(address, settings.build_endpoint_options(command.arguments))
        if platform is None:
            digest = find_image(store, address).digest
        else:
            digest, _ = fetch_manifest(command, store, address, platform)
    results.print_line(str(digest))
    return DONE


def run_manifest(command: CommandContext) -> int:
    """Fetch a manifest and print it, or push one."""
    words = command.arguments.words
    if len(words) == 3 and words[0] == "push":
        from concil.cli.commands.manifest_push import run_push  # noqa: PLC0415  # needs the engine

        return run_push(command, words[1], words[2])
    if len(words) != 1:
        raise UsageError(
            "manifest needs one image", remedy="write REF, or to push a manifest: push FILE REF"
        )
    address = parse_address(words[0])
    platform = single_platform(command)
    with open_store_factory(command) as stores:
        store = stores.open_source(address, settings.build_endpoint_options(command.arguments))
        _, manifest = fetch_manifest(command, store, address, platform)
    results.print_text(manifest.body)
    return DONE


def run_tag(command: CommandContext) -> int:
    """Add tags to an image, and print the address of each."""
    from concil.cli.open_engine import open_engine  # noqa: PLC0415  # imports the engine
    from concil.engine.images.tags import new_tag  # noqa: PLC0415  # as above
    from concil.transfer.journal import Journal  # noqa: PLC0415  # as above

    arguments = command.arguments
    address = parse_address(arguments.address)
    names = [new_tag(address, text) for text in arguments.new_tags]
    with open_engine(command, journal=Journal(None)) as engine:
        digest = engine.tag(arguments.address, arguments.new_tags)
    for name in names:
        results.print_line(f"{address_with_name(address, name)}@{digest}")
    return DONE


def run_delete(command: CommandContext) -> int:
    """Delete an image, and print what was deleted."""
    from concil.engine.images.tags import delete_image  # noqa: PLC0415  # not for a digest

    arguments = command.arguments
    address = parse_address(arguments.address)
    with open_store_factory(command) as stores:
        store = stores.open_source(address, settings.build_endpoint_options(arguments))
        digest = delete_image(store, address, tag_only=arguments.tag_only)
    results.print_line(address_by_digest(address, digest))
    return DONE


def single_platform(command: CommandContext) -> Platform | None:
    """Return the requested platform; None if there is none.

    Raises:
        UsageError: several platforms were requested.
    """
    platforms = settings.parse_platforms(command.arguments)
    if len(platforms) > 1:
        raise UsageError("several platforms are given", remedy="choose one of them")
    return Platform.parse(platforms[0]) if platforms else None


def find_image(store: SourceStore, address: Address) -> Descriptor:
    """Return the descriptor of the image at an address.

    Raises:
        NotFound: there is no such image.
        UsageError: the address does not say which of a layout's images is meant.
    """
    descriptor = store.find_manifest(reference_in_store(address))
    if descriptor is not None:
        return descriptor
    if isinstance(address, LayoutAddress):
        return store.get_manifest(reference_in_store(address)).descriptor  # raises the reason
    raise NotFound(
        f"{address} does not exist",
        remedy=f"check the name and tag with: concil tags {address.repository_address}",
    )


def create_context(command: CommandContext) -> TransferContext:
    """Return the context in which a command reads blobs."""
    from concil.transfer.context import TransferContext  # noqa: PLC0415  # not for a digest

    return TransferContext(settings.build_config(command.arguments), command.shutdown.event)


def fetch_manifest(
    command: CommandContext, store: SourceStore, address: Address, platform: Platform | None
) -> tuple[Digest, Manifest]:
    """Fetch the manifest at an address; for a platform, that of the platform's image.

    Raises:
        NotFound: there is no such image, or none for the platform.
    """
    from concil.transfer.blob.image_config import (  # noqa: PLC0415  # not for a digest
        is_other_platform,
        platform_of,
        read_config,
    )
    from concil.transfer.image.graph import (  # noqa: PLC0415  # as above
        missing_platform_error,
        select_platforms,
    )

    manifest = store.get_manifest(reference_in_store(address))
    selected = select_platforms(manifest, [platform] if platform else [], str(address))
    if isinstance(selected, Descriptor):
        return selected.digest, store.get_manifest(str(selected.digest))
    if platform is not None:
        config = read_config(store, manifest, create_context(command), str(address))
        existing = platform_of(config)
        if is_other_platform(existing, [platform]):
            raise missing_platform_error(str(address), [platform], [str(existing)])
    return address.digest or manifest.digest, manifest
