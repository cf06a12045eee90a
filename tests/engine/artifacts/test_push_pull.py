"""Files become artifacts and come back, byte for byte; hostile artifacts write nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil import ArtifactFile, Engine, Event, Journal, State
from concil.errors import Cancelled, ConcilError, ContentError, NotFound, UsageError
from concil.oci.artifact import CREATED, EMPTY_BLOB, EMPTY_CONFIG, TITLE, UNPACK
from concil.oci.digest import Digest
from tests.engine.artifacts.oras_model import BLOB, CONTENT_DIGEST, make_model, tree_of
from tests.engine.artifacts.oras_model import TIME as TIME_OF_FILES
from tests.engine.artifacts.test_titles import UNSAFE
from tests.engine.engine_setup import CHUNK, Registry, engine_of
from tests.engine.relayed_registries import SIZE, RelayedRegistry
from tests.support.images import get_manifest, make_blob, make_image, put_image
from tests.support.relay import Relay
from tests.support.skopeo import Skopeo

TIME = {CREATED: "2026-01-01T00:00:00Z"}
RATE = 4 * CHUNK  # bytes a second: slow enough to be interrupted
TYPE = "application/vnd.example"


@pytest.fixture
def address(registry: Registry, repository: str) -> str:
    return f"{registry.url}/{repository}:1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory with files the working directory."""
    directory = tmp_path / "here"
    make_model(directory / "model")
    (directory / "large.bin").write_bytes(make_blob(1, SIZE))
    (directory / "empty").write_bytes(b"")
    (directory / "directory").mkdir()
    (directory / "directory" / "large").write_bytes(make_blob(2, SIZE))
    for name in ("directory/large", "directory"):
        os.utime(directory / name, (TIME_OF_FILES, TIME_OF_FILES))
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def test_files_and_directories_come_back(
    engine: Engine, address: str, here: Path, tmp_path: Path
) -> None:
    pushed = engine.push_files(["model", "large.bin", Path("empty")], address, artifact_type=TYPE)
    pulled = engine.pull_files(address, tmp_path / "out")

    assert tree_of(tmp_path / "out" / "model") == tree_of(here / "model")
    assert (tmp_path / "out" / "large.bin").read_bytes() == make_blob(1, SIZE)
    assert (tmp_path / "out" / "empty").read_bytes() == b""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "large.bin", "empty"}
    assert pulled.descriptor == pushed.descriptor
    assert (pushed.artifact_type, pulled.artifact_type) == (TYPE, TYPE)
    assert [file.title for file in pulled.files] == ["model", "large.bin", "empty"]
    assert [file.descriptor for file in pulled.files] == list(pushed.files)


def test_manifest_is_the_same_each_time(engine: Engine, address: str, here: Path) -> None:
    del here
    first = engine.push_files(["model", "large.bin"], address, annotations=TIME)

    assert engine.push_files(["model", "large.bin"], address, annotations=TIME) == first
    assert first.files[0].annotations["io.deis.oras.content.digest"] == CONTENT_DIGEST


def test_content_that_the_registry_has_is_not_sent(
    relayed_registry: RelayedRegistry, here: Path, journal: Journal
) -> None:
    del here
    address = f"{relayed_registry.relay.url}/again:1"
    with engine_of(journal=journal) as engine:
        engine.push_files(["model", "large.bin"], address)
        relayed_registry.log.clear()

        engine.push_files(["model", "large.bin"], address)

    assert relayed_registry.sent() == 0


def test_bytes_titles_types_and_annotations_are_kept(
    engine: Engine, registry: Registry, address: str, repository: str, tmp_path: Path
) -> None:
    file = ArtifactFile(b"hello", "deep/er/hello.txt", "text/plain", {"lang": "en"})
    engine.push_files(file, address, annotations={"note": "x"})
    engine.pull_files(address, tmp_path / "out")

    document = json.loads(get_manifest(registry.url, repository, "1"))
    assert document["layers"][0]["mediaType"] == "text/plain"
    assert document["layers"][0]["annotations"] == {"lang": "en", TITLE: "deep/er/hello.txt"}
    assert document["annotations"]["note"] == "x"
    assert (tmp_path / "out" / "deep" / "er" / "hello.txt").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("large.bin", "large.bin"),
        ("./model/../large.bin", "large.bin"),
        ("model/config.json", "model/config.json"),
        ("../here/large.bin", "large.bin"),
        (".", "here"),
        ("model/", "model"),
    ],
)
def test_title_follows_from_the_path(here: Path, path: str, title: str) -> None:
    assert ArtifactFile(path).title == title
    assert ArtifactFile(here / "large.bin").title == "large.bin"


