"""Where images go: names below a destination, and templates of addresses."""

from __future__ import annotations

import os
import re

from concil.errors import UsageError, shown
from concil.reference import Address, LayoutAddress, Reference, parse_address

_SCHEMES = ("docker://", "https://", "http://", "oci:")


class Below:
    """Where images go that are mirrored to one destination."""

    def __init__(self, destination: str) -> None:
        """Read the destination.

        Raises:
            UsageError: it is neither a registry's prefix nor a layout directory.
        """
        self._text = destination
        self._layout = destination.startswith("oci:")
        if self._layout:
            address = parse_address(destination)
            if not isinstance(address, LayoutAddress) or address.name or address.digest:
                raise UsageError(
                    f"a mirror goes to a whole layout, not to one image: {shown(destination)}",
                    remedy="write oci:DIR",
                )
            return
        self._base = destination.rstrip("/")
        rest = self._base.rpartition("://")[2]
        last = rest.rpartition("@")[2].partition("/")[2].rpartition("/")[2]
        if ":" in last or re.search(r"@sha\d+:", rest):
            raise UsageError(
                f"a mirror goes below a prefix, not to one tag: {shown(hidden(destination))}",
                remedy="write host[:port]/prefix or oci:DIR",
            )
        parse_address(f"{self._base}/probe:probe")  # says what is wrong with the prefix

    def of(self, source: Address, target: str | None) -> str:
        """Return the address a source goes to, as it would be written.

        Args:
            target: a name below the destination, or an address with its scheme; None:
                the source's own name.
        Raises:
            UsageError: the source has no name to go by.
        """
        if target is not None and target.startswith(_SCHEMES):
            return target
        name = self._own_name(source) if target is None else target.strip("/")
        if self._layout:
            return f"{self._text}:{name}"
        return f"{self._base}/{name}"

    def _own_name(self, source: Address) -> str:
        if isinstance(source, Reference):
            return self._named(source)
        if source.name is None:
            raise UsageError(
                f"{source} has no name to go by", remedy="write: SOURCE -> REPOSITORY:TAG"
            )
        if self._layout:
            return source.name
        if not {":", "/"} & set(source.name):
            raise UsageError(
                f"{source} names no repository", remedy="write: SOURCE -> REPOSITORY:TAG"
            )
        return self._named(Reference.parse(source.name))

    def _named(self, source: Reference) -> str:
        """In a registry the repository's path; in a layout the source as people write it."""
        if self._layout:
            # An image of a layout that goes by its digest alone has no entry: it needs a name.
            pinned = f"sha256-{source.digest.hex}" if source.digest else "latest"
            return f"{source.host}/{source.repository}:{source.tag or pinned}"
        if source.tag or not source.digest:
            return f"{source.repository}:{source.tag or 'latest'}"
        return f"{source.repository}@{source.digest}"


def key_of(address: Address) -> tuple[str, ...]:
    """What tells two targets apart, however they are written."""
    if isinstance(address, LayoutAddress):
        return ("oci", os.path.realpath(address.path), address.name or str(address.digest or ""))
    return (address.api_host, address.repository, address.target)


def hidden(text: str) -> str:
    """The text without the user and password of a URL or address in it."""
    return re.sub(r"(?<=//)[^/@\s]*@|(?<![^\s>])[^/@\s]*:[^/@\s]*@", "", text)
