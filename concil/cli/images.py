"""`concil tags`, `digest`, `manifest` and `delete`: what one request or two can tell or do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concil.cli import options, results
from concil.cli.command import Command
from concil.cli.copy import pinned
from concil.cli.failures import DONE
from concil.content import Descriptor, Digest, Manifest, Platform
from concil.errors import NotFound, UsageError
from concil.reference import Address, LayoutAddress, parse_address
from concil.stores import Store, reference_of
from concil.transfer.graph import chosen

if TYPE_CHECKING:
    from concil.cli.options import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs to the command line."""
    tags = subparsers.add_parser(
        "tags",
        help="list the tags of a repository",
        description="Print the tags of a repository, or the names in a layout, one a line.",
    )
    tags.add_argument("address", metavar="REPO", help="host/repository, oci:DIR or an archive")
    tags.set_defaults(work=run_tags)
    digest = subparsers.add_parser(
        "digest", help="print an image's digest", description="Print the digest of an image."
    )
    manifest = subparsers.add_parser(
        "manifest",
        help="print an image's manifest",
        description="Print the manifest or index of an image, byte for byte.",
    )
    for parser, work in ((digest, run_digest), (manifest, run_manifest)):
        parser.add_argument("address", metavar="REF", help=options.REF_HELP)
        options.add_platform(parser, "the image of an index for this platform")
        parser.set_defaults(work=work)
    delete = subparsers.add_parser(
        "delete",
        help="delete an image",
        description="Delete an image by tag or digest. A registry deletes the manifest, and "
        "with it all tags that name it; in a layout a name goes alone.",
    )
    delete.add_argument("address", metavar="REF", help="host/repository:tag or oci:DIR:NAME")
    delete.set_defaults(work=run_delete)
    for parser in (tags, digest, manifest, delete):
        options.add_registry(parser)


def run_tags(command: Command) -> int:
    """List them as they come."""
    address = parse_address(command.arguments.address)
    named = address.name if isinstance(address, LayoutAddress) else address.tag
    if named or address.digest:
        raise UsageError(f"{address} is one image", remedy="leave tag and digest out")
    with command.stores() as stores:
        for tag in stores.source(address, options.access_of(command.arguments)).tags():
            results.put_line(tag)
    return DONE


def run_digest(command: Command) -> int:
    """Ask for the digest; only an index of which a part is wanted is fetched."""
    address = parse_address(command.arguments.address)
    platform = only_platform(command)
    with command.stores() as stores:
        store = stores.source(address, options.access_of(command.arguments))
        if platform is None:
            digest = found(store, address).digest
        else:
            digest, _ = read(store, address, platform)
    results.put_line(str(digest))
    return DONE


def run_manifest(command: Command) -> int:
    """Fetch it and print it."""
    address = parse_address(command.arguments.address)
    platform = only_platform(command)
    with command.stores() as stores:
        store = stores.source(address, options.access_of(command.arguments))
        _, manifest = read(store, address, platform)
    results.put_text(manifest.body)
    return DONE


def run_delete(command: Command) -> int:
    """Delete it, and print what is gone."""
    address = parse_address(command.arguments.address)
    named = address.name if isinstance(address, LayoutAddress) else address.tag
    if not named and not address.digest:
        raise UsageError(f"{address} names no image", remedy="give a tag or a digest")
    with command.stores() as stores:
        store = stores.source(address, options.access_of(command.arguments))
        digest = found(store, address).digest
        store.delete_manifest(reference_of(address))
    results.put_line(pinned(address, digest))
    return DONE


def only_platform(command: Command) -> Platform | None:
    """The one platform that was asked for, None if none was.

    Raises:
        UsageError: several were.
    """
    platforms = options.platforms_of(command.arguments)
    if len(platforms) > 1:
        raise UsageError("several platforms were asked for", remedy="name one of them")
    return Platform.parse(platforms[0]) if platforms else None


def found(store: Store, address: Address) -> Descriptor:
    """Ask what an address names.

    Raises:
        NotFound: nothing.
        UsageError: one of several images of a layout.
    """
    there = store.find_manifest(reference_of(address))
    if there is not None:
        return there
    if isinstance(address, LayoutAddress):
        return store.get_manifest(reference_of(address)).descriptor  # tells why it is None
    raise NotFound(
        f"{address} is not there",
        remedy=f"check the name and tag with: concil tags {address.repository_address}",
    )


def read(store: Store, address: Address, platform: Platform | None) -> tuple[Digest, Manifest]:
    """Fetch what an address names, or the image for a platform out of it.

    Raises:
        NotFound: there is no such image, or none for the platform.
    """
    manifest = store.get_manifest(reference_of(address))
    pick = chosen(manifest, [platform] if platform else [], str(address))
    if isinstance(pick, Descriptor):
        return pick.digest, store.get_manifest(str(pick.digest))
    return address.digest or manifest.digest, manifest