@pytest.mark.parametrize(
    "files",
    [
        ["large.bin", "./large.bin"],
        [ArtifactFile(b"", "a"), ArtifactFile(b"", "a/b")],
        ["missing"],
        [],
    ],
)
def test_files_that_make_no_artifact_are_refused(
    engine: Engine, address: str, here: Path, files: list[str | ArtifactFile]
) -> None:
    del here
    with pytest.raises(UsageError):
        engine.push_files(files, address)


@pytest.mark.parametrize("kind", ["layout", "archive"])
def test_layouts_and_archives_hold_artifacts(
    engine: Engine, here: Path, tmp_path: Path, kind: str
) -> None:
    place = f"oci:{tmp_path}/layout" if kind == "layout" else f"oci-archive:{tmp_path}/a.tar"
    pushed = engine.push_files(["model", "large.bin"], f"{place}:v1")
    with engine_of() as another:
        pulled = another.pull_files(f"{place}:v1", tmp_path / "out")

    assert pulled.descriptor == pushed.descriptor
    assert tree_of(tmp_path / "out" / "model") == tree_of(here / "model")
    assert (tmp_path / "out" / "large.bin").read_bytes() == make_blob(1, SIZE)


def test_docker_archive_cannot_hold_artifacts(engine: Engine, here: Path, tmp_path: Path) -> None:
    del here
    with pytest.raises(UsageError, match="docker-archive"):
        engine.push_files("large.bin", f"docker-archive:{tmp_path}/a.tar:x:1")


@pytest.mark.real
def test_skopeo_copies_an_artifact(
    engine: Engine, address: str, here: Path, tmp_path: Path, skopeo: Skopeo
) -> None:
    pushed = engine.push_files(["model", "large.bin"], address)
    skopeo.copy(f"docker://{address.removeprefix('http://')}", f"oci:{tmp_path}/layout:v1")
    pulled = engine.pull_files(f"oci:{tmp_path}/layout:v1", tmp_path / "out")

    assert pulled.descriptor == pushed.descriptor
    assert tree_of(tmp_path / "out" / "model") == tree_of(here / "model")


def put_artifact(engine: Engine, address: str, *layers: dict[str, object]) -> None:
    """Write a manifest with any layers; their blobs are the directory of oras."""
    repository = address.rpartition(":")[0]
    engine.push_blob(EMPTY_BLOB, repository)
    engine.push_blob(BLOB, repository)
    config = EMPTY_CONFIG.to_json()
    manifest = {"schemaVersion": 2, "config": config, "layers": list(layers)}
    engine.push_manifest(
        json.dumps(manifest).encode(),
        address,
        media_type="application/vnd.oci.image.manifest.v1+json",
    )


def layer(title: str | None, **annotations: str) -> dict[str, object]:
    titles = {} if title is None else {TITLE: title}
    return {
        "mediaType": "application/x",
        "digest": str(Digest.from_bytes(BLOB)),
        "size": len(BLOB),
        "annotations": {**titles, **annotations},
    }


@pytest.mark.threads_only
@pytest.mark.parametrize("title", [title for title in UNSAFE if title and "\udc80" not in title])
def test_unsafe_title_writes_nothing(
    engine: Engine, address: str, tmp_path: Path, title: str
) -> None:
    put_artifact(engine, address, layer("good"), layer(title))

    with pytest.raises(ContentError, match="cannot be the title"):
        engine.pull_files(address, tmp_path / "down" / "out")

    assert not (tmp_path / "down").exists()


