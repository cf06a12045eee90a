"""Formats the addresses of written and deleted images."""

from __future__ import annotations

from concil.oci.address import DOCKER_ARCHIVE, Address, LayoutAddress
from concil.oci.digest import Digest


def address_by_digest(address: Address, digest: Digest) -> str:
    """Return the address of a written image, by its digest where the store keeps digests."""
    if isinstance(address, LayoutAddress):
        if address.scheme == DOCKER_ARCHIVE:  # it stores no digests
            return str(address)
        return str(LayoutAddress(address.path, None, digest, address.scheme))
    return str(address.with_reference(digest=digest))


def address_with_name(address: Address, name: str) -> str:
    """Return the address of another tag in the same repository or layout."""
    if isinstance(address, LayoutAddress):
        return str(LayoutAddress(address.path, name, None, address.scheme))
    return str(address.with_reference(tag=name))
