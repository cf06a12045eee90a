"""Tags in order, and no more dates asked for than that takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from concil.plan.selection.order import SortOrder
from concil.plan.tag_filter import TagFilter

DAY = 24 * 3600.0
NOW = 1000 * DAY
# Tags and the age of their images in days; None: it has no date.
AGES = {"v1.2": 40, "v1.10": 10, "edge": 1, "v1.9": 20, "nightly": None, "v2": 100, "build-9": 3}


class Dates:
    """Knows the dates of images, and which of them it was asked for."""

    def __init__(self, ages: dict[str, int | None]) -> None:
        self._ages = ages
        self.asked: list[str] = []

    def find(self, tags: Sequence[str]) -> list[float | None]:
        self.asked += tags
        ages = [self._ages[tag] for tag in tags]
        return [None if age is None else NOW - age * DAY for age in ages]


def select(tag_filter: TagFilter) -> list[str]:
    return list(tag_filter.select(iter(AGES), tag_filter.order(NOW), Dates(AGES).find))


@pytest.mark.parametrize(
    ("tag_filter", "expected"),
    [
        (TagFilter(keep=3), ["edge", "build-9", "v1.10"]),
        (TagFilter(keep=1, sort=SortOrder.SEMVER), ["v2"]),
        (TagFilter(keep=99, sort=SortOrder.SEMVER), ["v2", "v1.10", "v1.9", "v1.2"]),
        (TagFilter(keep=3, sort=SortOrder.ALPHANUMERIC), ["v2", "v1.10", "v1.9"]),
        (TagFilter(latest=2), ["v2", "v1.10"]),
        (TagFilter(latest=2, sort=SortOrder.CREATED), ["edge", "build-9"]),
        (TagFilter(newer_than=15 * DAY), ["v1.10", "edge", "build-9"]),
        (TagFilter(newer_than=15 * DAY, sort=SortOrder.SEMVER), ["v1.10", "edge", "build-9"]),
        (TagFilter(newer_than=30 * DAY, latest=1), ["v1.10"]),
        (TagFilter(newer_than=30 * DAY, keep=9), ["edge", "build-9", "v1.10", "v1.9"]),
        (TagFilter(names=("v2", "gone"), keep=1), ["v2", "gone", "edge"]),
        (TagFilter(keep=2, pattern=re.compile("v.*")), ["v1.10", "v1.9"]),
        (
            TagFilter(sort=SortOrder.CREATED),
            ["edge", "build-9", "v1.10", "v1.9", "v1.2", "v2", "nightly"],
        ),
        (
            TagFilter(sort=SortOrder.SEMVER),
            ["v2", "v1.10", "v1.9", "v1.2", "nightly", "edge", "build-9"],
        ),
    ],
)
def test_tags_are_ordered_and_limited(tag_filter: TagFilter, expected: list[str]) -> None:
    assert select(tag_filter) == expected


def test_numbers_in_names_are_compared_as_numbers() -> None:
    names = ["build-10", "build-9", "build", "2024-01-31", "2023-12-01"]

    ordered = TagFilter(sort=SortOrder.ALPHANUMERIC).select(iter(names))

    assert list(ordered) == ["build-10", "build-9", "build", "2024-01-31", "2023-12-01"]


def test_versions_are_asked_for_their_dates_only_until_there_are_enough() -> None:
    ages: dict[str, int | None] = {f"1.{number}": 1 for number in range(500)}
    dates, tag_filter = Dates(ages), TagFilter(latest=3, newer_than=30 * DAY)

    selected = list(tag_filter.select(iter(ages), tag_filter.order(NOW), dates.find))

    assert selected == ["1.499", "1.498", "1.497"]
    assert len(dates.asked) < 20


def test_without_an_order_images_are_copied_while_tags_are_listed() -> None:
    ages: dict[str, int | None] = {f"1.{number}": 1 for number in range(500)}
    dates, tag_filter = Dates(ages), TagFilter(newer_than=30 * DAY)

    first = next(tag_filter.select(iter(ages), tag_filter.order(NOW), dates.find))

    assert first == "1.0"
    assert len(dates.asked) < 100


@pytest.mark.parametrize("tag_filter", [TagFilter(latest=2), TagFilter(sort=SortOrder.SEMVER)])
def test_versions_alone_need_no_dates(tag_filter: TagFilter) -> None:
    dates = Dates({})

    list(tag_filter.select(iter(AGES), tag_filter.order(NOW), dates.find))

    assert dates.asked == []


@pytest.mark.parametrize(
    ("tag_filter", "count"),
    [(TagFilter(newer_than=15 * DAY), 1), (TagFilter(keep=2), 1), (TagFilter(keep=7), 0)],
)
def test_tags_without_date_that_are_left_out_are_counted(tag_filter: TagFilter, count: int) -> None:
    order = tag_filter.order(NOW)

    list(tag_filter.select(iter(AGES), order, Dates(AGES).find))

    assert order.undated.count == count
    assert str(order.undated) == "nightly" * count


def test_a_message_names_some_of_many_tags() -> None:
    order = TagFilter(newer_than=DAY).order(NOW)

    list(
        TagFilter(newer_than=DAY).select(map(str, range(9)), order, lambda tags: [None] * len(tags))
    )

    assert str(order.undated) == "0, 1, 2, 3, 4 and 4 more"


@pytest.mark.parametrize(
    ("tag_filter", "covered"),
    [
        (TagFilter(keep=1), True),
        (TagFilter(newer_than=DAY), True),
        (TagFilter(keep=1, sort=SortOrder.SEMVER), False),
        (TagFilter(latest=1), False),
        (TagFilter(latest=1, sort=SortOrder.CREATED), True),
    ],
)
def test_only_versions_are_covered_where_versions_are_counted(
    tag_filter: TagFilter, covered: bool
) -> None:
    assert tag_filter.is_match("1.2")
    assert tag_filter.is_match("edge") is covered
