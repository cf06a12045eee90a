"""Limits on requests and bytes: how they are written, and that a run keeps them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pytest

from concil.cli.argument_parser import parse_arguments
from concil.cli.options import rates, settings
from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.images import make_image, put_image
from tests.support.rate_limited_front import RateLimitedFront, TokenBucket


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s", 20),
        ("20", 20),
        ("0.5/s", 0.5),
        ("600/m", 10),
        ("90/minute", 1.5),
        ("7200/h", 2),
        ("60/hour", 1 / 60),
    ],
)
def test_requests_are_a_number_and_a_time(text: str, rate: float) -> None:
    assert rates.parse_request_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("4096", 4096),
        ("1k", 1024),
        ("500K", 500 * 1024),
        ("50M", 50 * 1024**2),
        ("1.5m", 3 * 1024**2 // 2),
        ("1g", 1024**3),
    ],
)
def test_bytes_are_written_as_curl_has_them(text: str, rate: int) -> None:
    assert rates.parse_bandwidth(text) == rate


WRONG_REQUESTS = ("0", "-1/s", "fast", "20/d", "59/h", "", "1e3", "nan", "\u0665", "9" * 400)
WRONG_BYTES = ("0", "1", "1023", "50MX", "50 M", "50M/s", "-5M", "", "inf", "\u0665M", "9" * 400)


@pytest.mark.parametrize(
    ("option", "word"),
    [("--limit-requests", word) for word in WRONG_REQUESTS]
    + [("--limit-rate", word) for word in WRONG_BYTES],
)
def test_invalid_rate_is_an_error(cli: Cli, option: str, word: str) -> None:
    assert_fails(cli("copy", f"{option}={word}", "a", "b"), 2, option, "write ")


def test_both_are_settings_of_the_run() -> None:
    words = ("copy", "--limit-requests=600/m", "--limit-rate=2k", "a", "b")
    config = settings.build_config(parse_arguments(words))

    assert (config.requests, config.bandwidth) == (10, 2048)


def test_a_verb_without_them_has_no_limits() -> None:
    found: argparse.Namespace = parse_arguments(("tags", "x"))

    assert settings.build_config(found).requests is None


def test_a_mirror_makes_no_more_requests_than_it_may(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    for number in range(4):
        put_image(registry.url, f"app{number}", "v1", make_image(number, [10]))
    with RateLimitedFront(registry.host, TokenBucket(10**6, 10**6)) as front:
        names = [f"http://{front.host}/app{number}:v1" for number in range(4)]
        (tmp_path / "list").write_text("\n".join(names))
        began = time.monotonic()

        result = cli(
            "mirror", jobs, "--limit-requests=20/s", tmp_path / "list", f"http://{front.host}/to"
        )

    assert result.code == 0
    # Only a lower bound: a busy machine makes it longer. A few requests may come at once.
    count = len(front.requests)
    assert count > 20
    assert time.monotonic() - began >= (count - 4) / 20
