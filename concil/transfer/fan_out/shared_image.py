"""SharedImage: one image of a source that several lanes copy, and what is known about it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from concil.config import MIB
from concil.oci.manifest import Digest, Manifest

_Result = TypeVar("_Result")
_MAX_CACHED_BYTES = 16 * MIB  # bytes of the manifests of all images of a run


class ManifestMemory:
    """Limits the bytes of manifests that all images of a run keep. Any thread."""

    def __init__(self, limit: int = _MAX_CACHED_BYTES) -> None:
        """Keep up to ``limit`` bytes."""
        self._lock = threading.Lock()  # guards the field below
        self._left = limit  # bytes

    def acquire(self, size: int) -> bool:
        """Reserve bytes; return whether there were so many."""
        with self._lock:
            is_free = size <= self._left
            self._left -= size if is_free else 0
        return is_free

    def release(self, size: int) -> None:
        """Return bytes."""
        with self._lock:
            self._left += size


class SharedAnswers:
    """Answers of a source that all lanes share, so that they copy the same image. Any thread."""

    def __init__(self, memory: ManifestMemory) -> None:
        """Start without any."""
        self._memory = memory
        self._lock = threading.Lock()  # guards the fields below
        self._locks: dict[Hashable, threading.Lock] = {}
        self._answers: dict[Hashable, Any] = {}
        self._size = 0  # bytes of manifests

    def get(self, key: Hashable, read: Callable[[], _Result]) -> _Result:
        """Return the answer to a request, which only one lane sends; an error is not kept."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._answers:
                answer: _Result = self._answers[key]
                return answer
            answer = read()
            size = len(answer.body) if isinstance(answer, Manifest) else 0
            if self._memory.acquire(size):
                with self._lock:
                    self._size += size
                    self._answers[key] = answer
                    self._locks.pop(key, None)  # those who wait for it find the answer
            return answer

    def clear(self) -> None:
        """Forget the answers, once no lane needs the image."""
        with self._lock:
            self._answers.clear()
            self._memory.release(self._size)
            self._size = 0


class SharedImage:
    """One image of a source, which several lanes copy.

    The fan-out that has created it guards the fields.
    """

    __slots__ = ("answers", "blobs", "lanes", "released")

    def __init__(self, lanes: Iterable[str], memory: ManifestMemory) -> None:
        """Start with the lanes that are to copy it."""
        self.lanes = set(lanes)  # those that have not finished it
        self.answers = SharedAnswers(memory)
        self.blobs: set[Digest] = set()  # that a lane has read, and another one may need
        # Lanes that do not need a blob, or not any more.
        self.released: defaultdict[Digest, set[str]] = defaultdict(set)

    def finish(self, lane: str) -> None:
        """Record that a lane has copied it, or has failed to."""
        self.lanes.discard(lane)
        for digest, names in list(self.released.items()):
            names.discard(lane)
            if not names:  # thousands of images may wait for a slow lane
                del self.released[digest]
