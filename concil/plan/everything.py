"""Every image of a layout, an archive or a repository, and where each of them goes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from concil.content import Digest
from concil.errors import ConcilError, UsageError, shown
from concil.plan.targets import Below, key_of
from concil.reference import LOCAL_SCHEMES, Address, LayoutAddress, Reference, parse_address
from concil.transfer.job import ForeignLayers
from concil.transfer.mirror import MirrorItem

logger = logging.getLogger(__name__)

# What an image is called in a layout that a list names by its digest alone.
_PINNED = re.compile(r"(.+):(sha256)-([0-9a-f]{64})")
Listing = Callable[[str], Iterator[tuple[str, Digest | None]]]


@dataclass(slots=True)
class Everything:
    """The images of one source, as they are listed; what has no place to go is in ``failed``.

    Out of a layout or archive they go by their names below the destination, as a mirror
    into it would have named them: docker.io/library/alpine:3 to PREFIX/library/alpine:3.
    The tags of a repository go to one other repository. One thread at a time.
    """

    source: str
    destination: str
    listing: Listing  # names, with their digests where that costs nothing; "": no name
    platforms: tuple[str, ...] = ()
    referrers: bool = False  # of each image
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    failed: list[tuple[str, ConcilError]] = field(default_factory=list)  # by source
    _below: Below | None = None

    def check(self) -> None:
        """See that both are places of several images.

        Raises:
            UsageError: one of them is a single image, or they are the same.
        """
        source = parse_address(self.source)
        if _is_single(source):
            raise UsageError(f"{source} is one image", remedy="leave tag and digest out")
        local = self.destination.startswith(LOCAL_SCHEMES)
        if local or isinstance(source, LayoutAddress):
            self._below = Below(self.destination)
        else:
            target = parse_address(self.destination)
            if _is_single(target):
                raise UsageError(
                    f"all tags cannot go to one: {target}", remedy="leave tag and digest out"
                )
        if local or self._below is None:
            target = parse_address(self.destination)
            if key_of(source)[:2] == key_of(target)[:2]:
                raise UsageError(
                    f"{source} would be copied onto itself", remedy="name another place"
                )

    def __iter__(self) -> Iterator[MirrorItem]:
        """Yield what is to be copied.

        Raises:
            UsageError: two images of a layout would be written to one target.
        """
        self.check()
        if isinstance(parse_address(self.source), LayoutAddress):
            # Its names are in memory anyway: what two would write is told before all else.
            yield from list(self._named())
            return
        try:
            for tag, _ in self.listing(self.source):
                source = f"{self.source}:{tag}"
                target = f"{self.destination}:{tag}"
                if self._below is not None:
                    target = self._below.of(parse_address(source), None)
                yield self._item(source, target)
        except ConcilError as error:  # the tags that came before are copied
            self.failed.append((self.source, error))

    def _named(self) -> Iterator[MirrorItem]:
        below = self._below or Below(self.destination)
        nameless = 0
        taken: dict[tuple[str, ...], str] = {}
        for name, digest in self.listing(self.source):
            if not name:
                nameless += 1
                continue
            source = f"{self.source}:{name}"
            try:
                target = below.of(parse_address(source), self._pinned(name, digest))
                key = key_of(parse_address(target))
            except ConcilError as error:
                self.failed.append((source, error))
                continue
            other = taken.setdefault(key, name)
            if other != name:
                raise UsageError(
                    f"{shown(other)} and {shown(name)} of {self.source} would both be written to "
                    f"{parse_address(target)}",
                    remedy="mirror them by a list, with targets of their own",
                )
            yield self._item(source, target)
        if nameless:
            logger.warning(
                "%s: %d images without a name are left out%s; copy them by digest",
                self.source,
                nameless,
                ", but for what refers to those with one"
                if self.referrers
                else ", which signatures are too without referrers=True",
            )

    def _item(self, source: str, target: str) -> MirrorItem:
        return MirrorItem(
            source,
            target,
            self.platforms,
            referrers=self.referrers,
            foreign_layers=self.foreign_layers,
        )

    def _pinned(self, name: str, digest: Digest | None) -> str | None:
        """The digest by which an image goes that is named by it; None: its name.

        A mirror names it by a tag, containerd behind an @. A tag of that form may also be
        one that lists signatures: then the digest is another.
        """
        if digest is None:
            return None
        local = self.destination.startswith(LOCAL_SCHEMES)
        repository, _, pinned = name.partition("@")
        if pinned == str(digest):
            return f"{repository}:{digest.algorithm}-{digest.hex}" if local else _at(name)
        found = _PINNED.fullmatch(name)
        if local or found is None or (digest.algorithm, digest.hex) != (found[2], found[3]):
            return None
        return _at(f"{found[1]}@{digest}")


def _at(name: str) -> str:
    """The repository and digest of a name, without the host."""
    reference = Reference.parse(name)
    return f"{reference.repository}@{reference.digest}"


def _is_single(address: Address) -> bool:
    named = address.name if isinstance(address, LayoutAddress) else address.tag
    return bool(named or address.digest)
