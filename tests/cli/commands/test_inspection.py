"""`concil ls`, `tag`, `tree`, `config`, `diff`, `du` and `delete --tag-only`."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.oci.manifest import Digest
from concil.oci.referrers_tag import referrers_tag
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from tests.cli.commands.test_mirror_plan import tags_of
from tests.cli.runner import PATIENCE, Cli, Program, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    digest_of,
    make_image,
    make_index,
    make_layer,
    put_image,
    write_layout,
)

SHARED = make_layer(7, 5000)
AMD64 = make_image(1, (SHARED, make_layer(8, 3000)), platform="linux/amd64")
ARM64 = make_image(2, (SHARED, make_layer(9, 3000)), platform="linux/arm64")
INDEX = make_index([AMD64, ARM64])
OTHER = make_image(3, (SHARED, make_layer(10, 4000)), platform="linux/amd64")
SIGNATURE = make_image(4, (300,), subject=AMD64)
SIGNATURE_OF_SIGNATURE = make_image(5, (300,), subject=SIGNATURE)
COSIGN = make_image(6, (300,))


@pytest.fixture
def repository(registry: EmbeddedRegistry) -> str:
    """Return a repository with two tags, signatures and a tag of cosign."""
    put_image(registry.url, "team/app", "v1", INDEX)
    put_image(registry.url, "team/app", "v2", OTHER)
    for image in (SIGNATURE, SIGNATURE_OF_SIGNATURE):
        put_image(registry.url, "team/app", image.digest, image)
    put_image(registry.url, "team/app", cosign_tag(), COSIGN)
    return f"{registry.host}/team/app"


def cosign_tag() -> str:
    return f"{referrers_tag(Digest.parse(INDEX.digest))}.sig"


def size_of(*images: object) -> int:
    """Return the bytes of all different blobs and manifests."""
    sizes: dict[str, int] = {}
    for image in images:
        for below in image.walk():  # type: ignore[attr-defined]
            sizes[below.digest] = len(below.manifest)
            sizes |= {digest: len(blob) for digest, blob in below.blobs.items()}
    return sum(sizes.values())


class HoldsTags(RegistryBehavior):
    """Answers requests for some tags only once the test allows it."""

    def __init__(self, first_held: str) -> None:
        self.first_held = first_held
        self.is_released = threading.Event()

    def before_request(self, request: Request) -> Response | None:
        _, found, tag = request.path.rpartition("/manifests/")
        if found and self.first_held <= tag < "v999":
            assert self.is_released.wait(PATIENCE)
        return None


def test_a_long_table_is_printed_while_it_is_read(program: Program, tmp_path: Path) -> None:
    tags = [f"v{number:03}" for number in range(1, 61)]
    write_layout(tmp_path / "layout", {f"app:{tag}": OTHER for tag in tags})
    behavior = HoldsTags("v051")
    with EmbeddedRegistry(tmp_path / "layout", behavior=behavior) as registry:
        running = program.start("ls", "-l", f"{registry.host}/app")
        with running:
            assert running.stdout is not None
            first = [running.stdout.readline().decode() for _ in range(51)]
            behavior.is_released.set()
            rest = running.stdout.read().decode().splitlines()
            assert running.stderr is not None
            assert running.stderr.read() == b""

    assert running.returncode == 0
    assert first[0].split() == ["TAG", "DIGEST", "SIZE", "CREATED", "PLATFORMS"]
    rows = [*first[1:], *rest]
    assert [row.split()[0] for row in rows] == tags
    assert {row.index("sha256:") for row in rows} == {first[0].index("DIGEST")}


class TestLs:
    def test_a_host_has_repositories(
        self, cli: Cli, registry: EmbeddedRegistry, repository: str
    ) -> None:
        for text in (registry.host, f"{registry.host}/", registry.url, f"docker://{registry.host}"):
            assert cli("ls", text).lines == ["team/app"]
        assert json.loads(cli("ls", "--format=json", registry.host).out) == {
            "name": registry.host,
            "repositories": ["team/app"],
        }

    def test_a_repository_has_tags(self, cli: Cli, repository: str) -> None:
        assert cli("ls", repository).lines == cli("tags", repository).lines
        assert "v1" in json.loads(cli("ls", "--format=json", repository).out)["tags"]

    def test_long_lists_describe_each_tag(self, cli: Cli, repository: str) -> None:
        result = cli("ls", "-l", "--format=json", repository)

        tags = {entry["tag"]: entry for entry in json.loads(result.out)["tags"]}
        assert result.code == 0
        assert tags["v1"]["digest"] == INDEX.digest
        assert tags["v1"]["platforms"] == ["linux/amd64", "linux/arm64"]
        assert tags["v1"]["size"] == size_of(INDEX)
        assert tags["v2"]["platforms"] == ["linux/amd64"]
        assert tags["v2"]["size"] == size_of(OTHER)

    def test_long_lists_are_tables(self, cli: Cli, repository: str) -> None:
        header, *rows = cli("ls", "-l", repository).lines

        assert header.split() == ["TAG", "DIGEST", "SIZE", "CREATED", "PLATFORMS"]
        [row] = [row for row in rows if row.startswith("v1 ")]
        assert row.endswith(" linux/amd64,linux/arm64")

    def test_a_tag_that_cannot_be_read_is_named(self, cli: Cli, tmp_path: Path) -> None:
        write_layout(tmp_path / "layout", {"v1": INDEX, "v2": OTHER})
        (tmp_path / "layout" / "blobs" / "sha256" / OTHER.digest.partition(":")[2]).unlink()

        result = cli("ls", "-l", "--format=json", f"oci:{tmp_path}/layout")

        entries = {entry["tag"]: entry for entry in json.loads(result.out)["tags"]}
        assert result.code == 3
        assert "error" in entries["v2"]
        assert "error" not in entries["v1"]

    def test_what_makes_no_sense_is_refused(
        self, cli: Cli, registry: EmbeddedRegistry, repository: str
    ) -> None:
        assert_fails(cli("ls", "-l", registry.host), 2, "-l describes the tags of a repository")
        assert_fails(cli("ls", f"{repository}:v1"), 2, "is a single image")
        assert_fails(cli("ls", "alpine:3"), 2, "docker.io/library/alpine:3 is a single image")


class TestTag:
    def test_more_tags_name_the_image_and_no_blob_is_moved(
        self, cli: Cli, registry: EmbeddedRegistry, repository: str
    ) -> None:
        requests_before = len(registry.requests)

        result = cli("tag", f"{repository}:v1", "1.0", f"{repository}:latest")

        assert result.lines == [f"{repository}:{t}@{INDEX.digest}" for t in ("1.0", "latest")]
        assert cli("digest", f"{repository}:1.0").lines == [INDEX.digest]
        assert cli("digest", f"{repository}:latest").lines == [INDEX.digest]
        assert not [r for r in registry.requests[requests_before:] if "/blobs/" in r.path]

    def test_a_digest_gets_a_tag(self, cli: Cli, repository: str) -> None:
        assert cli("tag", f"{repository}@{ARM64.digest}", "arm").code == 0
        assert cli("digest", f"{repository}:arm").lines == [ARM64.digest]

    def test_layouts_have_names(self, cli: Cli, tmp_path: Path) -> None:
        write_layout(tmp_path / "layout", {"v1": INDEX})

        result = cli("tag", f"oci:{tmp_path}/layout:v1", "app:2", f"oci:{tmp_path}/layout:three")

        assert result.code == 0, result.err
        assert cli("ls", f"oci:{tmp_path}/layout").lines == ["v1", "app:2", "three"]

    def test_what_makes_no_sense_is_refused(self, cli: Cli, repository: str) -> None:
        image, other = f"{repository}:v1", repository.replace("team/app", "other")
        before = cli("ls", repository).lines

        assert_fails(cli("tag", image, "1.0", f"{other}:1"), 2, "copy it: concil copy")
        assert_fails(cli("tag", image, "a/b"), 2, "has no tag")
        assert_fails(cli("tag", image, "-x"), 2, "")
        assert_fails(cli("tag", f"{repository}:none", "x"), 4, "concil ls")
        assert_fails(cli("tag", "oci-archive:none.tar:a", "x"), 2, "archive")
        assert cli("ls", repository).lines == before


class TestDelete:
    def test_the_tag_alone_is_deleted(self, cli: Cli, repository: str) -> None:
        cli("tag", f"{repository}:v2", "copy")

        result = cli("delete", "--tag-only", f"{repository}:v2")

        assert result.lines == [f"{repository}@{OTHER.digest}"]
        assert "v2" not in cli("ls", repository).lines
        assert cli("digest", f"{repository}:copy").lines == [OTHER.digest]

    def test_a_digest_is_no_tag(self, cli: Cli, repository: str) -> None:
        result = cli("delete", "--tag-only", f"{repository}@{OTHER.digest}")

        assert_fails(result, 2, "is not a tag alone")

    @pytest.mark.real
    def test_a_registry_that_cannot_is_named_and_keeps_all(self, cli: Cli, tmp_path: Path) -> None:
        with DockerRegistry(tmp_path / "registry") as registry:
            put_image(registry.url, "app", "v1", OTHER)

            result = cli("delete", "--tag-only", f"{registry.host}/app:v1")

            assert_fails(result, 1, "this registry cannot delete a tag alone")
            assert tags_of(registry.url, "app") == ["v1"]


class TestTree:
    def test_platforms_referrers_and_tags_are_shown(self, cli: Cli, repository: str) -> None:
        result = cli("tree", "--format=json", f"{repository}:v1")

        tree = json.loads(result.out)
        children = {child["digest"]: child for child in tree["children"]}
        assert tree["digest"] == INDEX.digest
        assert set(children) == {AMD64.digest, ARM64.digest, COSIGN.digest}
        assert children[AMD64.digest]["platform"] == "linux/amd64"
        assert children[AMD64.digest]["size"] == size_of(AMD64)
        assert children[COSIGN.digest]["relation"] == "tag"
        assert children[COSIGN.digest]["tag"] == cosign_tag()
        [signature] = children[AMD64.digest]["children"]
        assert (signature["relation"], signature["digest"]) == ("referrer", SIGNATURE.digest)
        assert [c["digest"] for c in signature["children"]] == [SIGNATURE_OF_SIGNATURE.digest]

    def test_branches_are_ascii_where_the_locale_is(
        self, cli: Cli, program: Program, repository: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")

        plain, drawn = program("tree", f"{repository}:v1"), cli("tree", f"{repository}:v1")

        assert plain.raw.isascii()
        assert "`-- " in plain.out
        assert "└── " in drawn.out
        assert len(plain.lines) == len(drawn.lines) == 6

    def test_a_missing_platform_is_named(self, cli: Cli, tmp_path: Path) -> None:
        write_layout(tmp_path / "layout", {"v1": INDEX})
        (tmp_path / "layout" / "blobs" / "sha256" / ARM64.digest.partition(":")[2]).unlink()

        result = cli("tree", f"oci:{tmp_path}/layout:v1")

        assert result.code == 0
        assert f"{ARM64.digest}  {len(ARM64.manifest)} B  (listed, but missing)" in result.out


class Circular(RegistryBehavior):
    """Every manifest of this registry has itself and one other as referrers."""

    def before_request(self, request: Request) -> Response | None:
        if "/referrers/" not in request.path:
            return None
        entries = [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest,
                "size": len(image.manifest),
            }
            for image in (OTHER, SIGNATURE)
        ]
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }
        return Response(200, {"Content-Type": index["mediaType"]}, json.dumps(index).encode())  # type: ignore[dict-item]


@pytest.fixture
def circular(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "circular", behavior=Circular()) as registry:
        put_image(registry.url, "app", "v1", OTHER)
        put_image(registry.url, "app", SIGNATURE.digest, SIGNATURE)
        yield registry


def test_referrers_in_a_circle_are_shown_once_more_and_end(
    cli: Cli, circular: EmbeddedRegistry
) -> None:
    result = cli("tree", f"{circular.host}/app:v1")

    assert result.code == 0
    assert "refers to itself: see above" in result.out
    assert len(result.lines) == 5


class TestConfig:
    def test_the_platform_of_this_machine_is_the_default(
        self, cli: Cli, repository: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform.machine", lambda: "aarch64")

        result = cli("config", f"{repository}:v1")

        assert result.lines[0].split() == ["platform", "linux/arm64"]
        assert any(line.split() == ["labels", "seed=2"] for line in result.lines)

    def test_json_is_the_whole_config(self, cli: Cli, repository: str) -> None:
        result = cli("config", "--platform=linux/amd64", "--format=json", f"{repository}:v1")

        digest = json.loads(AMD64.manifest)["config"]["digest"]
        assert json.loads(result.out) == json.loads(AMD64.blobs[digest])

    def test_other_platforms_and_artifacts_have_none(self, cli: Cli, repository: str) -> None:
        result = cli("config", "--platform=linux/s390x", f"{repository}:v1")

        assert_fails(result, 4, "no image for linux/s390x")


class TestDiff:
    def test_equal_images_are_said_to_be_equal(self, cli: Cli, repository: str) -> None:
        cli("tag", f"{repository}:v1", "same")

        result = cli("diff", f"{repository}:v1", f"{repository}:same")
        document = json.loads(
            cli("diff", "--format=json", f"{repository}:v1", f"{repository}:same").out
        )

        assert result.lines[-1] == "both are the same image"
        assert document["identical"]
        assert document["bytesToFirst"] == document["bytesToSecond"] == 0

    def test_layers_configs_and_bytes_are_compared(self, cli: Cli, repository: str) -> None:
        words = ("--platform=linux/amd64", f"{repository}:v1", f"{repository}:v2")

        document = json.loads(cli("diff", "--format=json", *words).out)
        text = cli("diff", *words).out

        shared = size_of(AMD64) + size_of(OTHER) - size_of(AMD64, OTHER)
        assert not document["identical"]
        assert document["first"]["digest"] == AMD64.digest
        assert [layer["digest"] for layer in document["commonLayers"]] == [digest_of(SHARED.blob)]
        assert len(document["firstLayers"]) == len(document["secondLayers"]) == 1
        assert document["bytesToSecond"] == size_of(AMD64) - shared
        assert document["config"] == [{"name": "config.Labels.seed", "first": "1", "second": "3"}]
        assert 'config.Labels.seed: "1" -> "3"' in text
        assert "layers: 1 in common" in text

    def test_an_index_and_an_image_are_compared_as_a_whole(self, cli: Cli, repository: str) -> None:
        result = cli("diff", f"{repository}:v1", f"{repository}:v2")

        assert result.code == 0
        assert "give a platform to compare one image with the other" in result.out


class TestDu:
    def test_shared_and_unique_bytes(self, cli: Cli, repository: str) -> None:
        names = (f"{repository}:v1", f"{repository}:v2")

        document = json.loads(cli("du", "--format=json", *names).out)
        table = cli("du", *names).lines

        shared = size_of(INDEX) + size_of(OTHER) - size_of(INDEX, OTHER)
        assert document["distinct"] == size_of(INDEX, OTHER)
        assert document["shared"] == shared
        assert [image["total"] for image in document["images"]] == [size_of(INDEX), size_of(OTHER)]
        assert [image["shared"] for image in document["images"]] == [shared, shared]
        assert table[0].split() == ["TOTAL", "SHARED", "UNIQUE", "IMAGE"]
        assert table[1].endswith(names[0])

    def test_a_list_is_measured_with_its_platforms(
        self, cli: Cli, repository: str, tmp_path: Path
    ) -> None:
        listed = tmp_path / "images.txt"
        listed.write_text(f"{repository}:v1\n{repository}:v2\n")

        whole = json.loads(cli("du", "--format=json", listed).out)
        part = json.loads(cli("du", "--format=json", "--platform=linux/amd64", listed).out)

        assert whole["distinct"] == size_of(INDEX, OTHER)
        assert part["distinct"] == size_of(AMD64, OTHER)

    def test_a_plan_stands_alone(self, cli: Cli, repository: str, tmp_path: Path) -> None:
        listed = tmp_path / "images.txt"
        listed.write_text(f"{repository}:v1\n")

        result = cli("du", f"{repository}:v2", listed)

        assert_fails(result, 2, f"{listed} is a plan or list, and there are other arguments")

    def test_options_may_stand_between_images(self, cli: Cli, repository: str) -> None:
        result = cli("du", f"{repository}:v1", "--format=json", f"{repository}:v2")

        assert json.loads(result.out)["distinct"] == size_of(INDEX, OTHER)

    def test_an_image_that_is_missing_is_one_line(self, cli: Cli, repository: str) -> None:
        some = cli("du", f"{repository}:v1", f"{repository}:none")
        none = cli("du", f"{repository}:none")

        assert some.code == 3
        assert some.err.count("\n") == 1
        assert none.code == 4


@pytest.mark.parametrize(
    "words", [("ls", "-l"), ("tree",), ("du",), ("config",)], ids=lambda words: words[0]
)
def test_a_closed_pipe_ends_quietly(
    program: Program, repository: str, words: tuple[str, ...]
) -> None:
    address = repository if words[0] == "ls" else f"{repository}:v1"
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    reader.wait(PATIENCE)

    process = program.start(*words, address, stdout=reader.stdin.fileno())
    _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (141, b"")
    reader.stdin.close()
