"""Rates are written in one way, on the command line and in a plan."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from concil.cli.options import rates
from concil.config import HostLimits
from concil.plan.formats.toml_hosts import parse_host_limits

MIB = 1024**2


def in_plan(field: str) -> Callable[[str], HostLimits]:
    def parse(text: str) -> HostLimits:
        document = {"h.example": {field: text}}
        return parse_host_limits(document, "", "plan.toml")["h.example"]

    return parse


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000000", 1_000_000),
        ("50k", 50 * 1024),
        ("512K", 512 * 1024),
        ("50M", 50 * MIB),
        ("50MB", 50 * MIB),
        ("50MiB", 50 * MIB),
        ("1.5M", 3 * MIB // 2),
        ("1g", 1024 * MIB),
    ],
)
def test_bytes_a_second(text: str, rate: int) -> None:
    assert rates.parse_bandwidth(text) == rate
    assert in_plan("bandwidth")(text) == HostLimits(bandwidth=rate)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("20", 20), ("20/s", 20), ("20/sec", 20), ("90/min", 1.5), ("7200/h", 2), ("0.5/s", 0.5)],
)
def test_requests_a_second(text: str, rate: float) -> None:
    assert rates.parse_request_rate(text) == rate
    assert in_plan("rate")(text) == HostLimits(requests=rate)
