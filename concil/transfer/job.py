"""One image to copy: its stores open, what is wanted of it, and what is to be written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from concil import arguments
from concil.config import KIB
from concil.content import Descriptor, Digest, Manifest, Platform
from concil.errors import UsageError, shown
from concil.progress import ProgressSink
from concil.store.protocol import BlobReader, Destination, Source
from concil.transfer.graph import Node
from concil.transfer.past import ImageKey

SMALL_CONFIG = 64 * KIB  # bytes of a config that may be sent without asking for it
SMALL_LAYER = 256 * KIB  # bytes of another blob that may be: one or two of an index
EMPTY = Digest.of(b"{}")  # what artifacts have as a config: any registry may have it
Opener = Callable[[Descriptor, int, int | None], BlobReader]


class Lookup(Enum):
    """When a destination is asked whether it has a blob."""

    BEFORE_MOUNT = "before mount"  # it is likely to be there
    AFTER_MOUNT = "after mount"
    NEVER = "never"  # it is sent, unless it can be mounted


class ForeignLayers(StrEnum):
    """What becomes of layers that are not to be distributed, as those of Windows were."""

    SKIP = "skip"  # they stay where they are
    SOURCE = "source"  # they are copied from the source, which must have them
    URLS = "urls"  # what the source has not is fetched from where the manifest says

    @classmethod
    def argument(cls, name: str, value: str) -> ForeignLayers:
        """Return an argument that is one of these, or its text.

        Raises:
            TypeError: it is no text.
            UsageError: it is another text.
        """
        choices = [each.value for each in cls]
        if arguments.text(name, value) not in choices:
            raise UsageError(
                f"{name}: not one of {', '.join(choices)}: {shown(value)}",
                remedy=f"choose {' or '.join(choices)}",
            )
        return cls(value)


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image to copy, its stores open."""

    source: Source
    source_reference: str  # tag or digest; "" for the only one of a layout
    destination: Destination
    destination_reference: str
    platforms: tuple[Platform, ...] = ()
    referrers: bool = False  # signatures, attestations and SBOMs go along
    foreign: ForeignLayers = ForeignLayers.SKIP
    elsewhere: Opener | None = None  # opens a foreign layer at one of its URLs
    # Repositories at the destination that have a blob which the source lacks.
    carried: Callable[[Descriptor], Sequence[str]] = lambda _blob: ()
    immutable: bool = False  # once it was brought nobody is asked about it again
    recheck: bool = False  # what is below an image that is up to date is asked for, too
    tell: ProgressSink | None = None  # gets the last event of an image that was copied

    @property
    def subject(self) -> str:
        """The image as people write it."""
        return joined(self.source.name, self.source_reference)

    @property
    def target(self) -> str:
        """Where it goes, as people write it."""
        return joined(self.destination.name, self.destination_reference)

    @property
    def key(self) -> ImageKey:
        """What the journal knows it by."""
        platforms = ",".join(sorted(map(str, self.platforms)))
        return ImageKey(self.subject, self.target, platforms)


def joined(name: str, reference: str) -> str:
    """A store's name and a reference in it, as people write it."""
    if not reference:
        return name
    return (
        f"{name}@{reference}" if ":" in reference and "sha" in reference else f"{name}:{reference}"
    )


def counted(number: int, what: str) -> str:
    """Some things in words, as in "2 layers are"."""
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


@dataclass(frozen=True, slots=True)
class Root:
    """The manifest that an image begins with."""

    entry: Descriptor
    manifest: Manifest | None = None  # None: nobody had to read it
    read: Digest | None = None  # of what the source's reference named when it was read
    whole: Digest | None = None  # of the index of which it is a part, with a digest of its own
    notes: tuple[str, ...] = ()
    is_there: bool = False  # it was read from the destination


@dataclass(frozen=True, slots=True)
class Attached:
    """A manifest that goes along with an image, with all below it."""

    node: Node
    reference: str  # under which it is put: its digest, or a tag made of its subject's
    depth: int  # 1: it is about the image, 2: about what is about the image


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be written for one image."""

    node: Node | None  # None: the image itself is there, with all below it
    attached: tuple[Attached, ...] = ()
    notes: tuple[str, ...] = field(default=())
    is_new: bool = False  # the destination has nothing under the image's reference

    def nodes(self) -> Iterator[Node]:
        """Every manifest that is to be put, or that is there and was looked at."""
        if self.node is not None:
            yield from self.node.walk()
        for one in self.attached:
            yield from one.node.walk()

    @property
    def missing(self) -> int:
        """How many manifests are to be put."""
        return sum(1 for node in self.nodes() if not node.is_there)

    @property
    def coming(self) -> int:
        """How many of what refers to the image come along."""
        return sum(1 for one in self.attached if not one.node.is_there)

    def lookups(self) -> dict[Digest, Lookup]:
        """When the destination is asked for its blobs; of those that are not in it by default.

        To ask for a small blob takes about as long as to send it. So as many of these are
        sent without a question as there are manifests to read back, and a new image takes
        no more requests for it. Configs come first: a manifest that is new has a config
        that is new. Where the tag names an older image only configs are sent so, as images
        of one tag share their other blobs.
        """
        found: dict[Digest, Lookup] = {}
        configs: dict[Digest, int] = {}
        others: dict[Digest, int] = {}
        for node in self.nodes():
            for position, blob in enumerate(node.listed_blobs()):
                if node.is_there:
                    found[blob.digest] = Lookup.BEFORE_MOUNT
                elif blob.digest != EMPTY:
                    is_first = position == 0 and not node.manifest.is_index
                    if is_first and blob.size <= SMALL_CONFIG:
                        configs[blob.digest] = blob.size
                    elif blob.size <= SMALL_LAYER:
                        others[blob.digest] = blob.size
        candidates = [*configs, *(sorted(others, key=others.__getitem__) if self.is_new else ())]
        unknown = [digest for digest in dict.fromkeys(candidates) if digest not in found]
        return found | dict.fromkeys(unknown[: self.missing], Lookup.NEVER)

    def blobs(self, foreign: ForeignLayers) -> dict[Digest, Descriptor]:
        """Every blob once; foreign layers only if they are wanted."""
        found: dict[Digest, Descriptor] = {}
        for node in self.nodes():
            for blob in node.listed_blobs():
                if foreign is not ForeignLayers.SKIP or not blob.is_foreign:
                    found.setdefault(blob.digest, blob)
        return found

    @property
    def foreign(self) -> int:
        """How many foreign layers it has."""
        listed = (blob for node in self.nodes() for blob in node.listed_blobs())
        return len({blob.digest for blob in listed if blob.is_foreign})
