"""LruDict: a dictionary that keeps a limited number of items."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

MAX_ITEMS = 2048  # the blobs of about 500 images


class LruDict(OrderedDict[Key, Value]):
    """Drops the least recently used item when there are too many. One thread at a time.

    What a run remembers of its blobs is kept in such dictionaries, so that the memory of a mirror
    does not depend on the number of its images.
    """

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        """Keep up to ``max_items`` items."""
        super().__init__()
        self._max_items = max_items

    def use(self, key: Key) -> Value | None:
        """Return the value of a key, which becomes the most recently used one; None: no item."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def store(self, key: Key, value: Value) -> tuple[Key, Value] | None:
        """Set a value, which becomes the most recently used one; return the item dropped for it."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False) if len(self) > self._max_items else None
