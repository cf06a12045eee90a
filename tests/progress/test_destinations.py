"""Outcomes of images, counted by destination."""

from __future__ import annotations

from concil.progress.destinations import DestinationTotals


def test_destinations_are_in_the_order_of_their_names() -> None:
    totals = DestinationTotals()
    for target in ("south.example/a:1", "oci:dir:a", "north.example/a:1", "north.example/b:1"):
        totals.add(target, "copied", 7)

    assert list(totals.by_name()) == ["north.example", "oci:dir", "south.example"]
    assert totals.by_name()["north.example"] == {"copied": 2, "bytes_sent": 14}
