"""Lists tags with details, adds tags to images, and deletes images or tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from concil.engine.images.reader import ImageManifest, ImageReader, blobs_of
from concil.engine.store_factory import SourceStore, reference_in_store
from concil.errors import ConcilError, NotFound, StatusError, UsageError, safe_repr
from concil.oci.address import Address, LayoutAddress, is_layout_name, parse_address
from concil.oci.manifest import Digest
from concil.oci.reference import check_tag
from concil.runtime.dataclass import dataclass
from concil.store.archive.pool import ArchiveWrites
from concil.store.layout.store import LayoutStore
from concil.store.registry.repository import RepositoryStore
from concil.transfer.blob.image_config import platform_of

_PAGE_LENGTH = 50  # tags that are described together
_UNSUPPORTED_STATUSES = frozenset({400, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class TagDetails:
    """What a tag names. Fields are empty if it could not be read."""

    tag: str
    digest: str = ""
    media_type: str = ""
    size: int = 0  # bytes of all different blobs and manifests
    created: str = ""  # RFC 3339, as in the config
    platforms: tuple[str, ...] = ()
    error: ConcilError | None = None  # why it could not be read


def describe_tags(reader: ImageReader, address: str, tags: Iterator[str]) -> Iterator[TagDetails]:
    """Yield the details of tags, some at a time, in the order of the list."""
    parsed, store = reader.open(address)
    while page := list(islice(tags, _PAGE_LENGTH)):
        images = reader.run_all([partial(_read_tag, parsed, store, tag) for tag in page], store)
        for tag, image in zip(page, images, strict=True):
            if isinstance(image, ConcilError):
                yield TagDetails(tag, error=image)
            else:
                yield _describe_tag(reader, tag, image)


def _read_tag(address: Address, store: SourceStore, tag: str) -> ImageManifest | ConcilError:
    try:
        manifest = store.get_manifest(tag)
    except ConcilError as error:
        return error
    return ImageManifest(_with_name(address, tag), store, manifest.digest, manifest)


def _describe_tag(reader: ImageReader, tag: str, image: ImageManifest) -> TagDetails:
    digest, media_type = str(image.digest), image.manifest.media_type
    try:
        node = reader.read_graph(image)
        platforms = [str(c.platform) for c in image.manifest.children() if _is_runnable(c.platform)]
        leaves = [below for below in node.walk() if not below.manifest.is_index]
        created = ""
        if leaves:
            first = ImageManifest(image.address, image.store, leaves[0].digest, leaves[0].manifest)
            config = reader.read_config(first) or {}
            created = str(config.get("created") or "")
            own_platform = platform_of(config)
            if not platforms and own_platform is not None:
                platforms = [str(own_platform)]
        size = sum(blobs_of(node).values())
        return TagDetails(tag, digest, media_type, size, created, tuple(platforms))
    except ConcilError as error:
        return TagDetails(tag, digest, media_type, error=error)


def _is_runnable(platform: object) -> bool:
    """Whether it is a platform; BuildKit lists attestations as unknown/unknown."""
    return platform is not None and not str(platform).startswith("unknown")


def add_tags(
    store: RepositoryStore | LayoutStore,
    writes: ArchiveWrites,
    address: Address,
    tags: Sequence[str],
) -> Digest:
    """Let more tags name an image; no blob is moved. Returns the digest of the image.

    Raises:
        NotFound: there is no such image.
    """
    manifest = store.get_manifest(reference_in_store(address))
    target = writes.deferring(store)
    for tag in tags:
        target.put_manifest(manifest, tag)
    writes.commit(strict=True)
    return address.digest or manifest.digest


def new_tag(address: Address, text: str) -> str:
    """Return the tag of ``text``: a tag alone, or an address in the same repository.

    Raises:
        UsageError: it is in another repository, or no tag.
    """
    arguments_name = isinstance(address, LayoutAddress)
    if arguments_name and not text.startswith(f"{address.scheme}:"):
        if not is_layout_name(text):
            raise UsageError(f"not a name in a layout: {safe_repr(text)}")
        return text
    if not arguments_name and "/" not in text and ":" not in text:
        return check_tag(text)
    other = parse_address(text)
    name = other.name if isinstance(other, LayoutAddress) else other.tag
    if other.digest is not None or not name:
        raise UsageError(f"{other} has no tag", remedy="write REPOSITORY:TAG, or a tag alone")
    if _with_name(other, None) != _with_name(address, None):
        raise UsageError(
            f"{other} is in another repository than {address}",
            remedy=f"copy it: concil copy {address} {other}",
        )
    return name


def _with_name(address: Address, name: str | None) -> Address:
    """Return the address of another image in the same store, without user and password."""
    if isinstance(address, LayoutAddress):
        return LayoutAddress(address.path, name, None, address.scheme)
    plain = replace(address, username=None, password=None)
    return plain.with_reference(tag=name)


def delete_image(store: SourceStore, address: Address, *, tag_only: bool) -> Digest:
    """Delete an image by tag or digest, or only its tag. Returns the digest of the image.

    Raises:
        NotFound: there is no such image.
        UsageError: ``tag_only`` without a tag.
        StatusError: the registry does not support it.
    """
    name = address.name if isinstance(address, LayoutAddress) else address.tag
    if not name and not address.digest:
        raise UsageError(f"{address} does not name an image", remedy="give a tag or a digest")
    if tag_only and (not name or address.digest):
        raise UsageError(f"{address} is not a tag alone", remedy="give a tag without a digest")
    descriptor = store.find_manifest(reference_in_store(address))
    if descriptor is None:
        raise NotFound(
            f"{address} does not exist",
            remedy=f"check the name and tag with: concil ls {_with_name(address, None)}",
        )
    if not tag_only or not isinstance(store, RepositoryStore):
        store.delete_manifest(reference_in_store(address))
        return descriptor.digest
    try:
        store.delete_tag(str(name))
    except StatusError as error:
        if error.status in _UNSUPPORTED_STATUSES:
            error.remedy = (
                "this registry cannot delete a tag alone; without tag_only=True the image is "
                "deleted with all of its tags"
            )
        raise
    if store.find_manifest(str(descriptor.digest)) is None:
        raise NotFound(
            f"{address}: the registry has deleted the image with its tag",
            remedy=f"copy it again if other tags named it: {descriptor.digest}",
        )
    return descriptor.digest
