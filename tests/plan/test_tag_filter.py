"""A filter chooses tags as they come, and reads no more of them than it must."""

from __future__ import annotations

import itertools
import re

import pytest

from concil.plan.tag_filter import TagFilter
from concil.plan.versions import VersionRange

TAGS = ["latest", "1.0", "1.1", "1.2-rc1", "1.10", "2.0", "edge", "1.9-alpine"]


def chosen(choice: TagFilter) -> list[str]:
    return list(choice.select(iter(TAGS)))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (TagFilter(), TAGS),
        (TagFilter(names=("edge", "gone", "edge")), ["edge", "gone"]),
        (TagFilter(pattern=re.compile(r"1\.\d+")), ["1.0", "1.1", "1.10"]),
        (TagFilter(pattern=re.compile(r"1\..")), ["1.0", "1.1"]),
        (TagFilter(version_range=VersionRange.parse("^1.1")), ["1.1", "1.10"]),
        (TagFilter(latest=2), ["2.0", "1.10"]),
        (TagFilter(latest=2, pattern=re.compile(r"1\..*")), ["1.10", "1.9-alpine"]),
        (TagFilter(latest=99), ["2.0", "1.10", "1.9-alpine", "1.2-rc1", "1.1", "1.0"]),
        (TagFilter(latest=1, names=("latest",)), ["latest", "2.0"]),
        (TagFilter(excluded=(re.compile(r".*-.*"), re.compile("edge"))), TAGS[:3] + TAGS[4:6]),
        (TagFilter(names=("edge",), excluded=(re.compile("e.*"),)), []),
        (
            TagFilter(pattern=re.compile(r"1.*"), version_range=VersionRange.parse(">=1.1, <3")),
            ["1.1", "1.10"],
        ),
    ],
)
def test_choices(choice: TagFilter, expected: list[str]) -> None:
    assert chosen(choice) == expected


def test_listed_tags_alone_ask_for_no_listing() -> None:
    asked = iter(["read"])

    assert list(TagFilter(names=("a", "b")).select(asked)) == ["a", "b"]
    assert list(asked) == ["read"]
    assert not TagFilter(names=("a",)).needs_listing
    assert TagFilter().needs_listing


def test_tags_are_taken_as_they_come() -> None:
    endless = map(str, itertools.count())

    first = itertools.islice(TagFilter(pattern=re.compile(r"\d*7")).select(endless), 3)

    assert list(first) == ["7", "17", "27"]
