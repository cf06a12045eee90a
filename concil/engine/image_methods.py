"""ImageMethods: the methods of Engine that list, describe, compare, tag and delete images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from concil.engine.components import EngineComponents
from concil.engine.images import tags as image_tags
from concil.engine.images.description import describe_image
from concil.engine.images.image_diff import ImageDiff, diff_images
from concil.engine.images.image_tree import TreeNode, TreeReader
from concil.engine.images.reader import ImageManifest, ImageReader
from concil.engine.images.tags import TagDetails
from concil.engine.images.usage import DiskUsage, measure_usage
from concil.engine.store_factory import reference_in_store
from concil.errors import NotFound, UsageError
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.manifest import Digest
from concil.oci.platform import Platform
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.transfer.mirror.report import MirrorItem


class ImageMethods:
    """Reads and changes images without transferring blobs; a base class of `Engine`."""

    _components: EngineComponents

    @property
    def _reader(self) -> ImageReader:
        return ImageReader(self._components.image_resolver, self._components.pool)

    def list_tags(self, address: str) -> Iterator[str]:
        """Yield the tags of a repository, or the names in a layout or archive, page by page.

        Raises:
            NotFound: there is no such repository, layout or archive.
        """
        yield from self._components.image_resolver.list_tags(
            parse_address(address), self._components.denied_hosts
        )

    tags = list_tags  # the earlier name, which programs use

    def describe_tags(self, address: str) -> Iterator[TagDetails]:
        """Yield digest, size, time and platforms of each tag, some tags at a time.

        A tag that cannot be read has an ``error``. Raises as `list_tags`.
        """
        yield from image_tags.describe_tags(self._reader, address, self.list_tags(address))

    def find_creation_times(
        self, address: str, tags: Sequence[str], platforms: Sequence[str] = ()
    ) -> list[float | None]:
        """Return when images were created: by their configs, or the annotations of artifacts.

        A digest is read once; the journal remembers its date.

        Args:
            address: of the repository, layout or archive.
            tags: the order of the result.
            platforms: those of an index that count; of several the first one that has a date.
        Returns:
            Seconds since the epoch; None: the image has no usable date, or cannot be read.
        Raises:
            StatusError, ConnectionLost: a request failed.
        """
        # Few plans need it.
        from concil.engine.images.creation_dates import CreationDates  # noqa: PLC0415

        copier = self._components.copier
        dates = CreationDates(self._reader, copier.history, copier.manifest_cache)
        return dates.find(address, tags, [Platform.parse(text) for text in platforms])

    def list_repositories(self, registry: str) -> Iterator[str]:
        """Yield the repositories of ``[http://]host[:port]``, if the registry lists them."""
        return self._components.image_resolver.list_repositories(
            arguments.check_str("registry", registry), self._components.denied_hosts
        )

    repositories = list_repositories  # the earlier name, which programs use

    def tag(
        self, address: str, tags: str | Iterable[str], *, cancel: SupportsIsSet | None = None
    ) -> Digest:
        """Let more tags name an image in its own repository or layout; no blob is moved.

        Args:
            tags: tags, or addresses in the same repository.
            cancel: when set, cancels this call only.
        Returns:
            The digest of the image.
        Raises:
            NotFound: there is no such image.
            UsageError: a tag is invalid or in another repository, or the store is an archive.
        """
        parsed = parse_address(arguments.check_str("address", address))
        texts = [tags] if isinstance(tags, str) else list(tags)
        names = [image_tags.new_tag(parsed, arguments.check_str("tags", text)) for text in texts]
        if isinstance(parsed, LayoutAddress) and parsed.is_archive:
            raise UsageError(
                f"{parsed} is an archive, which cannot be changed", remedy="copy it to oci:DIR"
            )
        with self._components.archive_call(cancel) as writes:
            store = self._components.image_resolver.open_existing_destination(parsed)
            if store is None:
                raise NotFound(f"{parsed} does not exist", remedy="check the path")
            return image_tags.add_tags(store, writes, parsed, names)

    def delete(
        self, address: str, *, tag_only: bool = False, cancel: SupportsIsSet | None = None
    ) -> Digest:
        """Delete an image by tag or digest. A registry deletes its other tags, too.

        Args:
            tag_only: delete the tag only, as layouts always do; many registries refuse that.
            cancel: when set, cancels this call only.
        Returns:
            The digest that the tag named.
        Raises:
            NotFound: there is no such image.
            StatusError: the registry does not support it.
        """
        with call_scope(cancel):
            parsed, store = self._reader.open(address)
            return image_tags.delete_image(store, parsed, tag_only=tag_only)

    def inspect(
        self, address: str, *, platform: str | None = None, cancel: SupportsIsSet | None = None
    ) -> dict[str, Any]:
        """Describe an image: the platforms of an index, or the layers and main config fields.

        Args:
            platform: ``os/architecture[/variant]`` or ``local``; None: the index, if it is one.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: there is no such image, or none for the platform.
        """
        with call_scope(cancel):
            return describe_image(self._reader, self._read(address, platform))

    def read_config(
        self, address: str, *, platform: str | None = None, cancel: SupportsIsSet | None = None
    ) -> dict[str, Any]:
        """Return the config of an image.

        Args:
            platform: as for `inspect`; None: the only one, or that of this machine.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: there is no such image, or none for the platform.
            UsageError: it is an artifact, which has no such config.
        """
        with call_scope(cancel):
            image = self._read(address, platform)
            if image.manifest.is_index:
                image = self._reader.select(image, Platform.local())
            config = self._reader.read_config(image)
        if config is None:
            raise UsageError(
                f"{image.name} is no image, but an artifact of type "
                f"{image.manifest.artifact_type or 'unknown'}",
                remedy="see its manifest",
            )
        return config

    def tree(self, address: str, *, cancel: SupportsIsSet | None = None) -> TreeNode:
        """Return the tree of an image: platforms, referrers and tags of cosign, recursively.

        A manifest that refers to itself in a circle appears once more, with a note.

        Raises:
            NotFound: there is no such image.
            InvalidManifest: it has too many manifests.
        """
        with call_scope(cancel):
            image = self._reader.read(address)
            return TreeReader(self._reader, image, reference_in_store(image.address)).read()

    def diff(
        self,
        first: str,
        second: str,
        *,
        platform: str | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> ImageDiff:
        """Compare two images: manifests, platforms, configs, layers, and bytes to move.

        Args:
            platform: compare only the images of one platform; None: both as a whole.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: there is no such image, or none for the platform.
        """
        with call_scope(cancel):
            reader = self._reader
            images = reader.read(first), reader.read(second)
            selected = None if platform is None else Platform.parse(platform)
            return diff_images(reader, *images, selected)

    def disk_usage(
        self, images: Iterable[str | MirrorItem], *, cancel: SupportsIsSet | None = None
    ) -> DiskUsage:
        """Return how many bytes images have, alone and in common with each other.

        Images that cannot be read have an ``error``.

        Args:
            images: addresses, or items of a mirror, whose sources and platforms count.
            cancel: when set, cancels this call only.
        """
        items = (i if isinstance(i, MirrorItem) else MirrorItem(i, i) for i in images)
        with call_scope(cancel):
            return measure_usage(self._reader, items)

    def _read(self, address: str, platform: str | None) -> ImageManifest:
        return self._reader.read(address, None if platform is None else Platform.parse(platform))
