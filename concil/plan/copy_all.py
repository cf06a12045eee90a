"""Lists every image of a layout, archive or repository with its destination."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import field

from concil.errors import ConcilError, UsageError, safe_repr
from concil.oci.address import (
    LOCAL_SCHEMES,
    Address,
    LayoutAddress,
    parse_address,
)
from concil.oci.foreign_address import translate_address
from concil.oci.manifest import Digest
from concil.oci.reference import Reference
from concil.oci.referrers_tag import split_digest_tag
from concil.plan.target_names import DestinationPrefix, address_key
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import count_of
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import MirrorItem
from concil.transfer.signatures.verifier import ImageVerifier

logger = logging.getLogger(__name__)

# How a layout names an image that the source list knows by digest only.
_DIGEST_TAG = re.compile(r"(.+):(sha256)-([0-9a-f]{64})")
ListImages = Callable[[str], Iterator[tuple[str, Digest | None]]]


@dataclass(slots=True)
class AllImages:
    """Every image of one source, listed lazily; invalid destinations go to ``failures``.

    Images of a layout or archive keep their names below the destination prefix, like those
    a mirror wrote there: docker.io/library/alpine:3 becomes PREFIX/library/alpine:3.
    The tags of a repository are copied to one other repository. Not thread-safe.
    """

    source: str
    destination: str
    list_images: ListImages  # names, with digests where they cost no request; "": unnamed
    platforms: tuple[str, ...] = ()
    referrers: bool = False  # copy the referrers of each image
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    recheck: bool = False  # check the content of images that are up to date, too
    overwrite: bool = True  # False: images that exist at the destination stay as they are
    verifier: ImageVerifier | None = None  # accepts each image before it is copied
    failures: list[tuple[str, ConcilError]] = field(default_factory=list)  # (source address, error)
    _destination_prefix: DestinationPrefix | None = None

    def check(self) -> None:
        """Check that the source and the destination can hold several images.

        Raises:
            UsageError: one of them is a single image, or both are the same.
        """
        source = parse_address(self.source)
        if _is_single_image(source):
            raise UsageError(f"{source} is a single image", remedy="omit the tag and digest")
        local = translate_address(self.destination).startswith(LOCAL_SCHEMES)
        if local or isinstance(source, LayoutAddress):
            self._destination_prefix = DestinationPrefix(self.destination)
        else:
            target = parse_address(self.destination)
            if _is_single_image(target):
                raise UsageError(
                    f"all tags cannot be copied to a single image: {target}",
                    remedy="omit the tag and digest",
                )
        if local or self._destination_prefix is None:
            target = parse_address(self.destination)
            if address_key(source)[:2] == address_key(target)[:2]:
                raise UsageError(
                    f"{source} would be copied onto itself", remedy="choose another destination"
                )

    def __iter__(self) -> Iterator[MirrorItem]:
        """Yield the images to copy.

        Raises:
            UsageError: two images of a layout would be written to the same target.
        """
        self.check()
        if isinstance(parse_address(self.source), LayoutAddress):
            # The names are in memory anyway, so duplicates are found before copying starts.
            yield from list(self._named_images())
            return
        try:
            for tag, _ in self.list_images(self.source):
                if self._is_signature(tag):
                    continue
                source = f"{self.source}:{tag}"
                target = f"{self.destination}:{tag}"
                if self._destination_prefix is not None:
                    target = self._destination_prefix.resolve(parse_address(source), None)
                yield self._create_item(source, target)
        except ConcilError as error:  # the tags listed before the error are still copied
            self.failures.append((self.source, error))

    def _named_images(self) -> Iterator[MirrorItem]:
        prefix = self._destination_prefix or DestinationPrefix(self.destination)
        nameless = 0
        names_by_key: dict[tuple[str, ...], str] = {}
        for name, digest in self.list_images(self.source):
            if not name:
                nameless += 1
                continue
            if self._is_signature(name):
                continue
            source = f"{self.source}:{name}"
            try:
                target = prefix.resolve(parse_address(source), self._digest_reference(name, digest))
                key = address_key(parse_address(target))
            except ConcilError as error:
                self.failures.append((source, error))
                continue
            first_name = names_by_key.setdefault(key, name)
            if first_name != name:
                raise UsageError(
                    f"{safe_repr(first_name)} and {safe_repr(name)} of {self.source} would both be "
                    f"written to "
                    f"{parse_address(target)}",
                    remedy="mirror them with a list that gives each a target",
                )
            yield self._create_item(source, target)
        if nameless:
            logger.warning(
                "%s: %s without a name %s skipped%s; copy by digest instead",
                self.source,
                count_of(nameless, "image"),
                "is" if nameless == 1 else "are",
                ", except referrers of images with a name"
                if self.referrers
                else ", and so are signatures without referrers=True",
            )

    def _is_signature(self, name: str) -> bool:
        """Return whether a name is that of a signature, which nobody signs in turn."""
        _, suffix = split_digest_tag(name.rpartition(":")[2]) or ("", "")
        return bool(suffix) and self.verifier is not None

    def _create_item(self, source: str, destination: str) -> MirrorItem:
        return MirrorItem(
            source,
            destination,
            self.platforms,
            referrers=self.referrers,
            foreign_layers=self.foreign_layers,
            recheck=self.recheck,
            overwrite=self.overwrite,
            verifier=self.verifier,
        )

    def _digest_reference(self, name: str, digest: Digest | None) -> str | None:
        """Return the digest reference for an image that is named by its digest, or None.

        A mirror names such an image with a tag, containerd with an @. A tag of the same form may
        also be a referrers tag: then its digest differs from that of the image.
        """
        if digest is None:
            return None
        local = translate_address(self.destination).startswith(LOCAL_SCHEMES)
        repository, _, pinned = name.partition("@")
        if pinned == str(digest):
            return (
                f"{repository}:{digest.algorithm}-{digest.hex}"
                if local
                else _repository_at_digest(name)
            )
        match = _DIGEST_TAG.fullmatch(name)
        if local or match is None or (digest.algorithm, digest.hex) != (match[2], match[3]):
            return None
        return _repository_at_digest(f"{match[1]}@{digest}")


def _repository_at_digest(name: str) -> str:
    """Return repository and digest of a name, without the host."""
    reference = Reference.parse(name)
    return f"{reference.repository}@{reference.digest}"


def _is_single_image(address: Address) -> bool:
    tag = address.name if isinstance(address, LayoutAddress) else address.tag
    return bool(tag or address.digest)
