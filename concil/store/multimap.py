"""A dictionary of several values for a key, most keys of which have one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Multimap(Generic[Key, Value]):
    """Values by key, each once, in the order in which they came. One thread at a time.

    A value must not be a dictionary.
    """

    def __init__(self) -> None:
        """Begin without any."""
        # A container for each key would take most of the memory.
        self._found: dict[Key, Value | dict[Value, None]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether a key has values."""
        return key in self._found

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys that have values."""
        return iter(self._found)

    def of(self, key: Key) -> Collection[Value]:
        """The values of a key."""
        found = self._found.get(key)
        if found is None:
            return ()
        return tuple(found) if isinstance(found, dict) else (found,)

    def first(self, key: Key) -> Value | None:
        """The value that came first; None: there is none."""
        found = self._found.get(key)
        return next(iter(found)) if isinstance(found, dict) else found

    def add(self, key: Key, value: Value) -> None:
        """Add a value."""
        found = self._found.get(key)
        if found is None:
            self._found[key] = value
        elif isinstance(found, dict):
            found[value] = None
        elif found != value:
            self._found[key] = {found: None, value: None}

    def discard(self, key: Key, value: Value) -> None:
        """Remove a value, if it is there."""
        found = self._found.get(key)
        if isinstance(found, dict):
            found.pop(value, None)
            if not found:
                del self._found[key]
        elif found is not None and found == value:
            del self._found[key]
