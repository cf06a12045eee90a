"""Counts images by their destination: a registry, a layout or an archive."""

from __future__ import annotations

from collections import Counter

from concil.errors import ConcilError
from concil.oci.address import LayoutAddress, parse_address

_MAX_DESTINATIONS = 64  # that are counted; each image may have a layout of its own


class DestinationTotals:
    """The outcomes of images for each destination. One thread at a time."""

    def __init__(self) -> None:
        """Start without any destination."""
        self.counts: dict[str, Counter[str]] = {}  # by destination: outcomes, and bytes_sent
        self._has_more = False  # some destinations are not counted

    def add(self, target: str, outcome: str, bytes_sent: int) -> None:
        """Count an image.

        Args:
            target: its address at the destination.
        """
        name = destination_name(target)
        if not name:
            return
        if name not in self.counts and len(self.counts) == _MAX_DESTINATIONS:
            self._has_more = True
            return
        count = self.counts.setdefault(name, Counter())
        count[outcome] += 1
        count["bytes_sent"] += bytes_sent

    def copy(self) -> DestinationTotals:
        """Return the totals of this moment."""
        copied = DestinationTotals()
        copied.counts = {name: count.copy() for name, count in self.counts.items()}
        copied._has_more = self._has_more
        return copied

    def by_name(self) -> dict[str, Counter[str]]:
        """Return the counts in the order of names, which does not depend on who is first."""
        return dict(sorted(self.counts.items()))

    @property
    def are_several(self) -> bool:
        """Whether there are several destinations, and all of them were counted."""
        return len(self.counts) > 1 and not self._has_more


def destination_name(target: str) -> str:
    """Return the registry, layout or archive of an address, without a user; "": it is invalid."""
    try:
        address = parse_address(target)
    except ConcilError:
        return ""
    return address.store_address if isinstance(address, LayoutAddress) else address.host
