"""A mirror ends when somebody wants it to, or when something is wrong with it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from concil.errors import Cancelled
from concil.transfer.image.copier import ImageJob
from concil.transfer.mirror.mirror import Mirror
from concil.transfer.mirror.report import MirrorItem
from tests.support.images import make_image
from tests.support.memory_store import MemoryStore
from tests.transfer.image_copies import TransferHarness, assert_same, create_harness
from tests.transfer.mirror.test_mirror import images_of, load_all
from tests.transfer.transfer_setup import WAIT


def test_items_that_end_in_an_error_end_the_mirror_with_it(harness: TransferHarness) -> None:
    images = images_of(3)
    items = load_all(harness, images)

    def broken() -> Iterator[MirrorItem]:
        yield from items
        raise OSError("the list broke off")

    with pytest.raises(OSError, match="broke off"):
        harness.mirror().run(broken(), 3)

    # What had been taken is finished.
    for number, image in enumerate(images):
        assert_same(harness.destination(f"app{number}"), "v1", image)


def test_cancel_ends_a_mirror_and_what_is_copied_stays(harness: TransferHarness) -> None:
    images = images_of(10)
    items = load_all(harness, images)

    def interrupted() -> Iterator[MirrorItem]:
        yield from items[:5]
        harness.pool.cancel.set()
        yield from items[5:]

    with pytest.raises(Cancelled):
        harness.mirror().run(interrupted(), 1)

    for number in range(5):
        assert_same(harness.destination(f"app{number}"), "v1", images[number])
    assert all(harness.destination(f"app{n}").names == {} for n in range(5, 10))


def test_cancel_in_the_middle_of_a_blob_ends_every_coordinator(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(10))
    for number in range(10):
        harness.source(f"app{number}").on_read = lambda position: harness.pool.cancel.set()

    with pytest.raises(Cancelled):
        harness.mirror().run(items, 4)

    assert all(store.names == {} for store in list(harness.host.repositories.values()))


class Interrupted(MemoryStore):
    """A repository at whose sight somebody presses Ctrl-C."""

    def find_manifest(self, reference: str) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("coordinators", [1, 4])
def test_interrupt_ends_the_mirror_at_once(harness: TransferHarness, coordinators: int) -> None:
    items = load_all(harness, images_of(20))
    asked: list[MirrorItem] = []

    def prepare(item: MirrorItem) -> ImageJob:
        asked.append(item)
        if item is items[3]:
            return harness.job(Interrupted(harness.origin, "broken"), harness.destination("x"))
        return harness.prepare(item)

    with pytest.raises(KeyboardInterrupt):
        Mirror(harness.copier, prepare, harness.pool.cancel).run(items, coordinators)

    assert len(asked) < 20


def test_error_nobody_thought_of_is_raised_and_not_lost(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(4))

    def prepare(item: MirrorItem) -> ImageJob:
        if item is items[2]:
            raise ZeroDivisionError
        return harness.prepare(item)

    with pytest.raises(ZeroDivisionError):
        Mirror(harness.copier, prepare, harness.pool.cancel).run(items, 4)


class OnlyForOthers:
    """Items that are given to every thread but the main one, which is told that there are none."""

    def __init__(self, items: list[MirrorItem], none_left: Callable[[], None]) -> None:
        self._items = iter(items)
        self._none_left = none_left

    def __iter__(self) -> Iterator[MirrorItem]:
        return self

    def __next__(self) -> MirrorItem:
        if threading.current_thread() is threading.main_thread():
            threading.Thread(target=self._none_left).start()
            raise StopIteration
        return next(self._items)


def running_in(thread: int) -> list[str]:
    """Return the functions that a thread is in."""
    frame = sys._current_frames().get(thread)
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_interrupt_while_waiting_for_the_others_ends_them_too() -> None:
    with create_harness(2) as lab:
        items = load_all(lab, [make_image(1, (900,)), make_image(2, (900,))])
        holding = threading.Event()

        def hold(position: int) -> None:
            holding.set()
            lab.pool.cancel.wait(WAIT)

        lab.source("app0").on_read = lab.source("app1").on_read = hold
        main = threading.main_thread().ident
        assert main is not None
        before = signal.signal(signal.SIGINT, signal.default_int_handler)

        def press() -> None:
            assert holding.wait(WAIT)
            while "join" not in running_in(main):
                holding.wait(0.001)
            # CPython sees a signal late that comes just before a lock is waited for.
            while not lab.pool.cancel.wait(0.2):
                signal.pthread_kill(main, signal.SIGINT)

        try:
            with pytest.raises(KeyboardInterrupt):
                lab.mirror().run(OnlyForOthers(items, press), 3)
        finally:
            signal.signal(signal.SIGINT, before)

        assert lab.pool.cancel.is_set()
        assert all(store.names == {} for store in list(lab.host.repositories.values()))
