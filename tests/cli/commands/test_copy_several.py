"""`concil copy` to several destinations, and `--no-clobber`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import Cli, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, make_index, put_image

AMD64 = make_image(1, platform="linux/amd64")
IMAGE = make_index([AMD64, make_image(2, platform="linux/arm64")])
OTHER = make_image(3)
REFUSED = "127.0.0.1:1"


@pytest.fixture
def image(registry: EmbeddedRegistry) -> str:
    put_image(registry.url, "app", "v1", IMAGE)
    return f"{registry.host}/app:v1"


@pytest.fixture
def others(tmp_path: Path) -> Iterator[list[EmbeddedRegistry]]:
    """Return two more registries."""
    with (
        EmbeddedRegistry(tmp_path / "first") as first,
        EmbeddedRegistry(tmp_path / "second") as second,
    ):
        yield [first, second]


def blob_reads(registry: EmbeddedRegistry) -> list[str]:
    """Return the digests of blobs that were read, each as often as it was."""
    return [
        request.path.rpartition("/")[2]
        for request in registry.requests
        if request.method == "GET" and "/blobs/sha256" in request.path
    ]


class TestSeveralDestinations:
    def test_the_source_is_read_once(
        self,
        cli: Cli,
        registry: EmbeddedRegistry,
        others: list[EmbeddedRegistry],
        image: str,
        tmp_path: Path,
    ) -> None:
        places = [f"{other.host}/copy:v1" for other in others] + [f"oci:{tmp_path}/layout:v1"]

        result = cli("copy", image, *places)

        assert result.code == 0, result.err
        assert result.lines == [
            *(f"{other.host}/copy@{IMAGE.digest}" for other in others),
            f"oci:{tmp_path}/layout@{IMAGE.digest}",
        ]
        for place in places:
            assert cli("digest", place).lines == [IMAGE.digest]
        read = blob_reads(registry)
        assert len(read) == len(set(read)) > 0

    def test_platforms_are_selected_for_all(
        self, cli: Cli, others: list[EmbeddedRegistry], image: str
    ) -> None:
        places = [f"{other.host}/copy:v1" for other in others]

        result = cli("copy", "--platform=linux/amd64", image, *places)

        assert result.lines == [f"{other.host}/copy@{AMD64.digest}" for other in others]

    def test_a_docker_archive_is_written_from_a_readable_copy(
        self, cli: Cli, registry: EmbeddedRegistry, image: str, tmp_path: Path
    ) -> None:
        archive, layout = f"docker-archive:{tmp_path}/image.tar:app:v1", f"oci:{tmp_path}/lay:v1"

        result = cli("copy", "--platform=linux/amd64", image, archive, layout)

        assert result.code == 0, result.err
        assert (tmp_path / "image.tar").exists()
        assert cli("digest", layout).lines == [AMD64.digest]
        read = blob_reads(registry)
        assert len(read) == len(set(read)) > 0

    def test_one_failure_leaves_the_others(
        self, cli: Cli, others: list[EmbeddedRegistry], image: str
    ) -> None:
        places = (f"http://{REFUSED}/a:v1", f"{others[0].host}/copy:v1")

        result = cli("copy", "--retry=0", image, *places)

        assert result.code == 3
        assert result.lines == [f"{others[0].host}/copy@{IMAGE.digest}"]
        assert f"concil: failed: {image} -> http://{REFUSED}/a:v1: " in result.err

    def test_equal_failures_are_one_line(self, cli: Cli, image: str) -> None:
        result = cli("copy", "--retry=0", image, f"http://{REFUSED}/a:v1", f"http://{REFUSED}/b:v1")

        assert result.code == 1
        assert result.err.count("\n") == 1
        assert "2 images" in result.err

    def test_destinations_may_follow_options(
        self, cli: Cli, others: list[EmbeddedRegistry], image: str
    ) -> None:
        result = cli("copy", image, f"{others[0].host}/a:1", "-j", "2", f"{others[1].host}/a:1")

        assert result.code == 0, result.err
        assert len(result.lines) == 2

    def test_a_slow_destination_may_use_little_of_a_disk(
        self, cli: Cli, others: list[EmbeddedRegistry], image: str, tmp_path: Path
    ) -> None:
        places = [f"{other.host}/copy:v1" for other in others]

        result = cli("copy", "--spool", tmp_path, "--spool-size=1.5M", image, *places)

        assert result.code == 0, result.err
        assert [cli("digest", place).lines for place in places] == 2 * [[IMAGE.digest]]

    def test_what_makes_no_sense_is_refused(self, cli: Cli, image: str, tmp_path: Path) -> None:
        place = f"oci:{tmp_path}/layout:v1"

        assert_fails(cli("copy", image, place, place), 2, "is given twice")
        assert_fails(cli("copy", "--all", image, place, f"{place}2"), 2, "--all copies to one")
        for words in (("--spool", tmp_path), ("--spool-size=1G", "--all")):
            assert_fails(cli("copy", *words, image, place), 2, "are for several destinations")
        assert_fails(cli("copy", "--spool-size=much", image, place, image), 2, "is not a size")
        missing = cli("copy", "--spool", tmp_path / "missing", image, place, f"{place}2")
        assert_fails(missing, 2, "the directory of the spool")
        assert not (tmp_path / "layout").exists()

    @pytest.mark.real
    def test_a_copy_that_nobody_may_read_is_made_from_the_source(
        self, cli: Cli, image: str, others: list[EmbeddedRegistry], tmp_path: Path
    ) -> None:
        with DockerRegistry(tmp_path / "closed", users={"me": "right"}) as closed:
            first = f"http://me:right@{closed.host}/copy:v1"

            result = cli("copy", image, first, f"{others[0].host}/copy:v1")

            assert result.code == 0, result.err
        assert "right" not in result.out + result.err
        assert tags_of(others[0].url, "copy") == ["v1"]


class TestNoClobber:
    def test_an_image_that_exists_stays(
        self, cli: Cli, registry: EmbeddedRegistry, image: str
    ) -> None:
        put_image(registry.url, "copy", "v1", OTHER)

        result = cli("copy", "--no-clobber", image, f"{registry.host}/copy:v1")

        assert result.code == 0
        assert "exists, and was not changed" in result.err
        assert result.lines == [f"{registry.host}/copy@{OTHER.digest}"]
        assert cli("digest", f"{registry.host}/copy:v1").lines == [OTHER.digest]

    def test_a_new_image_is_copied(self, cli: Cli, registry: EmbeddedRegistry, image: str) -> None:
        assert cli("copy", "-n", image, f"{registry.host}/copy:v1").code == 0
        assert cli("digest", f"{registry.host}/copy:v1").lines == [IMAGE.digest]

    def test_mirrors_and_all_images_leave_what_exists(
        self, cli: Cli, registry: EmbeddedRegistry, image: str, tmp_path: Path
    ) -> None:
        put_image(registry.url, "app", "v2", OTHER)
        put_image(registry.url, "m/app", "v1", OTHER)
        put_image(registry.url, "all", "v1", OTHER)
        listed = tmp_path / "list"
        listed.write_text(f"{image}\n{registry.host}/app:v2\n")

        mirrored = cli("mirror", "-n", listed, f"{registry.host}/m")
        copied = cli("copy", "-n", "--all", f"{registry.host}/app", f"{registry.host}/all")

        assert (mirrored.code, copied.code) == (0, 0)
        assert mirrored.out.startswith("2 images: 1 copied, 1 up to date")
        for repository in ("m/app", "all"):
            assert cli("digest", f"{registry.host}/{repository}:v1").lines == [OTHER.digest]
            assert cli("digest", f"{registry.host}/{repository}:v2").lines == [OTHER.digest]

    def test_it_cannot_mend(self, cli: Cli, image: str) -> None:
        for words in (("copy", image, "oci:x:y"), ("mirror", "-", "oci:x")):
            result = cli(*words, "--no-clobber", "--recheck")

            assert_fails(result, 2, "--no-clobber leaves images as they are")
