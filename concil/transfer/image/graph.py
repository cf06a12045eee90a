"""Reads the graph of an image: its manifests, platforms and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from concil.config import MIB
from concil.errors import InvalidManifest, NotFound, SizeMismatch, safe_repr
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import INDEX_TYPES
from concil.oci.platform import COMMON_PLATFORMS, Platform, find_similar_platform
from concil.runtime.dataclass import dataclass

MAX_DEPTH = 8  # indexes in indexes
MAX_MANIFESTS = 10_000  # manifests of one image
MAX_BLOBS = 6_000  # of one image, enough for 5000 layers: each queued blob needs 8 KiB
MAX_MANIFEST_BYTES = 8 * MIB  # of the manifests below one index, which are in memory together

# Annotation by which BuildKit's attestations name the manifest they are about.
_ATTESTED_DIGEST = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest of an image, and the nodes it lists."""

    manifest: Manifest
    digest: Digest  # under which it is put; with the algorithm that its index uses
    children: tuple[Node, ...] = ()
    is_present: bool = False  # the destination has it; its content may be missing

    def walk(self) -> Iterator[Node]:
        """Yield the nodes below, then this one: the order in which they are put."""
        for child in self.children:
            yield from child.walk()
        yield self

    def listed_blobs(self) -> Iterator[Descriptor]:
        """Yield the blobs that this manifest lists, including foreign layers."""
        yield from self.manifest.blobs()
        # BuildKit's cache exports list layers directly in an index.
        yield from (child for child in self.manifest.children() if not child.is_manifest)


@dataclass(frozen=True, slots=True)
class PresentManifest:
    """A manifest that was read from the destination, so it need not be put."""

    manifest: Manifest


# None: neither the manifest nor anything below it has to be checked.
FetchedManifest: TypeAlias = Manifest | PresentManifest | None
ManifestFetcher: TypeAlias = Callable[[Sequence[Descriptor]], Sequence[FetchedManifest]]


def select_platforms(
    root: Manifest, platforms: Sequence[Platform], name: str
) -> Manifest | Descriptor:
    """Return the part of an index for some platforms: all, a smaller index, or one child.

    Raises:
        NotFound: no entry is for one of the platforms; the message lists the available ones.
    """
    if not platforms or not root.is_index:
        return root
    children = root.children()
    selected: list[Descriptor] = []
    for platform in platforms:
        matching = [c for c in children if c.platform and c.platform.matches(platform)]
        if not matching:
            raise missing_platform_error(
                name, (platform,), sorted({str(c.platform) for c in children if c.platform})
            )
        selected += [c for c in matching if c not in selected]
    if len(selected) == 1:
        return selected[0]
    digests = {str(c.digest) for c in selected}
    selected += [c for c in children if attested_digest(c) in digests and c not in selected]
    if len(selected) == len(children):
        return root
    return root.with_children(tuple(c for c in children if c in selected))


def missing_platform_error(
    name: str, requested: Sequence[Platform], existing: Sequence[str]
) -> NotFound:
    """Return the error for an image that is not for any of the requested platforms.

    Args:
        existing: the platforms of the image, from its index or config.
    """
    shown = safe_repr(", ".join(existing), 400).strip("'") or "no platform"
    similar_name = ""
    if str(requested[0]) not in COMMON_PLATFORMS:
        similar_name = safe_repr(find_similar_platform(str(requested[0]), existing)).strip("'")
    question = f"; did you mean {similar_name}?" if similar_name else ""
    platforms = " or ".join(map(str, requested))
    return NotFound(f"{name}: no image for {platforms}", remedy=f"it is for {shown}{question}")


def attested_digest(entry: Descriptor) -> str:
    """Return the digest of the manifest that an index entry attests; "" if it attests none."""
    return entry.annotations.get(_ATTESTED_DIGEST, "")


class GraphReader:
    """Reads the graph below a manifest, level by level. One thread at a time."""

    def __init__(self, fetch: ManifestFetcher, name: str) -> None:
        """Read the manifests of a level with ``fetch``, which returns None for complete ones."""
        self._fetch = fetch
        self._name = name
        self._manifest_count = self._manifest_bytes = 0
        self._blob_digests: set[Digest] = set()

    def read(
        self, root: Manifest, digest: Digest, depth: int = 0, *, is_present: bool = False
    ) -> Node:
        """Return the node of ``root`` with all nodes below it that are needed.

        Args:
            is_present: the destination has ``root`` itself.
        Raises:
            InvalidManifest: it exceeds the limits on depth, entries or bytes.
        """
        children = root.children()
        listed = tuple(c for c in children if c.is_manifest)
        self._manifest_count += len(listed)
        self._blob_digests.update(blob.digest for blob in root.blobs())
        self._blob_digests.update(child.digest for child in children if not child.is_manifest)
        self._manifest_bytes += sum(c.size for c in listed)
        self._check_limits(depth)
        nodes = []
        for descriptor, fetched in zip(listed, self._fetch(listed), strict=True):
            if fetched is None:
                continue
            is_child_present = isinstance(fetched, PresentManifest)
            manifest = fetched.manifest if isinstance(fetched, PresentManifest) else fetched
            nodes.append(
                self.read(manifest, descriptor.digest, depth + 1, is_present=is_child_present)
            )
        return Node(root, digest, tuple(nodes), is_present)

    def _check_limits(self, depth: int) -> None:
        exceeded = {
            f"it has more than {MAX_MANIFESTS} manifests": self._manifest_count > MAX_MANIFESTS,
            f"it has more than {MAX_BLOBS} different blobs": len(self._blob_digests) > MAX_BLOBS,
            f"its indexes are nested more than {MAX_DEPTH} levels deep": depth > MAX_DEPTH,
            f"its manifests have more than {MAX_MANIFEST_BYTES} bytes": self._manifest_bytes
            > MAX_MANIFEST_BYTES,
        }
        for violation, is_exceeded in exceeded.items():
            if is_exceeded:
                raise InvalidManifest(
                    f"{self._name}: {violation}",
                    remedy="regular images are much smaller; it may be an attack",
                )


def check_descriptor(descriptor: Descriptor, manifest: Manifest, name: str) -> None:
    """Check a manifest against its descriptor in an index (CVE-2021-41190).

    Some tools list Docker manifests with OCI media types, or the reverse. This is accepted:
    as long as an index is not listed as a manifest, all clients interpret it alike.

    Raises:
        InvalidManifest, SizeMismatch: its kind or size differs.
    """
    if manifest.is_index != (descriptor.media_type in INDEX_TYPES):
        raise InvalidManifest(
            f"{name}: {descriptor.digest} is listed as {descriptor.media_type}, but is "
            f"{manifest.media_type}"
        )
    if len(manifest.body) != descriptor.size:
        raise SizeMismatch(
            f"{name}: manifest {descriptor.digest} has {len(manifest.body)} bytes instead of the "
            f"listed {descriptor.size}"
        )