@pytest.mark.parametrize("titles", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("b/a", "b")])
def test_two_files_of_one_path_write_nothing(
    engine: Engine, address: str, tmp_path: Path, titles: tuple[str, str]
) -> None:
    put_artifact(engine, address, *map(layer, titles))

    with pytest.raises(ContentError, match="title"):
        engine.pull_files(address, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_artifact_of_oras_is_unpacked(engine: Engine, address: str, tmp_path: Path) -> None:
    make_model(tmp_path / "made")
    annotations = {UNPACK: "true", "io.deis.oras.content.digest": CONTENT_DIGEST}
    put_artifact(engine, address, layer("model", **annotations))

    engine.pull_files(address, tmp_path / "out")

    assert tree_of(tmp_path / "out" / "model") == tree_of(tmp_path / "made")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model"}


def test_archive_that_need_not_be_unpacked_is_a_file(
    engine: Engine, address: str, tmp_path: Path
) -> None:
    put_artifact(engine, address, layer("model", **{UNPACK: "false"}), layer(None))

    pulled = engine.pull_files(address, tmp_path / "out")

    assert (tmp_path / "out" / "model").read_bytes() == BLOB
    assert pulled.untitled_count == 1


def test_one_blob_may_have_several_titles(engine: Engine, address: str, tmp_path: Path) -> None:
    put_artifact(engine, address, *(layer(title) for title in ("a", "b", "c/d")))

    engine.pull_files(address, tmp_path / "out")

    for title in ("a", "b", "c/d"):
        assert (tmp_path / "out" / title).read_bytes() == BLOB
    assert set(tree_of(tmp_path / "out")) == {"a", "b", "c", "c/d"}


def in_the_way(out: Path, kind: str) -> None:
    out.mkdir()
    outside = out.with_name("outside")
    outside.mkdir()
    if kind == "a directory":
        (out / "a").mkdir()
        (out / "a" / "b").mkdir()
    elif kind == "a link to a file":
        (out / "a").mkdir()
        (out / "a" / "b").symlink_to(outside / "file")
    elif kind == "a link to a directory":
        (out / "a").symlink_to(outside)
    else:
        (out / "a").write_bytes(b"kept")


@pytest.mark.parametrize(
    "kind", ["a directory", "a link to a file", "a link to a directory", "a file"]
)
def test_what_is_in_the_way_stays(engine: Engine, address: str, tmp_path: Path, kind: str) -> None:
    put_artifact(engine, address, layer("a/b"))
    in_the_way(tmp_path / "out", kind)
    before = tree_of(tmp_path)

    with pytest.raises(ConcilError):
        engine.pull_files(address, tmp_path / "out")

    assert tree_of(tmp_path / "outside") == {}
    assert set(tree_of(tmp_path)) == set(before)


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_directory_does_not_replace_something_else(
    engine: Engine, address: str, tmp_path: Path, kind: str
) -> None:
    put_artifact(engine, address, layer("model", **{UNPACK: "true"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    if kind == "a file":
        (tmp_path / "out" / "model").write_bytes(b"kept")
    else:
        (tmp_path / "out" / "model").symlink_to(tmp_path / "outside")

    with pytest.raises(UsageError, match="model"):
        engine.pull_files(address, tmp_path / "out")

    assert tree_of(tmp_path / "outside") == {}


def test_output_may_be_a_link_to_a_directory(engine: Engine, address: str, tmp_path: Path) -> None:
    put_artifact(engine, address, layer("a/b"))
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")

    engine.pull_files(address, tmp_path / "out")

    assert (tmp_path / "real" / "a" / "b").read_bytes() == BLOB


def test_existing_file_is_replaced_and_an_equal_one_is_not_downloaded(
    engine: Engine, relayed_registry: RelayedRegistry, here: Path, tmp_path: Path
) -> None:
    del here
    engine.push_files(["large.bin", "empty"], f"{relayed_registry.registry.url}/files:1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "empty").write_bytes(b"old content")
    (tmp_path / "out" / "large.bin").write_bytes(make_blob(1, SIZE))
    relayed_registry.log.clear()

    engine.pull_files(f"{relayed_registry.relay.url}/files:1", tmp_path / "out")

    assert (tmp_path / "out" / "empty").read_bytes() == b""
    blobs = [r.path for r in relayed_registry.log.requests if "/blobs/" in r.path]
    assert all(str(Digest.from_bytes(b"")) in path for path in blobs)


def test_image_is_no_artifact(
    engine: Engine, registry: Registry, address: str, repository: str, tmp_path: Path
) -> None:
    put_image(registry.url, repository, "1", make_image(1))

    with pytest.raises(ContentError, match="no files"):
        engine.pull_files(address, tmp_path / "out")
    with pytest.raises(NotFound, match="no image for linux/s390x"):
        engine.pull_files(address, tmp_path / "out", platform="linux/s390x")


def test_attached_files_are_listed_and_pulled(
    engine: Engine, registry: Registry, address: str, repository: str, tmp_path: Path
) -> None:
    image = make_image(1)
    put_image(registry.url, repository, "1", image)
    sbom = engine.attach([ArtifactFile(b"{}", "sbom.json")], address, "application/spdx+json")
    note = engine.attach([], address, TYPE, annotations={"note": "x"})

    found = {r.digest: r.artifact_type for r in engine.referrers(address)}
    assert found == {
        sbom.descriptor.digest: "application/spdx+json",
        note.descriptor.digest: TYPE,
    }
    only = engine.referrers(address, artifact_type=TYPE)
    assert [r.digest for r in only] == [note.descriptor.digest]
    engine.pull_files(f"{address.rpartition(':')[0]}@{sbom.descriptor.digest}", tmp_path / "out")
    assert (tmp_path / "out" / "sbom.json").read_bytes() == b"{}"
    document = json.loads(get_manifest(registry.url, repository, str(sbom.descriptor.digest)))
    assert document["subject"]["digest"] == image.digest


class StopAt:
    """A progress sink that cancels a call once a blob has got so far."""

    def __init__(self, position: int) -> None:
        self.stop = threading.Event()
        self.started: list[int] = []  # positions at which transfers of a large blob began
        self._position = position

    def __call__(self, event: Event) -> None:
        if event.state is State.STARTED and event.total is not None and event.total > CHUNK:
            self.started.append(event.position)
        if event.state is State.MOVING and event.position >= self._position:
            self.stop.set()


@pytest.mark.parametrize("content", ["large.bin", "directory"])
def test_interrupted_push_is_resumed(
    registry: Registry, repository: str, here: Path, journal: Journal, content: str
) -> None:
    address = f"{registry.url}/{repository}:1"
    first, second = StopAt(2 * CHUNK), StopAt(2**62)
    with Relay(registry.host, rate=RATE) as relay:
        slow = f"{relay.url}/{repository}:1"
        with engine_of(progress=first, journal=journal) as engine, pytest.raises(Cancelled):
            engine.push_files(content, slow, cancel=first.stop)
        relay.rate = None
        with engine_of(progress=second, journal=journal) as engine:
            engine.push_files(content, slow)
    with engine_of() as engine:
        engine.pull_files(address, here / "out")

    assert max(second.started) >= CHUNK
    if content == "directory":
        assert tree_of(here / "out" / "directory") == tree_of(here / "directory")
    else:
        assert (here / "out" / "large.bin").read_bytes() == make_blob(1, SIZE)


@pytest.mark.parametrize("content", ["large.bin", "directory"])
def test_interrupted_pull_is_resumed(
    registry: Registry, repository: str, here: Path, journal: Journal, content: str
) -> None:
    address = f"{registry.url}/{repository}:1"
    first, second = StopAt(2 * CHUNK), StopAt(2**62)
    with engine_of() as engine:
        engine.push_files(content, address)
    with Relay(registry.host, rate=RATE) as relay:
        slow = f"{relay.url}/{repository}:1"
        with engine_of(progress=first, journal=journal) as engine, pytest.raises(Cancelled):
            engine.pull_files(slow, here / "out", cancel=first.stop)
    assert not (here / "out" / content).exists()

    with engine_of(progress=second, journal=journal) as engine:
        engine.pull_files(address, here / "out")

    assert max(second.started) >= CHUNK
    assert {path.name for path in (here / "out").iterdir()} == {content}
    if content == "directory":
        assert tree_of(here / "out" / "directory") == tree_of(here / "directory")
    else:
        assert (here / "out" / "large.bin").read_bytes() == make_blob(1, SIZE)


def test_manifest_is_pushed_unchanged(
    engine: Engine, registry: Registry, address: str, repository: str
) -> None:
    put_artifact(engine, address, layer("a"))
    body = get_manifest(registry.url, repository, "1")
    other = address.rpartition(":")[0]

    pushed = engine.push_manifest(body, f"{other}:2")

    assert get_manifest(registry.url, repository, "2") == body
    assert engine.push_manifest(body, f"{other}@{pushed.digest}") == pushed
    with pytest.raises(UsageError, match="hashes to"):
        engine.push_manifest(body + b" ", f"{other}@{pushed.digest}")
    with pytest.raises(ContentError):
        engine.push_manifest(b"{}", f"{other}:3")


def test_blob_is_mounted_and_deleted(engine: Engine, registry: Registry, repository: str) -> None:
    address = f"{registry.url}/{repository}"
    blob = engine.push_blob(b"content", address)

    assert engine.mount_blob(f"{address}@{blob.digest}", f"{address}/other").digest == blob.digest
    engine.delete_blob(f"{address}/other@{blob.digest}")

    with pytest.raises(NotFound):
        engine.delete_blob(f"{address}/other@{blob.digest}")
    with pytest.raises(UsageError, match="two registries"):
        engine.mount_blob(f"{address}@{blob.digest}", "http://localhost:1/other")
    with engine.open_blob(f"{address}@{blob.digest}") as file:
        assert file.read() == b"content"
