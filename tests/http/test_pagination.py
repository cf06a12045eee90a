"""Link headers: where the next page is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.http.pagination import parse_next_link
from tests.support.quick_retries import UNTIMED


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<a>; rel="next"', "a"),
        ("<a>; rel=next", "a"),
        ("<a>;rel=NEXT", "a"),
        ("a; rel=next", "a"),
        ('<a?x=1,2;3>; rel="next"', "a?x=1,2;3"),
        ('<a>; title="x, rel=next"; rel="next"', "a"),
        ('<a>; rel="first next"', "a"),
        ('<a>; rel="prev", <b>; rel="next"', "b"),
        ("<a>, <b>; rel=next", "b"),
        ('<a>; title="rel=next"', None),
        ('<a>; rel="nextx"', None),
        ('<a>; relx="next"', None),
        ("<a", None),
        ("<>; rel=next", None),
        ("", None),
    ],
)
def test_the_next_page(header: str, target: str | None) -> None:
    assert parse_next_link(header) == target


@UNTIMED
@given(st.text(max_size=60) | st.text('<>;,="nextrl \\', max_size=80))
def test_no_header_raises_anything(header: str) -> None:
    target = parse_next_link(header)

    assert target is None or target in header


@pytest.mark.parametrize(
    "header",
    [
        "a" * 6_000_000,
        "<" * 6_000_000,
        "<a>;" * 1_500_000,
        "<a>; rel=" * 600_000,
        "<a>; x=y" * 600_000,
        ", " * 3_000_000,
        '<a>; rel="' + "x" * 6_000_000,
    ],
)
def test_the_longest_header_takes_no_time(header: str) -> None:
    began = time.monotonic()

    parse_next_link(header)

    assert time.monotonic() - began < 10  # quadratic time would be hours
