"""A filter chooses tags as they come, and reads no more of them than it must."""

from __future__ import annotations

import itertools
import re

import pytest

from concil.plan.tags import TagFilter
from concil.plan.versions import VersionRange

TAGS = ["latest", "1.0", "1.1", "1.2-rc1", "1.10", "2.0", "edge", "1.9-alpine"]


def chosen(choice: TagFilter) -> list[str]:
    return list(choice.choose(iter(TAGS)))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (TagFilter(), TAGS),
        (TagFilter(listed=("edge", "gone", "edge")), ["edge", "gone"]),
        (TagFilter(match=re.compile(r"1\.\d+")), ["1.0", "1.1", "1.10"]),
        (TagFilter(match=re.compile(r"1\..")), ["1.0", "1.1"]),
        (TagFilter(versions=VersionRange.parse("^1.1")), ["1.1", "1.10"]),
        (TagFilter(latest=2), ["2.0", "1.10"]),
        (TagFilter(latest=2, match=re.compile(r"1\..*")), ["1.10", "1.9-alpine"]),
        (TagFilter(latest=99), ["2.0", "1.10", "1.9-alpine", "1.2-rc1", "1.1", "1.0"]),
        (TagFilter(latest=1, listed=("latest",)), ["latest", "2.0"]),
        (TagFilter(exclude=(re.compile(r".*-.*"), re.compile("edge"))), TAGS[:3] + TAGS[4:6]),
        (TagFilter(listed=("edge",), exclude=(re.compile("e.*"),)), []),
        (
            TagFilter(match=re.compile(r"1.*"), versions=VersionRange.parse(">=1.1, <3")),
            ["1.1", "1.10"],
        ),
    ],
)
def test_choices(choice: TagFilter, expected: list[str]) -> None:
    assert chosen(choice) == expected


def test_listed_tags_alone_ask_for_no_listing() -> None:
    asked = iter(["read"])

    assert list(TagFilter(listed=("a", "b")).choose(asked)) == ["a", "b"]
    assert list(asked) == ["read"]
    assert not TagFilter(listed=("a",)).needs_listing
    assert TagFilter().needs_listing


def test_tags_are_taken_as_they_come() -> None:
    endless = map(str, itertools.count())

    first = itertools.islice(TagFilter(match=re.compile(r"\d*7")).choose(endless), 3)

    assert list(first) == ["7", "17", "27"]
