"""Titles are checked before they become paths."""

from __future__ import annotations

import pytest

from concil.engine.artifacts.titles import check_distinct, check_title
from concil.errors import UsageError

UNSAFE = [
    "",
    ".",
    "./",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc/x",
    "//x",
    "a\\b",
    "..\\x",
    "a\0b",
    "a\nb",
    "a\x1b[31mb",
    "a/",
    "x\udc80",
    "a" * 5000,
    ".concil/x",
    "./.concil/x",
    f"a/{64 * 'a'}.partial",
    f"{64 * 'a'}.partial.7-1",
]


@pytest.mark.parametrize("title", UNSAFE)
def test_unsafe_title_is_refused(title: str) -> None:
    with pytest.raises(UsageError, match="cannot be the title"):
        check_title(title)


@pytest.mark.parametrize(
    ("title", "path"),
    [
        ("a", "a"),
        ("a/b.txt", "a/b.txt"),
        ("./a//b", "a/b"),
        ("..a/b..", "..a/b.."),
        (".hidden", ".hidden"),
        ("größe　x", "größe　x"),
        (".concil.txt", ".concil.txt"),
    ],
)
def test_safe_title_is_normalized(title: str, path: str) -> None:
    assert check_title(title) == path


@pytest.mark.parametrize("titles", [["a", "a"], ["a", "a/b"], ["a/b/c", "a"], ["x", "a/b", "a"]])
def test_titles_that_share_a_path_are_refused(titles: list[str]) -> None:
    with pytest.raises(UsageError, match="title"):
        check_distinct(titles)


def test_titles_in_one_directory_are_distinct() -> None:
    check_distinct(["a/b", "a/c", "ab", "a.b"])
