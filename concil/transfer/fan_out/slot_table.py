"""SlotTable: which bytes of one blob are in which slots of the spool."""

from __future__ import annotations

from concil.runtime.dataclass import dataclass
from concil.transfer.fan_out.spool import SLOT_SIZE, Spool


@dataclass(slots=True)
class Slot:
    """A slot of the spool, with bytes ``start`` to ``stop`` of a blob."""

    number: int
    start: int
    stop: int
    pin_count: int = 0  # threads that read or write it: it must not be reused
    is_dropped: bool = False  # released with its last pin


class SlotTable:
    """The slots of one blob, each with bytes of one aligned part of it.

    Methods are called under the lock of the fan-out, except those of the spool itself.
    """

    def __init__(self, spool: Spool) -> None:
        """Create an empty table."""
        self._spool = spool
        self._slots: dict[int, Slot] = {}  # by index of the part; the oldest first

    @property
    def stop(self) -> int:
        """The byte after the last one in any slot; 0 if there is none."""
        return max((slot.stop for slot in self._slots.values()), default=0)

    def has_slot_at(self, position: int) -> bool:
        """Whether the part with a position has a slot, with or without these bytes."""
        return position // SLOT_SIZE in self._slots

    def add(self, number: int, position: int) -> None:
        """Use slot ``number`` of the spool for the bytes from a position on."""
        self._slots[position // SLOT_SIZE] = Slot(number, position, position)

    def find(self, position: int) -> Slot | None:
        """Return the slot that has the byte at a position; None: there is none."""
        slot = self._slots.get(position // SLOT_SIZE)
        return slot if slot is not None and slot.start <= position < slot.stop else None

    def pin(self, position: int) -> Slot | None:
        """Pin the slot that has the byte at a position; None: there is none."""
        slot = self.find(position)
        if slot is not None:
            slot.pin_count += 1
        return slot

    def pin_end(self, position: int) -> Slot | None:
        """Pin the slot that ends at a position, to append to it; None: there is none."""
        slot = self._slots.get(position // SLOT_SIZE)
        if slot is None or slot.stop != position:
            return None
        slot.pin_count += 1
        return slot

    def unpin(self, slot: Slot) -> None:
        """Unpin a slot."""
        slot.pin_count -= 1
        if slot.is_dropped and not slot.pin_count:
            self._spool.release(slot.number)

    def next_start(self, position: int) -> int | None:
        """Return the first byte after a position at which a slot with bytes begins."""
        starts = [slot.start for slot in self._slots.values() if slot.stop > slot.start]
        return min((start for start in starts if start > position), default=None)

    def is_behind(self, position: int) -> bool:
        """Whether there are bytes from a position on."""
        return any(slot.stop > position for slot in reversed(self._slots.values()))

    def reclaim(self, needed_from: int) -> int | None:
        """Remove the oldest slot if its bytes are below ``needed_from``; return its number."""
        index, slot = next(iter(self._slots.items()), (0, None))
        if slot is None or slot.stop > needed_from or slot.pin_count:
            return None
        del self._slots[index]
        return slot.number

    def drop_all(self) -> None:
        """Remove all slots; those that are pinned are released when they are unpinned."""
        for slot in self._slots.values():
            slot.is_dropped = True
            if not slot.pin_count:
                self._spool.release(slot.number)
        self._slots.clear()
