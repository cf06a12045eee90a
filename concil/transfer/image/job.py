"""ImageJob: one image to copy, its stores and options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from enum import StrEnum

from concil.config import KIB
from concil.errors import UsageError, safe_repr
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.progress.events import ProgressSink
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.store.protocols import Destination, Source
from concil.transfer.blob.transfer import BlobLookup
from concil.transfer.image.graph import Node
from concil.transfer.image.history import ImageKey
from concil.transfer.signatures.verifier import ImageVerifier

MAX_UNCHECKED_CONFIG = 64 * KIB  # bytes of a config that may be sent without a check
MAX_UNCHECKED_LAYER = 256 * KIB  # bytes of another blob that may be sent without a check
EMPTY_JSON_DIGEST = Digest.from_bytes(
    b"{}"
)  # the empty config of artifacts, which any registry may have
ForeignLayerOpener = Callable[[Descriptor, int, int | None], BlobReader]


class ForeignLayers(StrEnum):
    """How to treat layers that must not be distributed, such as Windows base layers."""

    SKIP = "skip"  # do not copy them
    SOURCE = "source"  # copy them from the source, which must have them
    URLS = "urls"  # fetch those that the source lacks from the URLs in the manifest

    @classmethod
    def parse(cls, name: str, value: str) -> ForeignLayers:
        """Return the member for an argument, which is a member or its text.

        Raises:
            TypeError: it is not a string.
            UsageError: it is not one of the choices.
        """
        choices = [member.value for member in cls]
        if arguments.check_str(name, value) not in choices:
            raise UsageError(
                f"{name}: not one of {', '.join(choices)}: {safe_repr(value)}",
                remedy=f"choose {' or '.join(choices)}",
            )
        return cls(value)


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image to copy, with open stores."""

    source: Source
    source_reference: str  # tag or digest; "" for the only image of a layout
    destination: Destination
    destination_reference: str
    platforms: tuple[Platform, ...] = ()
    referrers: bool = False  # copy signatures, attestations and SBOMs, too
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    open_foreign_layer: ForeignLayerOpener | None = None  # opens a foreign layer at one of its URLs
    # Repositories at the destination that have a blob which the source lacks.
    mount_candidates: Callable[[Descriptor], Sequence[str]] = lambda _blob: ()
    immutable: bool = False  # once copied, it is never checked again
    is_single: bool = True  # no other image is copied with it
    recheck: bool = False  # check the content of an image that is up to date, too
    overwrite: bool = True  # False: an image at the destination stays as it is
    final_event_sink: ProgressSink | None = None  # receives the final event of a copied image
    verifier: ImageVerifier | None = None  # accepts the image before it is copied

    @property
    def source_name(self) -> str:
        """The image at the source, as users write it."""
        return image_name(self.source.name, self.source_reference)

    @property
    def destination_name(self) -> str:
        """The image at the destination, as users write it."""
        return image_name(self.destination.name, self.destination_reference)

    @property
    def key(self) -> ImageKey:
        """The key of the image in the journal."""
        platforms = ",".join(sorted(map(str, self.platforms)))
        return ImageKey(self.source_name, self.destination_name, platforms)


def image_name(name: str, reference: str) -> str:
    """Return a store's name and a reference in it, as users write them."""
    if not reference:
        return name
    return (
        f"{name}@{reference}" if ":" in reference and "sha" in reference else f"{name}:{reference}"
    )


def format_count(number: int, noun: str) -> str:
    """Return a count with its noun and verb, as in "2 layers are"."""
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"


@dataclass(frozen=True, slots=True)
class RootManifest:
    """The top manifest of an image."""

    descriptor: Descriptor
    manifest: Manifest | None = None  # None: it was not needed
    source_digest: Digest | None = None  # that the source's reference named when it was read
    full_index_digest: Digest | None = (
        None  # of the source's index if this is a rewritten part of it
    )
    notes: tuple[str, ...] = ()
    is_present: bool = False  # it was read from the destination


@dataclass(frozen=True, slots=True)
class ReferrerNode:
    """A referrer of an image, with all nodes below it."""

    node: Node
    reference: str  # under which it is put: its digest, or a tag made of its subject's
    depth: int  # 1: it refers to the image, 2: it refers to a referrer of the image


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What has to be written for one image."""

    node: Node | None  # None: the image itself is present and complete
    referrers: tuple[ReferrerNode, ...] = ()
    notes: tuple[str, ...] = field(default=())
    is_new: bool = False  # the destination has nothing under the image's reference

    def nodes(self) -> Iterator[Node]:
        """Yield every manifest that has to be put or was checked at the destination."""
        if self.node is not None:
            yield from self.node.walk()
        for referrer in self.referrers:
            yield from referrer.node.walk()

    @property
    def missing_manifests(self) -> int:
        """Number of manifests that have to be put."""
        return sum(1 for node in self.nodes() if not node.is_present)

    @property
    def new_referrers(self) -> int:
        """Number of referrers that have to be put."""
        return sum(1 for referrer in self.referrers if not referrer.node.is_present)

    def blob_lookups(self) -> dict[Digest, BlobLookup]:
        """Return when to check the destination for blobs; missing entries mean the default.

        Checking a small blob takes about as long as sending it. So as many small blobs are
        sent unchecked as there are manifests to put, which keeps the number of requests for
        a new image the same. Configs come first: a new manifest has a new config. If the tag
        names an older image, only configs are sent unchecked, because images of one tag share
        their other blobs.
        """
        lookups: dict[Digest, BlobLookup] = {}
        configs: dict[Digest, int] = {}
        others: dict[Digest, int] = {}
        for node in self.nodes():
            for position, blob in enumerate(node.listed_blobs()):
                if node.is_present:
                    lookups[blob.digest] = BlobLookup.BEFORE_MOUNT
                elif blob.digest != EMPTY_JSON_DIGEST:
                    is_first = position == 0 and not node.manifest.is_index
                    if is_first and blob.size <= MAX_UNCHECKED_CONFIG:
                        configs[blob.digest] = blob.size
                    elif blob.size <= MAX_UNCHECKED_LAYER:
                        others[blob.digest] = blob.size
        candidates = [*configs, *(sorted(others, key=others.__getitem__) if self.is_new else ())]
        unchecked = [digest for digest in dict.fromkeys(candidates) if digest not in lookups]
        return lookups | dict.fromkeys(unchecked[: self.missing_manifests], BlobLookup.NEVER)

    def blobs(self, foreign_layers: ForeignLayers) -> dict[Digest, Descriptor]:
        """Return every blob once, without foreign layers if these are skipped."""
        blobs_by_digest: dict[Digest, Descriptor] = {}
        for node in self.nodes():
            for blob in node.listed_blobs():
                if foreign_layers is not ForeignLayers.SKIP or not blob.is_foreign:
                    blobs_by_digest.setdefault(blob.digest, blob)
        return blobs_by_digest

    @property
    def foreign_layer_count(self) -> int:
        """Number of different foreign layers."""
        listed = (blob for node in self.nodes() for blob in node.listed_blobs())
        return len({blob.digest for blob in listed if blob.is_foreign})
