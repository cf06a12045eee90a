"""Readers of a change log get each change once, and learn when they have missed some."""

from __future__ import annotations

from concil.progress import change_log
from concil.progress.change_log import ChangeLog


def test_a_reader_gets_the_records_that_changed_since_its_version() -> None:
    log: ChangeLog[str] = ChangeLog()
    for number, record in enumerate("abc"):
        log.touch(number, record)
    first = log.since(0, 10)
    log.touch(0, "a")
    log.remove(1)

    assert first is not None
    assert first.records == [(0, "a"), (1, "b"), (2, "c")]
    second = log.since(first.version, 10)
    assert second is not None
    assert (second.records, second.removed) == ([(0, "a")], [1])
    third = log.since(second.version, 10)
    assert third is not None
    assert (third.records, third.removed) == ([], [])
    assert log.records() == [(2, "c"), (0, "a")]


def test_many_changes_come_in_parts_that_make_the_whole() -> None:
    log: ChangeLog[int] = ChangeLog()
    for number in range(10):
        log.touch(number, number)
    log.remove(0)
    log.touch(5, 5)

    seen, removed, version = [], [], 0
    while version < log.version:
        part = log.since(version, 3)
        assert part is not None
        assert len(part.records) <= 3
        seen += [record for _, record in part.records]
        removed += part.removed
        version = part.version

    assert seen == [1, 2, 3, 4, 6, 7, 8, 9, 5]
    assert removed == [0]


def test_a_reader_that_is_too_far_behind_has_to_start_again() -> None:
    log: ChangeLog[int] = ChangeLog()
    for number in range(change_log._MAX_REMOVED + 1):
        log.touch(number, number)
        log.remove(number)

    assert log.since(0, 10) is None
    assert log.since(log.version, 10) is not None
    assert log.since(log.version + 1, 10) is None  # of another log
    assert len(log) == 0
