"""Dictionary with several values for a key."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Multimap(Generic[Key, Value]):
    """Maps each key to distinct values in insertion order. One thread at a time.

    A value must not be a dictionary.
    """

    def __init__(self) -> None:
        """Create an empty multimap."""
        # A single value is stored without a container, which would take most of the memory.
        self._found: dict[Key, Value | dict[Value, None]] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether a key has values."""
        return key in self._found

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys that have values."""
        return iter(self._found)

    def of(self, key: Key) -> Collection[Value]:
        """Return the values of a key."""
        values = self._found.get(key)
        if values is None:
            return ()
        return tuple(values) if isinstance(values, dict) else (values,)

    def first(self, key: Key) -> Value | None:
        """Return the value that was added first, None if there is none."""
        values = self._found.get(key)
        return next(iter(values)) if isinstance(values, dict) else values

    def add(self, key: Key, value: Value) -> None:
        """Add a value."""
        values = self._found.get(key)
        if values is None:
            self._found[key] = value
        elif isinstance(values, dict):
            values[value] = None
        elif values != value:
            self._found[key] = {values: None, value: None}

    def discard(self, key: Key, value: Value) -> None:
        """Remove a value, if it is present."""
        values = self._found.get(key)
        if isinstance(values, dict):
            values.pop(value, None)
            if not values:
                del self._found[key]
        elif values is not None and values == value:
            del self._found[key]
