"""Archives on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.images import DOCKER, make_image, make_index, put_image


@pytest.fixture
def address(registry: EmbeddedRegistry) -> str:
    """Return a repository that has an index under `multi` and an image under `one`."""
    images = [make_image(n, platform=p) for n, p in enumerate(("linux/amd64", "linux/arm64"))]
    put_image(registry.url, "team/app", "multi", make_index(images))
    put_image(registry.url, "team/app", "one", make_image(3, types=DOCKER))
    return f"{registry.host}/team/app"


def test_verbs_describe_an_archive_as_they_describe_a_layout(
    cli: Cli, address: str, tmp_path: Path, jobs: str
) -> None:
    archive = f"oci-archive:{tmp_path}/a.tar"

    copied = cli("copy", jobs, f"{address}:multi", f"{archive}:v1")

    digest = cli("digest", f"{address}:multi").lines[0]
    assert copied.code == 0
    assert copied.lines == [f"{archive}@{digest}"]
    assert cli("tags", archive).lines == ["v1"]
    assert cli("digest", archive).lines == [digest]
    assert cli("manifest", f"{archive}:v1").raw == cli("manifest", f"{address}:multi").raw
    inspected = json.loads(cli("inspect", "--platform=linux/arm64", archive).out)
    assert inspected["architecture"] == "arm64"
    assert_fails(cli("delete", f"{archive}:v1"), 2, "cannot be changed in place", "a new archive")


def test_docker_archive_is_written_read_and_described(
    cli: Cli, address: str, tmp_path: Path, jobs: str
) -> None:
    archive = f"docker-archive:{tmp_path}/a.tar"

    copied = cli("copy", jobs, f"{address}:one", f"{archive}:app:1")

    assert copied.lines == [f"{archive}:docker.io/library/app:1"]
    assert cli("tags", archive).lines == ["docker.io/library/app:1"]
    digest = cli("digest", archive).lines[0]
    assert cli("digest", f"{archive}@{digest}").lines == [digest]
    assert json.loads(cli("inspect", archive).out)["labels"] == {"seed": "3"}
    back = cli("copy", jobs, archive, f"{address}:back")
    assert back.lines == [f"{address}@{digest}"]
    assert_fails(cli("delete", f"{archive}:app:1"), 2, "cannot be changed in place")
    assert_fails(cli("copy", f"{address}:one", f"{archive}:app:2"), 2, "cannot be added to")
    assert_fails(
        cli("copy", f"{address}:multi", f"docker-archive:{tmp_path}/b.tar:app"),
        2,
        "linux/amd64, linux/arm64",
        "--platform",
    )
    assert_fails(cli("copy", f"{address}:one", f"docker-archive:{tmp_path}/b.tar:@0"), 2, "@0")
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_mirror_into_an_archive_and_from_an_archive(
    cli: Cli, address: str, tmp_path: Path, jobs: str, scheme: str
) -> None:
    listed = tmp_path / "images"
    listed.write_text(f"{address}:one\n{address}:one -> other/app:2\n{address}:absent\n")
    archive = f"{scheme}:{tmp_path}/a.tar"

    mirrored = cli("mirror", jobs, listed, archive)

    assert mirrored.code == 3
    assert f"{address}:absent" in mirrored.err
    other = "docker.io/other/app:2" if scheme == "docker-archive" else "other/app:2"
    assert sorted(cli("tags", archive).lines) == sorted([f"{address}:one", other])
    digest = cli("digest", f"{archive}:{other}").lines[0]
    listed.write_text(f"{archive}:{address}:one\n")
    host = address.partition("/")[0]
    assert cli("mirror", jobs, listed, f"{host}/again").code == 0
    assert cli("digest", f"{host}/again/team/app:one").lines == [digest]


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_bad_archives_are_one_line(cli: Cli, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 200)

    for verb in ("tags", "digest", "manifest", "inspect"):
        assert_fails(cli(verb, f"{scheme}:{tmp_path}/a.tar"), 1, "not a tar archive", "a.tar")
        assert_fails(cli(verb, f"{scheme}:{tmp_path}/no.tar"), 4, "no archive", "no.tar")
        assert_fails(cli(verb, f"{scheme}:{tmp_path}"), 2, "not a regular file")
