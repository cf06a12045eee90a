"""One image to copy: its stores open, what is wanted of it, and what is to be written for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from concil import arguments
from concil.content import Descriptor, Digest, Manifest, Platform
from concil.errors import UsageError, shown
from concil.store.protocol import BlobReader, Destination, Source
from concil.transfer.graph import Node
from concil.transfer.past import ImageKey

Opener = Callable[[Descriptor, int, int | None], BlobReader]


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


@dataclass(frozen=True, slots=True)
class Attached:
    """A manifest that goes along with an image, with all below it."""

    node: Node
    reference: str  # under which it is put: its digest, or a tag made of its subject's
    depth: int  # 1: it is about the image, 2: about what is about the image


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be written for one image."""

    node: Node | None  # None: the image itself is there
    attached: tuple[Attached, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def nodes(self) -> Iterator[Node]:
        """Every manifest that is to be put."""
        if self.node is not None:
            yield from self.node.walk()
        for one in self.attached:
            yield from one.node.walk()

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
