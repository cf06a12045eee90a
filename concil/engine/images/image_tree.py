"""The tree of an image: platforms, referrers and tags of cosign, recursively."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from concil.engine.images.reader import ImageManifest, ImageReader, artifact_type_of, check_count
from concil.errors import ConcilError, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.runtime.dataclass import dataclass
from concil.transfer.image.graph import MAX_DEPTH


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A manifest, what it lists, and what refers to it."""

    digest: str  # "" if it could not be read
    media_type: str
    artifact_type: str  # "" for an index or image without one
    platform: str  # of the entry that lists it; "" if it has none
    size: int  # bytes of the manifest, and of the blobs that it lists
    relation: str  # to the node above: "image", "manifest", "referrer" or "tag"
    tag: str = ""  # of a "tag", for example sha256-....sig
    note: str = ""  # why its content is not shown
    children: tuple[TreeNode, ...] = ()

    def walk(self) -> Iterator[TreeNode]:
        """Yield this node, then those below."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A manifest that is listed, refers to another, or has a tag of its own."""

    reference: str
    relation: str
    descriptor: Descriptor | None = None
    tag: str = ""


class TreeReader:
    """Reads one tree. One thread at a time."""

    def __init__(self, reader: ImageReader, image: ImageManifest, reference: str) -> None:
        """Read the tree below ``image``, whose reference in its store is ``reference``."""
        self._reader = reader
        self._image = image
        self._reference = reference
        self._count = 0

    def read(self) -> TreeNode:
        """Return the tree.

        Raises:
            InvalidManifest: it has too many manifests.
        """
        return self._read_node(
            _Entry(self._reference, "image"), self._image.digest, self._image.manifest, ()
        )

    def _read_node(
        self, entry: _Entry, digest: Digest, manifest: Manifest, ancestors: tuple[Digest, ...]
    ) -> TreeNode:
        self._count += 1
        check_count(self._count, self._image.name)
        note = ""
        children: tuple[TreeNode, ...] = ()
        if digest in ancestors:
            note = "refers to itself: see above"
        elif len(ancestors) > MAX_DEPTH:
            note = f"nested more than {MAX_DEPTH} levels deep"
        else:
            children = tuple(self._read_children(digest, manifest, (*ancestors, digest)))
        blobs = {blob.digest: blob.size for blob in manifest.blobs()}
        platform = entry.descriptor.platform if entry.descriptor is not None else None
        is_artifact = entry.relation != "manifest" and not manifest.is_index
        return TreeNode(
            str(digest),
            manifest.media_type,
            artifact_type_of(manifest) if is_artifact else "",
            str(platform) if platform is not None else "",
            len(manifest.body) + sum(blobs.values()),
            entry.relation,
            entry.tag,
            note,
            children,
        )

    def _read_children(
        self, digest: Digest, manifest: Manifest, ancestors: tuple[Digest, ...]
    ) -> Iterator[TreeNode]:
        store = self._image.store
        listed = [
            _Entry(str(child.digest), "manifest", child)
            for child in manifest.children()
            if child.is_manifest
        ]
        referrers = [
            _Entry(str(entry.digest), "referrer", entry)
            for entry in {d.digest: d for d in store.referrers(digest, self._reference)}.values()
        ]
        tags = [_Entry(tag, "tag", tag=tag) for tag in store.digest_tags(digest, self._reference)]
        entries = [*listed, *referrers, *tags]
        check_count(self._count + len(entries), self._image.name)
        results = self._reader.run_all([partial(self._fetch, entry) for entry in entries], store)
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, Manifest):
                own_digest = entry.descriptor.digest if entry.descriptor else result.digest
                yield self._read_node(entry, own_digest, result, ancestors)
            elif entry.descriptor is not None or not isinstance(result, NotFound):
                yield _missing_node(entry, result)

    def _fetch(self, entry: _Entry) -> Manifest | ConcilError:
        try:
            return self._image.store.get_manifest(entry.reference)
        except ConcilError as error:
            return error


def _missing_node(entry: _Entry, error: ConcilError) -> TreeNode:
    """Return the node of a manifest that is listed, but cannot be read."""
    descriptor = entry.descriptor
    note = "listed, but missing" if isinstance(error, NotFound) else f"unreadable: {error.summary}"
    if descriptor is None:
        return TreeNode("", "", "", "", 0, entry.relation, entry.tag, note)
    return TreeNode(
        str(descriptor.digest),
        descriptor.media_type,
        descriptor.artifact_type,
        str(descriptor.platform or ""),
        descriptor.size,
        entry.relation,
        entry.tag,
        note,
    )
