"""`--platform` of an image that is for one platform only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.images import make_image, put_image

AMD64 = make_image(1, platform="linux/amd64")
CONFIG = json.loads(AMD64.manifest)["config"]["digest"]


@pytest.fixture
def image(registry: EmbeddedRegistry) -> str:
    put_image(registry.url, "app", "v1", AMD64)
    return f"{registry.host}/app:v1"


@pytest.mark.parametrize("verb", ["digest", "manifest", "inspect"])
def test_another_platform_is_not_found(cli: Cli, image: str, verb: str) -> None:
    result = cli(verb, "--platform=linux/arm64", image)

    assert_fails(result, 4, "app:v1: no image for linux/arm64; it is for linux/amd64")


def test_another_platform_is_not_copied(
    cli: Cli, registry: EmbeddedRegistry, image: str, tmp_path: Path
) -> None:
    for destination in (f"oci:{tmp_path}/copy:v1", f"{registry.host}/copy:v1"):
        result = cli("copy", "--platform=linux/arm64", image, destination)

        assert_fails(result, 4, "no image for linux/arm64; it is for linux/amd64")
    assert cli("digest", f"{registry.host}/copy:v1").code == 4
    assert not list((tmp_path / "copy").glob("blobs/*/*"))


def test_another_platform_is_not_up_to_date_either(
    cli: Cli, registry: EmbeddedRegistry, image: str
) -> None:
    copy = f"{registry.host}/copy:v1"
    assert cli("copy", image, copy).code == 0

    assert_fails(cli("copy", "--platform=linux/arm64", image, copy), 4, "linux/arm64")
    assert_fails(cli("copy", "--platform=linux/arm64", "--recheck", image, copy), 4, "linux/arm64")


def test_its_own_platform_is_copied(cli: Cli, registry: EmbeddedRegistry, image: str) -> None:
    for number, names in enumerate(("linux/amd64", "linux/arm64,linux/amd64")):
        result = cli("copy", f"--platform={names}", image, f"{registry.host}/copy:{number}")

        assert result.code == 0, result.err
        assert result.lines == [f"{registry.host}/copy@{AMD64.digest}"]
    assert cli("digest", "--platform=linux/amd64", image).lines == [AMD64.digest]


def test_a_dry_run_finds_it_too(
    cli: Cli, registry: EmbeddedRegistry, image: str, tmp_path: Path
) -> None:
    images = tmp_path / "list"
    images.write_text(f"{image}\n")

    result = cli("mirror", "--dry-run", "--platform=linux/arm64", images, f"{registry.host}/m")

    assert result.code == 4
    assert "no image for linux/arm64" in result.err


def test_a_misspelt_platform_is_answered(cli: Cli, image: str) -> None:
    assert_fails(cli("digest", "--platform=x86_64", image), 2, "did you mean linux/amd64?")
    assert_fails(cli("digest", "--platform=linux/amd46", image), 4, "did you mean linux/amd64?")
