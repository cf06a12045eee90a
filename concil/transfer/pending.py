"""Images whose destination is there only when all are written: their outcomes wait for that."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from typing import IO, Generic, Protocol, TypeVar

from concil.config import MIB
from concil.errors import ConcilError

_IN_MEMORY = MIB  # bytes

Key = TypeVar("Key")
Value = TypeVar("Value")


class Pending(Protocol):
    """Destinations that appear as a whole, as archives do. Any thread may call any method."""

    def is_pending(self, destination: str) -> bool:
        """Whether an image is there only after `finish`."""
        ...

    def finish(self) -> None:
        """Let them appear; one that cannot has a `failure`. Raises Cancelled."""
        ...

    def failure(self, destination: str) -> ConcilError | None:
        """Why an image is not there; None: it is."""
        ...


class Spool(Generic[Key, Value]):
    """Pairs in their order; of the values only a MiB is in memory. One thread at a time."""

    def __init__(self) -> None:
        """Begin without any; the file that takes the values has no name."""
        self._keys: list[Key] = []
        self._values: IO[bytes] | None = None

    def add(self, key: Key, value: Value) -> None:
        """Add a pair."""
        if self._values is None:
            self._values = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - by `close`
        self._keys.append(key)
        pickle.dump(value, self._values)

    def __iter__(self) -> Iterator[tuple[Key, Value]]:
        """Yield all pairs; nothing may be added any more."""
        if self._values is not None:
            self._values.seek(0)
            for key in self._keys:
                yield key, pickle.load(self._values)  # noqa: S301 - what `add` has written

    def close(self) -> None:
        """Drop all."""
        self._keys = []
        if self._values is not None:
            self._values.close()
        self._values = None
