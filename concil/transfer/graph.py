"""The manifests of one image: which belong to it, which platforms, in which order they are put."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from concil.config import MIB
from concil.content import INDEX_TYPES, Descriptor, Digest, Manifest, Platform
from concil.errors import InvalidManifest, NotFound, SizeMismatch, shown

DEEPEST = 8  # indexes in indexes
MOST = 10_000  # manifests of one image
MOST_BLOBS = 6_000  # of one image, 5000 layers and more: each that waits for its turn needs 8 KiB
MOST_BYTES = 8 * MIB  # of the manifests below one index: they are all in memory at once

# What BuildKit's attestations name the manifest they are about by.
_ATTESTS = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest of an image, and the nodes it lists."""

    manifest: Manifest
    digest: Digest  # under which it is put; of the algorithm that the index names it by
    children: tuple[Node, ...] = ()
    is_there: bool = False  # the destination has it; what is below it may be missing

    def walk(self) -> Iterator[Node]:
        """Yield the nodes below and then this one: the order in which they are put."""
        for child in self.children:
            yield from child.walk()
        yield self

    def listed_blobs(self) -> Iterator[Descriptor]:
        """Yield the blobs that this manifest lists, foreign layers among them."""
        yield from self.manifest.blobs()
        # BuildKit's cache exports list layers in an index, without any manifest.
        yield from (child for child in self.manifest.children() if not child.is_manifest)


@dataclass(frozen=True, slots=True)
class Present:
    """A manifest that was read from the destination: it need not be put."""

    manifest: Manifest


# None: neither it nor anything below it has to be looked at.
Fetched: TypeAlias = Manifest | Present | None
Fetcher: TypeAlias = Callable[[Sequence[Descriptor]], Sequence[Fetched]]


def chosen(root: Manifest, platforms: Sequence[Platform], name: str) -> Manifest | Descriptor:
    """What to copy of an index for some platforms: itself, fewer entries, or one child.

    Raises:
        NotFound: no entry is for one of the platforms; the message lists those there are.
    """
    if not platforms or not root.is_index:
        return root
    children = root.children()
    kept: list[Descriptor] = []
    for wanted in platforms:
        fitting = [c for c in children if c.platform and c.platform.matches(wanted)]
        if not fitting:
            there = ", ".join(sorted({str(c.platform) for c in children if c.platform}))
            told = shown(there, 400).strip("'") or "none"
            raise NotFound(f"{name}: no image for {wanted}", remedy=f"it has {told}")
        kept += [c for c in fitting if c not in kept]
    if len(kept) == 1:
        return kept[0]
    digests = {str(c.digest) for c in kept}
    kept += [c for c in children if attests(c) in digests and c not in kept]
    if len(kept) == len(children):
        return root
    return root.keeping(tuple(c for c in children if c in kept))


def attests(entry: Descriptor) -> str:
    """The digest of the manifest that an entry of an index is an attestation of; "" for none."""
    return entry.annotations.get(_ATTESTS, "")


class GraphReader:
    """Reads the graph below a manifest, level by level. One thread at a time."""

    def __init__(self, fetch: Fetcher, name: str) -> None:
        """Let ``fetch`` get the manifests of a level, checked; None for one that is not needed."""
        self._fetch = fetch
        self._name = name
        self._manifests = self._bytes = 0
        self._blobs: set[Digest] = set()

    def read(
        self, root: Manifest, digest: Digest, depth: int = 0, *, is_there: bool = False
    ) -> Node:
        """Return the node of ``root`` with everything below it that is needed.

        Args:
            is_there: the destination has ``root`` itself.
        Raises:
            InvalidManifest: it nests deeper, or lists more, than any image does.
        """
        children = root.children()
        listed = tuple(c for c in children if c.is_manifest)
        self._manifests += len(listed)
        self._blobs.update(blob.digest for blob in root.blobs())
        self._blobs.update(child.digest for child in children if not child.is_manifest)
        self._bytes += sum(c.size for c in listed)
        self._check(depth)
        nodes = []
        for descriptor, fetched in zip(listed, self._fetch(listed), strict=True):
            if fetched is None:
                continue
            has = isinstance(fetched, Present)
            manifest = fetched.manifest if isinstance(fetched, Present) else fetched
            nodes.append(self.read(manifest, descriptor.digest, depth + 1, is_there=has))
        return Node(root, digest, tuple(nodes), is_there)

    def _check(self, depth: int) -> None:
        many = {
            f"there are over {MOST} manifests": self._manifests > MOST,
            f"there are over {MOST_BLOBS} different blobs": len(self._blobs) > MOST_BLOBS,
            f"indexes nest deeper than {DEEPEST}": depth > DEEPEST,
            f"manifests have over {MOST_BYTES} bytes": self._bytes > MOST_BYTES,
        }
        for found, is_so in many.items():
            if is_so:
                raise InvalidManifest(
                    f"{self._name}: {found}",
                    remedy="no image is built like that; it may be an attack",
                )


def check_listed(descriptor: Descriptor, manifest: Manifest, name: str) -> None:
    """Compare a manifest with what its index says of it: that is what counts (CVE-2021-41190).

    Some tools list Docker's manifests by OCI's media type, or the reverse: as long as an
    index is not listed as a manifest, all readers find the same in it.

    Raises:
        InvalidManifest, SizeMismatch: it is of another class or size.
    """
    if manifest.is_index != (descriptor.media_type in INDEX_TYPES):
        raise InvalidManifest(
            f"{name}: {descriptor.digest} is listed as {descriptor.media_type} "
            f"and is {manifest.media_type}"
        )
    if len(manifest.body) != descriptor.size:
        raise SizeMismatch(
            f"{name}: manifest {descriptor.digest} has {len(manifest.body)} bytes, "
            f"listed are {descriptor.size}"
        )
