"""Tags are read as versions, and ranges choose among them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import UsageError
from concil.plan.versions import Version, VersionRange


def version(tag: str) -> Version:
    found = Version.parse(tag)
    assert found is not None, tag
    return found


@pytest.mark.parametrize(
    "tag",
    ["", "latest", "v", "1.2.3.4", "1..2", "1.2-", "a1", "٣", "1.2.3+build", "9" * 19, "sha256-ab"],
)
def test_what_is_no_version(tag: str) -> None:
    assert Version.parse(tag) is None


def test_versions_stand_in_the_order_of_semantic_versioning() -> None:
    ordered = [
        *("0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"),
        *("1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "v1.0.1", "1.2", "1.10", "2-1", "2"),
    ]

    shuffled = random.Random(1).sample(ordered, len(ordered))

    assert sorted(shuffled, key=version) == ordered


def test_missing_numbers_are_zero() -> None:
    assert version("v1") == version("1.0") == version("1.0.0") < version("1.0.1")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1.2.3", "1.2.3 v1.2.3", "1.2.4 1.2.3-rc1"),
        ("1.2", "1.2 1.2.0 1.2.9", "1.3 1.1.9"),
        ("1", "1 1.0 1.9.9", "2 0.9"),
        ("*", "0.0.1 999.1", "1.0-rc"),
        ("1.x", "1.0 1.9.9", "2 0.1"),
        ("1.2.*", "1.2.0 1.2.7", "1.3"),
        (">=1.2, <2", "1.2 1.9.9", "1.1.9 2.0.0 2 1.5-rc1"),
        (">=1.2 <2", "1.2 1.9.9", "2"),
        (">1.2", "1.3 2", "1.2 1.2.5"),
        (">1.2.3", "1.2.4", "1.2.3"),
        ("<=1.2", "1.2 1.2.9 1.0", "1.3"),
        ("<=1.2.3", "1.2.3 1.2.2", "1.2.4"),
        ("^1.2.3", "1.2.3 1.9", "1.2.2 2"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^0", "0 0.9.9", "1"),
        ("^1", "1 1.9", "2"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3 1.2.2"),
        ("~1.2", "1.2 1.2.9", "1.3"),
        ("~1", "1 1.9", "2"),
        ("~>1.4", "1.4.9", "1.5"),
        ("!=1.2, >=1", "1.1 1.3", "1.2.4 0.9"),
        ("1.2 - 1.4", "1.2 1.3.9 1.4.9", "1.5 1.1"),
        ("<1 || >=3", "0.9 3.1", "1 2.9"),
        (">=1.0.0-rc.1, <2", "1.0.0-rc.1 1.0.0-rc.2 1.0 1.5-beta", "1.0.0-beta"),
    ],
)
def test_ranges(text: str, inside: str, outside: str) -> None:
    found = VersionRange.parse(text)

    assert [tag for tag in inside.split() if version(tag) not in found] == []
    assert [tag for tag in outside.split() if version(tag) in found] == []


@pytest.mark.parametrize(
    "text",
    ["", " ", "||", "a", ">=", "1.2.3.4", "1.x.3", ">=1 and <2", "1 ||", "=>1", "^^1", "1 -"],
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="not a range of versions"):
        VersionRange.parse(text)


@given(st.text(alphabet="0123456789.xX*v<>=~^!|, -ab", max_size=30))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        found = VersionRange.parse(text)
    except UsageError:
        return
    assert version("1.2.3") in found or version("1.2.3") not in found
