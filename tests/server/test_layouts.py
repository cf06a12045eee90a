"""A registry is a layout: what others wrote is served, what it wrote others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.fs.nofollow_tree import NoFollowTree, StatSignature
from concil.oci.manifest import Digest
from concil.server import EmbeddedRegistry
from concil.server.tag_index import parse_entry_name
from concil.store.layout import index_file
from concil.store.layout.store import LayoutDirectory
from tests.server.client import Client, descriptor, manifest
from tests.support.images import OCI, Image, digest_of, make_image, make_index, write_layout
from tests.support.referrers import make_referrer

IMAGE = make_index([make_image(1), make_image(2, platform="linux/arm64")])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("docker.io/library/alpine:3.19", ("docker.io/library/alpine", "3.19")),
        ("library/alpine:3.19", ("library/alpine", "3.19")),
        ("alpine:3.19", ("alpine", "3.19")),
        ("library/alpine", ("library/alpine", "latest")),
        ("3.19", ("mirror", "3.19")),
        ("", ("mirror", None)),
        ("library/alpine@sha256:" + "0" * 64, ("library/alpine", None)),
        ("alpine:3.19@sha256:" + "0" * 64, ("alpine", "3.19")),
        ("localhost:5000/alpine:1", None),
        ("../../etc:1", None),
        ("a/_blobs:1", None),
        ("UPPER:1", None),
        ("a:-1", None),
    ],
)
def test_names_of_entries_are_repositories_and_tags(
    name: str, place: tuple[str, str | None] | None
) -> None:
    assert parse_entry_name(name, "mirror") == place


def assert_served(client: Client, image: Image, tag: str) -> None:
    assert client.ask("GET", f"manifests/{tag}").content == image.manifest
    for below in image.walk():
        assert client.ask("GET", f"manifests/{below.digest}").content == below.manifest
    for digest, blob in image.all_blobs().items():
        assert client.ask("GET", f"blobs/{digest}").content == blob


def test_what_an_answer_costs_does_not_grow_with_the_tags_of_one_image(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    size = NoFollowTree.file_size

    def note(tree: NoFollowTree, name: str) -> int | None:
        looked.append(name)
        return size(tree, name)

    image = make_image(1)
    write_layout(directory, {f"app:{number}": image for number in range(200)})
    monkeypatch.setattr(NoFollowTree, "file_size", note)

    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        for number in range(200):
            assert client.ask("HEAD", f"manifests/{number}").status_code == 200

    assert len(looked) < 10 * 200


@pytest.mark.parametrize("read_only", [False, True])
def test_a_layout_that_others_wrote_is_served(directory: Path, read_only: bool) -> None:
    other = make_image(3)
    write_layout(directory, {"docker.io/library/app:v1": IMAGE, "v2": other})

    with (
        EmbeddedRegistry(directory, read_only=read_only) as registry,
        Client(registry.url, "docker.io/library/app") as client,
    ):
        assert client.tags() == ["v1"]
        assert_served(client, IMAGE, "v1")
        assert_served(client.at("layout"), other, "v2")
        assert client.ask("GET", f"manifests/{other.digest}").status_code == 404
        for digest in set(other.all_blobs()) - set(IMAGE.all_blobs()):
            assert client.ask("HEAD", f"blobs/{digest}").status_code == 404
        catalog = client.ask("GET", "/v2/_catalog").json()
        assert catalog == {"repositories": ["docker.io/library/app", "layout"]}


def add_nameless(directory: Path, *images: Image) -> None:
    """List manifests in index.json without a name, as referrers are."""
    index = json.loads((directory / "index.json").read_text())
    for image in images:
        for content in (*image.blobs.values(), image.manifest):
            (directory / "blobs" / digest_of(content).replace(":", "/")).write_bytes(content)
        index["manifests"].append(image.descriptor())
    (directory / "index.json").write_text(json.dumps(index))


def listed(client: Client, subject: Image) -> list[str]:
    """Return the digests of what refers to a manifest."""
    found = client.ask("GET", f"referrers/{subject.digest}").json()["manifests"]
    return [str(entry["digest"]) for entry in found]


def test_referrers_in_a_layout_are_served_with_their_image(directory: Path) -> None:
    other = make_image(3)
    sbom = make_referrer(IMAGE.children[1], b"parts")
    signed = make_referrer(sbom)
    stranger = make_referrer(other, b"of another")
    write_layout(directory, {"docker.io/library/app:v1": IMAGE, "docker.io/library/b:v1": other})
    add_nameless(directory, signed, sbom, stranger)

    with (
        EmbeddedRegistry(directory) as registry,
        Client(registry.url, "docker.io/library/app") as client,
    ):
        assert listed(client, IMAGE.children[1]) == [sbom.digest]
        assert listed(client, sbom) == [signed.digest]
        assert listed(client, other) == []
        for each in (sbom, signed):
            assert_served(client, each, each.digest)
        assert client.ask("HEAD", f"manifests/{stranger.digest}").status_code == 404
        assert listed(client.at("docker.io/library/b"), other) == [stranger.digest]
        # A tag that goes takes neither the image nor what refers to it along.
        assert client.ask("DELETE", "manifests/v1").status_code == 202
        assert listed(client, IMAGE.children[1]) == [sbom.digest]
        assert_served(client, sbom, sbom.digest)


@pytest.mark.parametrize("image", [IMAGE, IMAGE.children[0]], ids=["index", "image"])
def test_a_foreign_image_that_gets_another_tag_stays_whole(directory: Path, image: Image) -> None:
    write_layout(directory, {"app:v1": image, "app:other": make_image(3)})
    for tag in ("v2", "v3"):
        with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
            for number in range(2):
                answer = client.ask(
                    "PUT",
                    f"manifests/{tag}.{number}",
                    data=image.manifest,
                    headers={"Content-Type": image.media_type},
                )
                assert answer.status_code == 201

            assert_served(client, image, "v1")
            assert_served(client, image, f"{tag}.0")


@pytest.mark.parametrize("how", ["delete", "replace"])
def test_what_a_foreign_tag_meant_stays_when_the_tag_goes(directory: Path, how: str) -> None:
    write_layout(directory, {"app:v1": IMAGE})
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        if how == "delete":
            assert client.ask("DELETE", "manifests/v1").status_code == 202
        else:
            client.push_image("v1")

        assert_served(client, IMAGE, IMAGE.digest)
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        assert_served(client, IMAGE, IMAGE.digest)


def test_a_blob_of_a_foreign_image_can_be_deleted(directory: Path) -> None:
    image = make_image(1)
    write_layout(directory, {"app:v1": image})
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        digest = next(iter(image.all_blobs()))

        assert client.ask("DELETE", f"blobs/{digest}").status_code == 202

        assert client.ask("HEAD", f"blobs/{digest}").status_code == 404
        assert client.ask("HEAD", "manifests/v1").status_code == 200


def test_a_foreign_name_keeps_its_form_when_its_tag_moves(directory: Path) -> None:
    write_layout(directory, {"v1": make_image(1)})
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "layout") as client:
        digest, _ = client.push_image("v1")

        assert client.tags() == ["v1"]
    entry = LayoutDirectory(directory).find_entry("v1")
    assert entry is not None
    assert str(entry.digest) == digest


def test_images_that_containerd_exported_have_their_full_names(directory: Path) -> None:
    write_layout(directory, {"v1": IMAGE})
    document = json.loads((directory / "index.json").read_text())
    document["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/library/app:v1"
    (directory / "index.json").write_text(json.dumps(document))
    with (
        EmbeddedRegistry(directory) as registry,
        Client(registry.url, "docker.io/library/app") as client,
    ):
        assert_served(client, IMAGE, "v1")
        assert client.ask("DELETE", "manifests/v1").status_code == 202
        assert client.tags() == []
        assert_served(client, IMAGE, IMAGE.digest)


def test_referrers_in_a_foreign_layout_are_found(directory: Path) -> None:
    subject = make_image(1)
    write_layout(directory, {"app:v1": subject, "app:sig": make_image(2, subject=subject)})
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        answer = client.ask("GET", f"referrers/{subject.digest}")

        assert len(answer.json()["manifests"]) == 1


def test_what_another_program_adds_is_served_without_a_restart(
    client: Client, directory: Path
) -> None:
    client.push_image("v1")
    layout = LayoutDirectory(directory)
    body = manifest("from elsewhere")
    entry = client.ask("HEAD", "manifests/v1")
    digest = layout.write_blob(body)
    found = layout.find_entry("team/app:v1")
    assert found is not None
    assert entry.headers["Docker-Content-Digest"] == str(found.digest)

    layout.set_entry("team/app:v2", type(found)(OCI.manifest, digest, len(body)))

    assert client.ask("GET", "manifests/v2").content == body
    assert client.tags() == ["v1", "v2"]


def test_a_pushed_image_is_in_the_layout_under_repository_and_tag(
    client: Client, directory: Path
) -> None:
    digest, body = client.push_image("v1")

    layout = LayoutDirectory(directory)
    entry = layout.find_entry("team/app:v1")
    assert entry is not None
    assert (str(entry.digest), entry.size, entry.media_type) == (digest, len(body), OCI.manifest)
    assert layout.read_blob(Digest.parse(digest), 10_000) == body
    assert json.loads((directory / "oci-layout").read_text())["imageLayoutVersion"] == "1.0.0"


def test_a_file_that_does_not_hold_what_its_name_says_is_no_manifest(
    client: Client, directory: Path
) -> None:
    digest, _ = client.push_image("v1")
    LayoutDirectory(directory).blob_path(Digest.parse(digest)).write_bytes(b"{}")

    answer = client.ask("GET", "manifests/v1")

    assert answer.status_code == 500
    assert str(directory) not in answer.text


@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_a_link_in_place_of_a_file_is_not_followed(directory: Path, kind: str) -> None:
    image = make_image(1)
    write_layout(directory, {"app:v1": image})
    digest = image.digest if kind == "manifest" else next(iter(image.all_blobs()))
    place = LayoutDirectory(directory).blob_path(Digest.parse(digest))
    secret = directory.parent / "secret"
    place.rename(secret)
    place.symlink_to(secret)

    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        answer = client.ask("GET", f"{kind}s/{digest}")

    assert answer.status_code in (404, 500)


def test_an_index_that_lists_itself_does_no_harm(directory: Path) -> None:
    # No digest can be chosen so; two entries that lead to each other through a missing
    # manifest and a shared one are as near as one gets.
    write_layout(directory, {"app:v1": IMAGE, "app:v2": make_index([IMAGE, IMAGE])})
    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        assert_served(client, IMAGE, "v1")


def test_blobs_that_an_index_lists_belong_to_its_repository(client: Client) -> None:
    layer = client.push(b"cache")
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI.index,
            "manifests": [descriptor(b"cache", OCI.layer)],
        }
    ).encode()

    assert client.push_manifest("cache", body, OCI.index).status_code == 201
    assert client.ask("GET", f"blobs/{layer}").content == b"cache"
    assert client.ask("GET", "manifests/cache").headers["Docker-Content-Digest"] == digest_of(body)


def test_pushes_into_a_large_layout_write_its_index_seldom(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_FEW", 0)
    monkeypatch.setattr(index_file, "_SHARE", 1e9)
    written: list[str] = []
    replace = NoFollowTree.replace

    def counting(tree: NoFollowTree, name: str, content: bytes) -> StatSignature:
        written.append(name)
        return replace(tree, name, content)

    with EmbeddedRegistry(directory) as registry, Client(registry.url, "app") as client:
        monkeypatch.setattr(NoFollowTree, "replace", counting)
        digests = {f"v{number}": client.push_image(f"v{number}")[0] for number in range(20)}

        assert client.tags() == sorted(digests)
        for tag, digest in digests.items():
            assert client.ask("HEAD", f"manifests/{tag}").headers["ETag"] == f'"{digest}"'
        assert written.count("index.json") == 1

    assert written.count("index.json") == 2
    layout = LayoutDirectory(directory)
    assert set(layout.names()) == {f"app:{tag}" for tag in digests}
