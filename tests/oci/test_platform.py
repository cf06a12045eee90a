"""Platforms: their names, this machine's, and misspelt ones."""

from __future__ import annotations

import platform
import sys

import pytest

from concil.errors import InvalidManifest
from concil.oci.platform import COMMON_PLATFORMS, Platform, find_similar_platform


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("AMD64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("i686", "linux/386"),
        ("s390x", "linux/s390x"),
    ],
)
def test_local_is_the_platform_of_containers_here(
    monkeypatch: pytest.MonkeyPatch, machine: str, expected: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "darwin")

    assert str(Platform.parse("local")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amd64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd46", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("windows/amd46", "windows/amd64"),
        ("linux/", ""),
        ("linux/zzz", ""),
        ("plan9/amd64", ""),
    ],
)
def test_the_platform_that_was_meant(text: str, expected: str) -> None:
    assert find_similar_platform(text, COMMON_PLATFORMS) == expected


def test_an_architecture_alone_is_answered_with_a_platform() -> None:
    with pytest.raises(InvalidManifest, match="not a platform: 'amd64'") as raised:
        Platform.parse("amd64")

    assert raised.value.remedy.endswith("did you mean linux/amd64?")
