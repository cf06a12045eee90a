"""Images wait in the queue of their lane; they are read when a lane needs one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from concil.engine.copies.item_queues import MAIN_LANE, ItemQueues
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import WAIT


class Queues:
    """Queues of numbered images: even ones are for two lanes, odd ones for the main lane."""

    def __init__(self, count: int) -> None:
        self.read_count = 0
        self.cancel = threading.Event()
        self.queues = ItemQueues(self._items(count), self._assign, self.cancel)

    def lane(self, name: str) -> Iterator[str]:
        return (item.source for item in self.queues.items_of(name))

    def _items(self, count: int) -> Iterator[MirrorItem]:
        for number in range(count):
            self.read_count += 1
            yield MirrorItem(str(number), "target")

    @staticmethod
    def _assign(item: MirrorItem) -> list[tuple[str, MirrorItem]]:
        lanes = (MAIN_LANE,) if int(item.source) % 2 else ("a", "b")
        return [(lane, item) for lane in lanes]


def test_every_lane_gets_its_images_in_their_order() -> None:
    queues = Queues(6)

    assert list(queues.lane("a")) == ["0", "2", "4"]
    assert list(queues.lane("b")) == ["0", "2", "4"]
    assert list(queues.lane(MAIN_LANE)) == ["1", "3", "5"]


def test_images_are_read_when_a_lane_has_none_left() -> None:
    queues = Queues(6)
    fast, slow = queues.lane("a"), queues.lane("b")

    assert [next(fast), next(fast)] == ["0", "2"]
    assert queues.read_count == 3
    assert [next(slow), next(slow)] == ["0", "2"]
    assert queues.read_count == 3


def test_the_main_lane_reads_no_further_than_others_need() -> None:
    queues = Queues(6)
    main, other = queues.lane(MAIN_LANE), queues.lane("a")
    assert next(other) == "0"
    assert next(main) == "1"
    with ThreadPoolExecutor(1) as executor:
        second = executor.submit(next, main)
        assert next(other) == "2"  # whoever reads it: image 3 is read by the main lane after this
        assert second.result(WAIT) == "3"
    assert queues.read_count == 4


def test_nothing_is_started_after_the_end() -> None:
    queues = Queues(6)
    assert next(queues.lane("a")) == "0"

    queues.queues.stop()

    assert [list(queues.lane(name)) for name in ("a", "b", MAIN_LANE)] == [[], [], []]


def test_an_error_of_the_items_is_raised_and_ends_all() -> None:
    def broken() -> Iterator[MirrorItem]:
        yield MirrorItem("0", "target")
        raise ZeroDivisionError

    queues = ItemQueues(broken(), lambda item: [("a", item), ("b", item)], threading.Event())
    lane = queues.items_of("a")
    assert next(lane).source == "0"

    with pytest.raises(ZeroDivisionError):
        next(lane)
    assert len(list(queues.items_of("b"))) <= 1
