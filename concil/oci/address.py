"""Addresses of images: registry references, layouts and archives."""

from __future__ import annotations

import functools
import re

from concil.errors import InvalidDigest, InvalidReference, safe_repr
from concil.oci.foreign_address import translate_address
from concil.oci.manifest import Digest
from concil.oci.reference import _CONTROL, _CONTROL_OR_SPACE, _DIGEST_SUFFIX, Reference
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import without_user

__all__ = [
    "DOCKER_ARCHIVE",
    "LAYOUT",
    "LOCAL_SCHEMES",
    "OCI_ARCHIVE",
    "Address",
    "LayoutAddress",
    "is_layout_name",
    "normalize_tag",
    "parse_address",
]

LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE = "oci", "oci-archive", "docker-archive"


LOCAL_SCHEMES = ("oci:", "oci-archive:", "docker-archive:")


# Source: image-spec, annotations, org.opencontainers.image.ref.name.
_NAME_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"


_LAYOUT_NAME = re.compile(rf"{_NAME_COMPONENT}(?:/{_NAME_COMPONENT})*")


_IMAGE_NUMBER = re.compile(r"@[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class LayoutAddress:
    """A local store of named images, and optionally one image in it: ``oci:PATH[:NAME]``.

    The store is a layout directory, an oci-archive or a docker-archive.
    """

    path: str
    name: str | None = None  # org.opencontainers.image.ref.name, or the tag in a docker-archive
    digest: Digest | None = None
    scheme: str = LAYOUT  # or OCI_ARCHIVE, DOCKER_ARCHIVE

    @property
    def store_address(self) -> str:
        """The address of the store, without the image."""
        return f"{self.scheme}:{self.path}"

    @property
    def is_archive(self) -> bool:
        """Whether the store is a single file."""
        return self.scheme != LAYOUT

    def __str__(self) -> str:
        """Return the address as users write it."""
        name = f":{self.name}" if self.name else ""
        return f"{self.store_address}{name}" + (f"@{self.digest}" if self.digest else "")


Address = Reference | LayoutAddress


# A mirror parses the address of each image about six times.
@functools.lru_cache(maxsize=1024)
def parse_address(text: str) -> Address:
    """Parse a store address: a reference, or ``oci:PATH[:NAME][@DIGEST]``.

    ``oci-archive:`` and ``docker-archive:`` are supported as well, and addresses of other tools
    as far as `translate_address` knows them.

    Raises:
        InvalidReference: the address is invalid; the message names the wrong part.
    """
    text = translate_address(arguments.check_str("address", text))
    layout = text.startswith(LOCAL_SCHEMES)
    if not text or (_CONTROL if layout else _CONTROL_OR_SPACE).search(text):
        raise InvalidReference(
            f"not a reference: {safe_repr(without_user(text))}",
            remedy="write [host/]repository[:tag] without spaces, or oci:PATH[:TAG]",
        )
    if layout:
        return _parse_layout(text)
    return Reference.parse(text)


def _parse_layout(text: str) -> LayoutAddress:
    scheme, _, rest = text.partition(":")
    digest = None
    digest_match = _DIGEST_SUFFIX.search(rest)
    if digest_match:
        rest = rest[: digest_match.start()]
        try:
            digest = Digest.parse(digest_match[1])
        except InvalidDigest as error:
            raise InvalidReference(f"{error} in {safe_repr(text)}", remedy=error.remedy) from error
    # The first colon ends the path, as in skopeo: paths with a colon are not supported.
    path, colon, name = rest.partition(":")
    if not path:
        raise InvalidReference(
            f"there is no path in {safe_repr(text)}",
            remedy=f"write {scheme}:PATH or {scheme}:PATH:TAG",
        )
    if scheme == DOCKER_ARCHIVE:
        name = normalize_tag(name, text) if colon else ""
    elif (colon and not name) or (name and not is_layout_name(name)):
        raise InvalidReference(
            f"not an image name of a layout: {safe_repr(name)} in {safe_repr(text)}",
            remedy="use letters and digits, separated by single characters of - . _ : @ + and /",
        )
    return LayoutAddress(path, name or None, digest, scheme)


def is_layout_name(name: str) -> bool:
    """Return whether a name can be the name of an image in a layout."""
    return bool(_LAYOUT_NAME.fullmatch(name))


def normalize_tag(name: str, address: str = "") -> str:
    """Return the full tag in a docker-archive: alpine is docker.io/library/alpine:latest.

    ``@2`` is the third image of an archive, as in skopeo.

    Args:
        address: the whole address, for messages.
    Raises:
        InvalidReference: it is not the name of an image.
    """
    if _IMAGE_NUMBER.fullmatch(name):
        return name
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        reference = None
    # A tag has no user, scheme or digest.
    if reference is None or "@" in name or "://" in name:
        where = f" in {safe_repr(address)}" if address else ""
        raise InvalidReference(
            f"not a tag of a docker-archive: {safe_repr(name)}{where}",
            remedy="write docker-archive:FILE:REPOSITORY:TAG",
        )
    return str(reference.with_reference(tag=reference.tag or "latest"))
