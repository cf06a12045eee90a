"""A dictionary of limited size."""

from __future__ import annotations

from concil.runtime.lru_dict import LruDict


def test_the_least_recently_used_item_is_dropped() -> None:
    numbers: LruDict[str, int] = LruDict(max_items=2)
    numbers.store("a", 1)
    numbers.store("b", 2)

    assert numbers.use("a") == 1
    assert numbers.store("c", 3) == ("b", 2)
    assert dict(numbers) == {"a": 1, "c": 3}


def test_a_stored_item_is_the_most_recently_used_one() -> None:
    numbers: LruDict[str, int] = LruDict(max_items=2)
    numbers.store("a", 1)
    numbers.store("b", 2)

    assert numbers.store("a", 4) is None
    assert numbers.store("c", 3) == ("b", 2)
    assert numbers.use("b") is None
