"""Numbers as people read them: binary units, clocks and plurals."""

from __future__ import annotations

import pytest

from concil.runtime.quantities import count_of, format_rate, format_size, format_time_left

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (96 * MIB, "96.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert format_size(count) == text


def test_rates_have_the_units_of_sizes() -> None:
    assert format_rate(24 * MIB) == "24.0 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00"), (-3, "00:00"), (75.4, "01:15"), (3615, "1:00:15"), (90_000, "1d 01:00")],
)
def test_times_are_those_of_clocks(seconds: float, text: str) -> None:
    assert format_time_left(seconds) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "image", "2 images"),
        (1, "repository", "1 repository"),
        (2, "repository", "2 repositories"),
    ],
)
def test_one_is_not_many(count: int, noun: str, text: str) -> None:
    assert count_of(count, noun) == text
