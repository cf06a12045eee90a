"""What answers tell of a quota, in every way that is in use."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from concil.http.throttle.ratelimit_headers import (
    Quota,
    format_duration,
    parse_quota,
    parse_throttling,
)
from tests.support.quick_retries import UNTIMED

HOURS = 21600.0
DOCKER = {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": "76;w=21600",
    "docker-ratelimit-source": "192.0.2.1",
}


def headers(**named: str) -> CaseInsensitiveDict[str]:
    return CaseInsensitiveDict({name.replace("_", "-"): value for name, value in named.items()})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (DOCKER, Quota(76, 100, HOURS, is_pull_quota=True)),
        ({"RateLimit-Remaining": "5"}, Quota(5)),
        (
            {
                "RateLimit-Limit": "100, 100;w=60",
                "RateLimit-Remaining": "50",
                "RateLimit-Reset": "30",
            },
            Quota(50, 100, 60, 30),
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=30", "RateLimit-Policy": "100;w=60"},
            Quota(50, 100, 60, 30),
        ),
        (
            {"RateLimit": '"default";r=0;t=7', "RateLimit-Policy": '"default";q=10;w=20'},
            Quota(0, 10, 20, 7),
        ),
        (
            {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"},
            Quota(0, 60, None, 9, is_standard=False),
        ),
        ({"X-RateLimit-Limit": "60"}, None),
        ({}, None),
        ({"RateLimit": "unlimited"}, None),
        ({"RateLimit-Remaining": "many"}, None),
        ({"RateLimit-Remaining": "-1"}, None),
        ({"RateLimit-Remaining": "\u00b2"}, None),
        ({"RateLimit-Remaining": "9" * 5000}, None),
    ],
)
def test_a_quota_is_read(told: dict[str, str], expected: Quota | None) -> None:
    assert parse_quota(CaseInsensitiveDict(told)) == expected


def test_a_reset_may_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)

    for reset, seconds in (("2000000090", 90.0), ("1999999999", 0.0)):
        found = parse_quota(headers(X_RateLimit_Remaining="1", X_RateLimit_Reset=reset))
        assert found is not None
        assert found.reset_after == seconds


NAMES = [f"{x}RateLimit{rest}" for x in ("", "X-") for rest in ("", "-Remaining", "-Limit")]


@UNTIMED
@given(st.dictionaries(st.sampled_from([*NAMES, "RateLimit-Reset", "RateLimit-Policy"]), st.text()))
def test_nonsense_is_no_error(told: dict[str, str]) -> None:
    found = parse_quota(CaseInsensitiveDict(told))

    assert found is None or found.remaining >= 0


@pytest.mark.parametrize(
    ("quota", "wait"),
    [
        (Quota(0, 100, HOURS), HOURS),
        (Quota(0, 100, 60), 0.6),  # one of a hundred is renewed, as far as anybody knows
        (Quota(0, 100, 60, reset_after=40), 40),
        (Quota(0), None),
    ],
)
def test_how_long_to_wait(quota: Quota, wait: float | None) -> None:
    assert quota.wait_time == wait
    assert quota.is_short == (wait is not None and wait <= 300)


@pytest.mark.parametrize(
    ("status", "told", "content", "spent"),
    [
        (429, {}, b"toomanyrequests: You have reached your pull rate limit. You may", True),
        (429, {}, b"You have reached your unauthenticated pull rate limit. https://", True),
        (429, {}, b"Too Many Requests", False),
        (429, {}, b"TOOMANYREQUESTS: Rate exceeded", False),
        (200, {}, b"pull rate limit", False),
        (429, {"RateLimit-Remaining": "0;w=21600"}, b"", True),
        (429, {"RateLimit-Remaining": "3;w=21600"}, b"", False),
        (429, {"RateLimit-Remaining": "0;w=60"}, b"", False),
        (429, {"RateLimit-Remaining": "0"}, b"", False),
        (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}, b"", True),
        (
            429,
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600", "Retry-After": "5"},
            b"",
            False,
        ),
        (
            429,
            {
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": "3600",
                "Retry-After": "Tue, 29 Oct 2002 19:50:44 GMT",
            },
            b"",
            False,
        ),
    ],
)
def test_a_refusal_for_hours_is_told_from_one_for_a_moment(
    status: int, told: dict[str, str], content: bytes, spent: bool
) -> None:
    found = parse_throttling(status, CaseInsensitiveDict(told), content)

    assert found.is_quota_exhausted == spent


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (29, "29 s"), (90, "2 min"), (3600, "1 h"), (7800, "2 h 10 min")],
)
def test_a_time_is_said_as_people_do(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said
