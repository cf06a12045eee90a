"""Every verb does what it says, on a registry and on a layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails, assert_one_line
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    digest_of,
    make_blob,
    make_image,
    make_index,
    put_blob,
    put_image,
    write_layout,
)
from tests.support.skopeo import Skopeo

ABSENT = digest_of(b"nobody has this")


@pytest.fixture
def image() -> Image:
    """Return an index for two platforms with a layer that both share."""
    first = make_image(1, platform="linux/amd64")
    second = make_image(2, (5000,), platform="linux/arm64")
    return make_index([first, second])


@pytest.fixture
def layout(tmp_path: Path, image: Image) -> Path:
    write_layout(tmp_path / "layout", {"app:v1": image, "other:v2": make_image(7)})
    return tmp_path / "layout"


def test_copy_brings_an_image_with_all_its_platforms(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, image: Image, jobs: str
) -> None:
    result = cli("copy", jobs, f"oci:{layout}:app:v1", f"{registry.host}/app:v1")

    assert result.code == 0
    assert result.lines == [f"{registry.host}/app@{image.digest}"]
    assert_same_image(registry.url, "app", "v1", image)


def test_copy_says_on_standard_error_what_it_did_and_that_nothing_is_left_to_do(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, jobs: str
) -> None:
    words = ("copy", jobs, f"oci:{layout}:app:v1", f"{registry.host}/app:v1")

    first, second = cli(*words), cli(*words)

    assert "5 blobs sent" in first.err
    assert second.err == f"{registry.host}/app:v1 is up to date\n"
    assert second.out == first.out


def test_quiet_leaves_the_result_alone(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, image: Image
) -> None:
    result = cli("-q", "copy", f"oci:{layout}:app:v1", f"{registry.host}/app:v1")

    assert (result.err, result.lines) == ("", [f"{registry.host}/app@{image.digest}"])


def test_copy_takes_one_platform(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, image: Image, jobs: str
) -> None:
    wanted = image.children[1]

    result = cli(
        "copy", jobs, "--platform=linux/arm64", f"oci:{layout}:app:v1", f"{registry.host}/app:v1"
    )

    assert result.lines == [f"{registry.host}/app@{wanted.digest}"]
    assert_same_image(registry.url, "app", "v1", wanted)


def test_copy_into_a_layout_and_out_of_it_keeps_the_digest(
    cli: Cli, registry: EmbeddedRegistry, image: Image, tmp_path: Path, jobs: str
) -> None:
    put_image(registry.url, "app", "v1", image)

    there = cli("copy", jobs, f"{registry.host}/app:v1", f"oci:{tmp_path}/copy:app:v1")
    back = cli("copy", jobs, f"oci:{tmp_path}/copy:app:v1", f"{registry.host}/back:v1")

    assert there.lines == [f"oci:{tmp_path}/copy@{image.digest}"]
    assert back.lines == [f"{registry.host}/back@{image.digest}"]
    assert_same_image(registry.url, "back", "v1", image)


def test_the_address_that_copy_prints_can_be_copied_from(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, tmp_path: Path, jobs: str
) -> None:
    printed = cli("copy", jobs, f"oci:{layout}:app:v1", f"{registry.host}/app:v1").lines[0]

    assert cli("copy", jobs, printed, f"oci:{tmp_path}/copy:again").code == 0


def test_blob_push_head_and_pull(
    cli: Cli, registry: EmbeddedRegistry, tmp_path: Path, jobs: str
) -> None:
    content = make_blob(1, 300_000)
    (tmp_path / "file").write_bytes(content)
    descriptor = {
        "mediaType": "application/octet-stream",
        "digest": digest_of(content),
        "size": len(content),
    }
    address = f"{registry.host}/blobs@{digest_of(content)}"

    pushed = cli("blob", "push", jobs, tmp_path / "file", f"{registry.host}/blobs")
    asked = cli("blob", "head", address)
    pulled = cli("blob", "pull", jobs, address, "-o", tmp_path / "back")

    assert json.loads(pushed.out) == descriptor
    assert json.loads(asked.out) == descriptor
    assert (pulled.code, pulled.raw) == (0, b"")
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_blob_pull_pours_to_standard_output(
    cli: Cli, registry: EmbeddedRegistry, size: int
) -> None:
    content = make_blob(2, size)
    put_blob(registry.url, "blobs", content)

    result = cli("blob", "pull", f"{registry.host}/blobs@{digest_of(content)}", "-o", "-")

    assert (result.code, result.raw) == (0, content)


def test_blob_pull_from_a_layout(cli: Cli, layout: Path, image: Image) -> None:
    digest, content = next(iter(image.all_blobs().items()))

    result = cli("blob", "pull", f"oci:{layout}@{digest}", "-o", "-")

    assert result.raw == content


def test_blob_head_of_an_absent_blob_ends_with_code_4(cli: Cli, registry: EmbeddedRegistry) -> None:
    result = cli("blob", "head", f"{registry.host}/blobs@{ABSENT}")

    assert_fails(result, 4, ABSENT, "does not exist")


def test_tags_are_printed_one_a_line(cli: Cli, registry: EmbeddedRegistry) -> None:
    for tag in ("v1", "v2", "latest"):
        put_image(registry.url, "app", tag, make_image(1))

    assert sorted(cli("tags", f"{registry.host}/app").lines) == ["latest", "v1", "v2"]


def test_the_names_of_a_layout_are_its_tags(cli: Cli, layout: Path) -> None:
    assert cli("tags", f"oci:{layout}").lines == ["app:v1", "other:v2"]


@pytest.mark.parametrize("place", ["registry", "layout"])
def test_digest_manifest_and_inspect_read_both_kinds_of_places(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, image: Image, place: str
) -> None:
    put_image(registry.url, "app", "v1", image)
    address = {"registry": f"{registry.host}/app:v1", "layout": f"oci:{layout}:app:v1"}[place]
    arm = image.children[1]

    assert cli("digest", address).lines == [image.digest]
    assert cli("digest", "--platform=linux/arm64", address).lines == [arm.digest]
    assert cli("manifest", address).raw == image.manifest
    assert cli("manifest", "--platform=linux/arm64", address).raw == arm.manifest
    assert json.loads(cli("inspect", address).out)["digest"] == image.digest


def test_inspect_describes_an_index_by_its_platforms(cli: Cli, layout: Path, image: Image) -> None:
    found = json.loads(cli("inspect", f"oci:{layout}:app:v1").out)

    assert found["name"] == f"oci:{layout}:app:v1"
    assert found["mediaType"] == image.media_type
    assert found["size"] == len(image.manifest)
    assert [(each["platform"], each["digest"]) for each in found["manifests"]] == [
        (child.platform, child.digest) for child in image.children
    ]


def test_inspect_describes_an_image_by_its_layers_and_config(
    cli: Cli, layout: Path, image: Image
) -> None:
    wanted = image.children[0]
    config, *layers = wanted.blobs

    found = json.loads(cli("inspect", "--platform=linux/amd64", f"oci:{layout}:app:v1").out)

    assert (found["os"], found["architecture"]) == ("linux", "amd64")
    assert found["labels"] == {"seed": "1"}
    assert [each["digest"] for each in found["layers"]] == layers
    assert [each["size"] for each in found["layers"]] == [len(wanted.blobs[d]) for d in layers]
    assert found["totalSize"] == sum(len(blob) for blob in wanted.blobs.values())
    assert config not in layers


def test_delete_removes_an_image_from_a_registry(
    cli: Cli, registry: EmbeddedRegistry, image: Image
) -> None:
    put_image(registry.url, "app", "v1", image)

    result = cli("delete", f"{registry.host}/app:v1")

    assert result.lines == [f"{registry.host}/app@{image.digest}"]
    assert cli("digest", f"{registry.host}/app:v1").code == 4


def test_delete_removes_one_name_from_a_layout(cli: Cli, layout: Path) -> None:
    result = cli("delete", f"oci:{layout}:app:v1")

    assert result.code == 0
    assert cli("tags", f"oci:{layout}").lines == ["other:v2"]


def test_a_delete_names_an_image(cli: Cli, registry: EmbeddedRegistry, layout: Path) -> None:
    assert_fails(cli("delete", f"{registry.host}/app"), 2, "does not name an image")
    assert_fails(cli("delete", f"oci:{layout}"), 2, "does not name an image")


def test_missing_image_ends_with_code_4(
    cli: Cli, registry: EmbeddedRegistry, layout: Path, image: Image
) -> None:
    put_image(registry.url, "app", "v1", image)

    for verb in ("digest", "manifest", "inspect", "delete"):
        assert_fails(cli(verb, f"{registry.host}/app:v9"), 4, "v9")
        assert_fails(cli(verb, f"{registry.host}/none:v1"), 4, "none")
        assert_fails(cli(verb, f"oci:{layout}:app:v9"), 4, "app:v9")
    assert_fails(cli("tags", f"{registry.host}/none"), 4, "none")
    assert_fails(cli("manifest", "--platform=linux/mips", f"{registry.host}/app:v1"), 4, "mips")


def test_one_of_several_images_of_a_layout_must_be_named(cli: Cli, layout: Path) -> None:
    for verb in ("digest", "manifest", "inspect"):
        assert_fails(cli(verb, f"oci:{layout}"), 2, "app:v1", "other:v2")


def test_the_program_itself(program: Program, registry: EmbeddedRegistry, layout: Path) -> None:
    copied = program("copy", f"oci:{layout}:app:v1", f"{registry.host}/app:v1")
    listed = program("tags", f"{registry.host}/app")
    missing = program("digest", f"{registry.host}/app:v2")

    assert copied.code == 0, copied.err
    assert listed.lines == ["v1"]
    assert_fails(missing, 4, "app:v2")


def test_closed_output_pipe_ends_the_program_quietly(program: Program, layout: Path) -> None:
    running = program.start("manifest", f"oci:{layout}:app:v1")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()

    with running:
        assert running.stderr.read() == b""
    assert running.returncode == 141


def test_full_standard_output_is_an_error(program: Program, layout: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        running = program.start("manifest", f"oci:{layout}:app:v1", stdout=full)
        _, err = running.communicate(timeout=PATIENCE)

    assert running.returncode == 1
    assert_one_line(err.decode(), "No space left on device")


@pytest.mark.real
def test_every_verb_against_the_real_registry(
    cli: Cli, docker_registry: DockerRegistry, layout: Path, image: Image, jobs: str
) -> None:
    place = f"{docker_registry.host}/cli/verbs"

    assert cli("copy", jobs, f"oci:{layout}:app:v1", f"{place}:v1").lines == [
        f"{place}@{image.digest}"
    ]
    assert_same_image(docker_registry.url, "cli/verbs", "v1", image)
    assert cli("tags", place).lines == ["v1"]
    assert cli("digest", f"{place}:v1").lines == [image.digest]
    assert cli("manifest", f"{place}:v1").raw == image.manifest
    assert len(json.loads(cli("inspect", f"{place}:v1").out)["manifests"]) == 2
    assert_fails(cli("digest", f"{place}:v2"), 4, "v2")
    assert_fails(cli("tags", f"{place}-none"), 4, "none")
    assert cli("delete", f"{place}:v1").code == 0
    assert_fails(cli("delete", f"{place}:v1"), 4, "v1")


@pytest.mark.real
def test_blobs_against_the_real_registry(
    cli: Cli, docker_registry: DockerRegistry, tmp_path: Path, jobs: str
) -> None:
    content = make_blob(4, 12_000_000)
    (tmp_path / "file").write_bytes(content)
    place = f"{docker_registry.host}/cli/blobs"

    assert cli("blob", "push", jobs, tmp_path / "file", place).code == 0
    address = f"{place}@{digest_of(content)}"
    assert json.loads(cli("blob", "head", address).out)["size"] == len(content)
    assert cli("blob", "pull", jobs, address, "-o", tmp_path / "back").code == 0
    assert (tmp_path / "back").read_bytes() == content
    assert cli("blob", "pull", address, "-o", "-").raw == content
    assert_fails(cli("blob", "head", f"{place}@{ABSENT}"), 4)


@pytest.mark.real
def test_skopeo_reads_the_layout_that_copy_wrote(
    cli: Cli, registry: EmbeddedRegistry, image: Image, tmp_path: Path, skopeo: Skopeo
) -> None:
    put_image(registry.url, "app", "v1", image)

    assert cli("copy", f"{registry.host}/app:v1", f"oci:{tmp_path}/copy:v1").code == 0

    assert skopeo.inspect_raw(f"oci:{tmp_path}/copy:v1") == image.manifest
