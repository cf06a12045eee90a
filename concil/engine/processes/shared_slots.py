"""Slots of the processes of a run: how many threads of all of them may do something at once."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import field
from typing import TypeAlias

from concil.runtime.dataclass import dataclass

# The process, and the number of its request.
Holder: TypeAlias = tuple[object, int]


@dataclass(slots=True)
class _Slots:
    holders: set[Holder] = field(default_factory=set)
    waiting: deque[tuple[Holder, int, Callable[[], object]]] = field(default_factory=deque)


class SharedSlots:
    """Semaphores by name, first come, first served. Any thread may call any method."""

    def __init__(self) -> None:
        """Start with all slots free."""
        self._lock = threading.Lock()  # guards the field below
        self._slots: defaultdict[str, _Slots] = defaultdict(_Slots)

    def acquire(
        self, name: str, limit: int, holder: Holder, on_acquired: Callable[[], object]
    ) -> None:
        """Call ``on_acquired`` as soon as fewer than ``limit`` others hold a slot."""
        with self._lock:
            slots = self._slots[name]
            slots.waiting.append((holder, limit, on_acquired))
            acquired = self._pop_acquired(slots)
        for call in acquired:
            call()

    def release(self, name: str, holder: Holder) -> None:
        """Release a slot, or stop waiting for one."""
        with self._lock:
            acquired = self._release(name, lambda other: other == holder)
        for call in acquired:
            call()

    def release_all(self, process: object) -> None:
        """Release the slots of a process that has ended."""
        with self._lock:
            acquired = [
                call
                for name in list(self._slots)
                for call in self._release(name, lambda holder: holder[0] is process)
            ]
        for call in acquired:
            call()

    def _release(
        self, name: str, is_released: Callable[[Holder], bool]
    ) -> list[Callable[[], object]]:
        """Release slots; return the calls for those who have one now. The lock is held."""
        slots = self._slots[name]
        slots.holders = {holder for holder in slots.holders if not is_released(holder)}
        slots.waiting = deque(each for each in slots.waiting if not is_released(each[0]))
        acquired = self._pop_acquired(slots)
        if not slots.holders:
            del self._slots[name]
        return acquired

    def _pop_acquired(self, slots: _Slots) -> list[Callable[[], object]]:
        acquired: list[Callable[[], object]] = []
        while slots.waiting and len(slots.holders) < slots.waiting[0][1]:
            holder, _, on_acquired = slots.waiting.popleft()
            slots.holders.add(holder)
            acquired.append(on_acquired)
        return acquired
