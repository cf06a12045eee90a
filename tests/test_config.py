"""Settings under which nothing would move are refused, and hosts are found by either name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from concil.config import HostLimits, TransferConfig
from concil.errors import UsageError
from concil.oci.reference import display_host, limits_by_api_host

SLOW = HostLimits(jobs=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": 0},
        {"requests": -1.0},
        {"requests": math.nan},
        {"requests": math.inf},
        {"bandwidth": 0},
        {"bandwidth": 1023},
    ],
)
@pytest.mark.parametrize("kind", [HostLimits, TransferConfig])
def test_a_rate_that_is_none_is_refused(kind: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be at least"):
        kind(**wrong)


def test_a_host_without_jobs_is_refused() -> None:
    with pytest.raises(UsageError, match="jobs of a host must be at least 1"):
        HostLimits(jobs=0)


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("docker.io", "registry-1.docker.io"),
        ("index.docker.io", "registry-1.docker.io"),
        ("GHCR.io", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_limits_are_found_by_the_host_that_serves(name: str, server: str) -> None:
    assert limits_by_api_host({name: SLOW}) == {server: SLOW}


@pytest.mark.parametrize("name", ["", "docker.io/library", "https://ghcr.io", "a b", "a:b"])
def test_limits_of_no_host_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="which is not a host"):
        limits_by_api_host({name: SLOW})


def test_two_names_of_one_host_are_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        limits_by_api_host({"docker.io": SLOW, "registry-1.docker.io": SLOW})


def test_a_host_is_told_as_people_write_it() -> None:
    assert display_host("registry-1.docker.io") == "docker.io"
    assert display_host("ghcr.io") == "ghcr.io"
