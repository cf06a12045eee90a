"""Archives as sources and destinations, each shape as its tool writes it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.errors import (
    ConcilError,
    ContentError,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    StoreError,
    UsageError,
)
from concil.fs.partial_file import PartialFile
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.store.archive import decompress
from concil.store.archive.oci import OCIArchive
from concil.store.layout.store import LayoutStore
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.engine.engine_setup import WAIT, blob_path, engine_of
from tests.store.archive.test_decompress import PACKERS
from tests.support import store_contract
from tests.support.archives import (
    image_of,
    layout_members,
    legacy_members,
    link,
    manifest_member,
    member,
    plain_layer,
    write_tar,
)
from tests.support.images import (
    DOCKER,
    Image,
    Layer,
    MediaTypes,
    digest_of,
    make_image,
    make_index,
    write_layout,
)
from tests.support.layouts import has_message

PLATFORMS = ("linux/amd64", "linux/arm64")


def index_of(types: MediaTypes = DOCKER) -> Image:
    images = [make_image(n, platform=p, types=types) for n, p in enumerate(PLATFORMS)]
    return make_index(images, types=types)


def layout_of(directory: Path, **images: Image) -> str:
    write_layout(directory, images)
    return f"oci:{directory}"


def files_of(path: Path) -> dict[str, bytes]:
    """What an archive holds by tarfile's reading; every name once."""
    with tarfile.open(path) as tar:
        files = [one for one in tar.getmembers() if one.isreg()]
        assert len({one.name for one in files}) == len(files)
        found = {one.name: tar.extractfile(one) for one in files}
        return {name: file.read() for name, file in found.items() if file is not None}


def assert_holds(path: Path, image: Image) -> None:
    """Assert that an oci-archive has all of an image, byte for byte."""
    files = files_of(path)
    wanted = {one.digest: one.manifest for one in image.walk()} | image.all_blobs()
    for digest, content in wanted.items():
        assert files[f"blobs/{digest.replace(':', '/')}"] == content


def listed(path: Path) -> list[dict[str, Any]]:
    """The manifest.json of a docker-archive."""
    found: list[dict[str, Any]] = json.loads(files_of(path)["manifest.json"])
    return found


def left_beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one != path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a file in a directory of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "images.tar"


# oci-archive ---------------------------------------------------------------------------


def test_image_is_copied_into_an_archive_and_back(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    image = index_of()
    source = layout_of(tmp_path / "in", v1=image)

    result = engine.copy(f"{source}:v1", f"oci-archive:{out}:app:1")
    engine.copy(f"oci-archive:{out}:app:1", f"oci:{tmp_path}/back:v1")

    assert str(result.digest) == image.digest
    assert left_beside(out) == []
    assert_holds(out, image)
    assert blob_path(tmp_path / "back", image.digest).read_bytes() == image.manifest
    for digest, blob in image.all_blobs().items():
        assert blob_path(tmp_path / "back", digest).read_bytes() == blob


def test_an_archive_is_added_to_and_what_is_up_to_date_is_left_alone(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    first, second, later = make_image(1), index_of(), make_image(3)
    source = layout_of(tmp_path / "in", a=first, b=second, c=later)
    engine.copy(f"{source}:a", f"oci-archive:{out}:a")
    before = out.read_bytes()

    again = engine.copy(f"{source}:a", f"oci-archive:{out}:a")
    assert (again.state.value, out.read_bytes()) == ("present", before)
    engine.copy(f"{source}:b", f"oci-archive:{out}:b")
    engine.copy(f"{source}:c", f"oci-archive:{out}:a")

    assert list(engine.list_tags(f"oci-archive:{out}")) == ["a", "b"]
    for image in (first, second, later):
        assert_holds(out, image)
    assert left_beside(out) == []


def test_a_mirror_into_one_archive_holds_all_its_images_and_shared_layers_once(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    shared = Layer(plain_layer(9), digest_of(plain_layer(9)))
    images = {f"v{n}": make_image(n, [shared, 500 + n]) for n in range(6)}
    source = layout_of(tmp_path / "in", **images)

    report = engine.mirror(
        MirrorItem(f"{source}:{name}", f"oci-archive:{out}:{name}") for name in [*images, "absent"]
    )

    assert (len(report.copied), len(report.failed)) == (6, 1)
    assert sorted(engine.list_tags(f"oci-archive:{out}")) == sorted(images)
    for image in images.values():
        assert_holds(out, image)


def test_copies_at_the_same_time_land_in_one_archive(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    names = [f"v{n}" for n in range(6)]
    source = layout_of(tmp_path / "in", **{name: make_image(int(name[1:])) for name in names})
    # However its path is written it is one archive.
    paths = (out, out.parent / ".." / "out" / out.name)
    together = threading.Barrier(len(names))

    def copy(number: int) -> None:
        together.wait(WAIT)
        target = f"oci-archive:{paths[number % 2]}:{names[number]}"
        engine.copy(f"{source}:{names[number]}", target)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(copy, range(len(names))))

    assert sorted(engine.list_tags(f"oci-archive:{out}")) == names
    assert left_beside(out) == []


def test_an_image_without_a_name_is_found_by_its_digest(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    image = make_image(1)
    source = layout_of(tmp_path / "in", v1=image)
    address = f"oci-archive:{out}@{image.digest}"

    engine.copy(f"{source}:v1", address)

    assert_holds(out, image)
    assert str(engine.copy(address, f"oci:{tmp_path}/back:v1").digest) == image.digest


def test_changed_archive_is_read_again(engine: Engine, tmp_path: Path, out: Path) -> None:
    source = layout_of(tmp_path / "in", v1=make_image(1), v2=make_image(2))
    engine.copy(f"{source}:v1", f"oci-archive:{out}:v1")
    assert list(engine.list_tags(f"oci-archive:{out}")) == ["v1"]

    engine.copy(f"{source}:v2", f"oci-archive:{out}:v2")

    assert list(engine.list_tags(f"oci-archive:{out}")) == ["v1", "v2"]


def test_archive_of_the_other_format_names_the_right_scheme(engine: Engine, tmp_path: Path) -> None:
    files = layout_members(tmp_path / "in", {"v1": make_image(1)})
    write_tar(tmp_path / "layout.tar", [member(n, c) for n, c in files.items()])
    write_tar(tmp_path / "saved.tar", [manifest_member()])

    for scheme, name, other in (
        ("docker-archive", "layout.tar", "oci-archive:FILE"),
        ("oci-archive", "saved.tar", "docker-archive:FILE"),
    ):
        with pytest.raises(StoreError) as excinfo:
            list(engine.list_tags(f"{scheme}:{tmp_path}/{name}"))
        assert other in excinfo.value.remedy


def test_members_may_stand_in_any_order_and_with_a_dot_in_front(
    engine: Engine, tmp_path: Path
) -> None:
    image = index_of()
    files = layout_members(tmp_path / "in", {"v1": image})
    for number, names in enumerate((sorted(files), sorted(files, reverse=True))):
        path = tmp_path / f"{number}.tar"
        write_tar(path, [member(f"./{name}", files[name]) for name in names])

        assert str(engine.copy(f"oci-archive:{path}", f"oci:{tmp_path}/out:v1").digest) == (
            image.digest
        )


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_a_packed_archive_is_read_and_not_added_to(
    engine: Engine, tmp_path: Path, scheme: str, packing: str
) -> None:
    image, config, layers = image_of(1)
    files = layout_members(tmp_path / "in", {"v1": image})
    members = [member(name, content) for name, content in files.items()]
    saved = legacy_members("app:1", next(iter(config.values())), layers)
    plain = write_tar(tmp_path / "plain", members if scheme == "oci-archive" else saved)
    packed = tmp_path / "images.tar.packed"
    packed.write_bytes(PACKERS[packing](plain.read_bytes()))

    engine.copy(f"{scheme}:{packed}", f"oci:{tmp_path}/out:v1")

    for digest, blob in image.all_blobs().items():
        assert blob_path(tmp_path / "out", digest).read_bytes() == blob
    with pytest.raises(UsageError) as excinfo:
        engine.copy(f"oci:{tmp_path}/in:v1", f"{scheme}:{packed}:other")
    assert has_message(
        excinfo.value,
        f"compressed with {packing}" if scheme == "oci-archive" else "cannot be added to",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"no archive" * 100, "not a tar archive"),
        (bz2.compress(b"x" * 1000), "not a tar archive"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 1000, "is damaged"),
        (lzma.compress(b"x" * 5000)[:-12], "middle of its xz"),
        (gzip.compress(b"x" * 5000)[:-12], "middle of its gzip"),
        (gzip.compress(b"x" * 5000)[:10] + b"\xff" * 100, "is damaged"),
    ],
    ids=["empty", "text", "bzip2", "zstd", "half an xz", "half a gzip", "damaged gzip"],
)
@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_invalid_archive_is_an_error_in_one_line(
    engine: Engine, tmp_path: Path, scheme: str, content: bytes, words: str
) -> None:
    (tmp_path / "a.tar").write_bytes(content)

    with pytest.raises(ConcilError) as excinfo:
        engine.copy(f"{scheme}:{tmp_path}/a.tar", f"oci:{tmp_path}/out:v1")
    assert has_message(excinfo.value, words, "a.tar")


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_archive_of_other_content_is_an_error_in_one_line(
    engine: Engine, tmp_path: Path, scheme: str
) -> None:
    write_tar(tmp_path / "a.tar", [member("etc/passwd", b"root")])

    with pytest.raises(StoreError) as excinfo:
        engine.copy(f"{scheme}:{tmp_path}/a.tar", f"oci:{tmp_path}/out:v1")
    assert has_message(excinfo.value, "not a", "a.tar")
    with pytest.raises(NotFound) as missing:
        engine.copy(f"{scheme}:{tmp_path}/none.tar", f"oci:{tmp_path}/out:v1")
    assert has_message(missing.value, "no archive", "none.tar")
    assert not (tmp_path / "out").exists()


def test_a_damaged_blob_in_an_archive_is_never_copied(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    image = make_image(1)
    files = layout_members(tmp_path / "in", {"v1": image})
    digest = next(iter(json.loads(image.manifest)["layers"]))["digest"]
    name = f"blobs/{digest.replace(':', '/')}"
    files[name] = b"\0" * len(files[name])
    source = write_tar(tmp_path / "a.tar", [member(n, c) for n, c in files.items()])

    for target in (f"oci-archive:{out}:v1", f"docker-archive:{out}:v1", f"oci:{tmp_path}/l:v1"):
        with pytest.raises(DigestMismatch):
            engine.copy(f"oci-archive:{source}:v1", target)

    assert not out.exists()
    assert left_beside(out) == []


def test_an_image_that_is_not_in_it_and_several_without_a_name(
    engine: Engine, tmp_path: Path
) -> None:
    files = layout_members(tmp_path / "in", {"v1": make_image(1), "v2": make_image(2)})
    source = write_tar(tmp_path / "a.tar", [member(n, c) for n, c in files.items()])

    with pytest.raises(NotFound) as missing:
        engine.copy(f"oci-archive:{source}:v3", f"oci:{tmp_path}/out:v1")
    assert has_message(missing.value, "v3")
    assert "v1, v2" in missing.value.remedy
    with pytest.raises(UsageError) as several:
        engine.copy(f"oci-archive:{source}", f"oci:{tmp_path}/out:v1")
    assert has_message(several.value, "v1, v2")


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_invalid_archive_path_is_an_error_before_the_first_request(
    engine: Engine, tmp_path: Path, scheme: str
) -> None:
    source = layout_of(tmp_path / "in", v1=make_image(1))

    for place, words in ((tmp_path, "is a directory"), (tmp_path / "no/dir/x", "does not exist")):
        with pytest.raises(UsageError) as excinfo:
            engine.copy(f"{source}:v1", f"{scheme}:{place}:v1")
        assert has_message(excinfo.value, words)


def test_an_archive_that_is_read_is_not_changed(engine: Engine, tmp_path: Path, out: Path) -> None:
    source = layout_of(tmp_path / "in", v1=make_image(1))
    engine.copy(f"{source}:v1", f"oci-archive:{out}:v1")
    before = out.read_bytes()
    archive = OCIArchive(out)

    with pytest.raises(UsageError) as excinfo:
        LayoutStore(archive).delete_manifest("v1")
    assert has_message(excinfo.value, "cannot be changed in place")
    archive.close()
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "name", "remedy"),
    [
        ("oci-archive", "a", "images are added to the archive"),
        ("docker-archive", "a.example/b:1", "choose another file"),
    ],
)
def test_archive_that_another_program_wrote_is_not_overwritten(  # noqa: PLR0917 - fixtures
    config: TransferConfig, tmp_path: Path, out: Path, kind: str, name: str, remedy: str
) -> None:
    source = layout_of(tmp_path / "in", a=make_image(1))
    outcomes: list[Outcome] = []

    def items() -> Iterator[MirrorItem]:
        yield MirrorItem(f"{source}:a", f"{kind}:{out}:{name}")
        yield MirrorItem(f"{source}:a", f"{kind}:{out}:{name}-again")
        out.write_bytes(b"another's")

    one_after_the_other = replace(config, concurrent_images=1)
    with engine_of(one_after_the_other) as engine, pytest.raises(StoreError) as excinfo:
        engine.mirror(items(), on_image=outcomes.append)
    assert has_message(excinfo.value, "another program")
    assert remedy in excinfo.value.remedy
    # Nobody was told that they are there.
    assert [outcome.error for outcome in outcomes] == [excinfo.value, excinfo.value]
    assert out.read_bytes() == b"another's"
    assert left_beside(out) == []


def test_blobs_of_a_failed_image_that_are_late_do_no_harm(out: Path) -> None:
    whole = LayoutStore(OCIArchive(out, writable=True))
    store_contract.put_image(whole, 1, "v1")
    writer = whole.begin_blob(10, Digest.from_bytes(b"x" * 10))
    assert not isinstance(writer, PartialFile)
    writer.append(store_contract.Window(b"x" * 5))

    assert isinstance(whole.backend, OCIArchive)
    whole.backend.commit()
    before = out.read_bytes()

    with pytest.raises(StoreError, match="is closed"):
        writer.append(store_contract.Window(b"x" * 5))
    with pytest.raises(StoreError, match="is closed"):
        whole.begin_blob(10, Digest.from_bytes(b"y" * 10))
    assert out.read_bytes() == before
    assert digest_of(b"x" * 10)[7:] not in "".join(files_of(out))
    assert left_beside(out) == []


# docker-archive ------------------------------------------------------------------------


def test_layers_are_unpacked_for_docker_and_the_config_stays(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    image = make_image(1, (3000, 1_200_000), types=DOCKER)
    source = layout_of(tmp_path / "in", v1=image)
    document = json.loads(image.manifest)
    config = image.blobs[document["config"]["digest"]]
    plain = [gzip.decompress(image.blobs[layer["digest"]]) for layer in document["layers"]]

    engine.copy(f"{source}:v1", f"docker-archive:{out}:app:1")

    files, (entry,) = files_of(out), listed(out)
    assert entry["RepoTags"] == ["docker.io/library/app:1"]
    assert files[entry["Config"]] == config
    assert [files[name] for name in entry["Layers"]] == plain
    assert [digest_of(layer) for layer in plain] == json.loads(config)["rootfs"]["diff_ids"]
    assert left_beside(out) == []


def test_several_images_land_in_one_docker_archive(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    shared = make_image(7, (40_000,))
    layer = json.loads(shared.manifest)["layers"][0]["digest"]
    diff_id = digest_of(gzip.decompress(shared.blobs[layer]))
    made = Layer(shared.blobs[layer], diff_id)
    images = {f"v{n}": make_image(n, [made, 100 + n]) for n in range(3)}
    source = layout_of(tmp_path / "in", **images)
    names = {"app:1": "v0", "app:2": "v1", "other:1": "v2", "other:2": "v2"}

    report = engine.mirror(
        MirrorItem(f"{source}:{name}", f"docker-archive:{out}:{tag}") for tag, name in names.items()
    )

    assert not report.failed
    assert sorted(sorted(entry["RepoTags"]) for entry in listed(out)) == [
        ["docker.io/library/app:1"],
        ["docker.io/library/app:2"],
        ["docker.io/library/other:1", "docker.io/library/other:2"],
    ]
    assert sum(name == f"{diff_id[7:]}.tar" for name in files_of(out)) == 1
    with pytest.raises(UsageError) as excinfo:
        engine.copy(f"{source}:v1", f"docker-archive:{out}:app:3")
    assert has_message(excinfo.value, "cannot be added to")


def test_an_image_for_several_platforms_needs_one_chosen(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    source = layout_of(tmp_path / "in", v1=index_of())

    with pytest.raises(UsageError) as excinfo:
        engine.copy(f"{source}:v1", f"docker-archive:{out}:app")
    assert has_message(excinfo.value, "linux/amd64, linux/arm64")
    assert "platforms=" in excinfo.value.remedy
    assert not out.exists()
    engine.copy(f"{source}:v1", f"docker-archive:{out}:app", platforms=["linux/arm64"])

    (entry,) = listed(out)
    assert json.loads(files_of(out)[entry["Config"]])["architecture"] == "arm64"


def layout_with_layer(directory: Path, blob: bytes, diff_id: str) -> str:
    return f"{layout_of(directory, v1=make_image(1, [Layer(blob, diff_id)]))}:v1"


def test_layers_that_are_not_those_of_the_config_are_refused(
    engine: Engine, tmp_path: Path, out: Path
) -> None:
    source = layout_with_layer(tmp_path / "in", gzip.compress(plain_layer(1)), digest_of(b"other"))

    with pytest.raises(DigestMismatch) as excinfo:
        engine.copy(source, f"docker-archive:{out}:app")
    assert has_message(excinfo.value, "do not match its config")
    assert not out.exists()
    assert left_beside(out) == []


def test_a_layer_that_unpacks_without_end_is_refused(
    engine: Engine, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = gzip.compress(bytes(3_000_000))
    monkeypatch.setattr(decompress, "MAX_RATIO", 10)
    monkeypatch.setattr(decompress, "MIN_OUTPUT_LIMIT", 100_000)
    source = layout_with_layer(tmp_path / "in", bomb, digest_of(bytes(3_000_000)))

    with pytest.raises(ContentError) as excinfo:
        engine.copy(source, f"docker-archive:{out}:app")
    assert has_message(excinfo.value, "decompresses to more than 100000 bytes")
    assert left_beside(out) == []


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"\x28\xb5\x2f\xfd\xff" + bytes(50), "is damaged"),
        (gzip.compress(plain_layer(1))[:-9], "middle of its gzip"),
    ],
    ids=["zstd", "half"],
)
def test_layers_that_cannot_be_decompressed_are_an_error_in_one_line(
    engine: Engine, tmp_path: Path, out: Path, blob: bytes, words: str
) -> None:
    source = layout_with_layer(tmp_path / "in", blob, digest_of(plain_layer(1)))

    with pytest.raises(ConcilError) as excinfo:
        engine.copy(source, f"docker-archive:{out}:app")
    assert has_message(excinfo.value, words)
    assert not out.exists()


def test_what_docker_saved_up_to_24_becomes_an_image_with_the_same_id(
    engine: Engine, tmp_path: Path
) -> None:
    same = plain_layer(1)
    layers = [same, plain_layer(2), same]
    _, config, _ = image_of(1)
    content = json.loads(next(iter(config.values())))
    content["rootfs"]["diff_ids"] = [digest_of(layer) for layer in layers]
    saved = json.dumps(content).encode()
    source = write_tar(tmp_path / "saved.tar", legacy_members("busybox:1", saved, layers))

    result = engine.copy(f"docker-archive:{source}:busybox:1", f"oci:{tmp_path}/out:v1")

    manifest = json.loads(blob_path(tmp_path / "out", str(result.digest)).read_bytes())
    assert manifest["mediaType"] == DOCKER.manifest
    assert manifest["config"]["digest"] == digest_of(saved)
    assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(x) for x in layers]
    for layer in layers:
        assert blob_path(tmp_path / "out", digest_of(layer)).read_bytes() == layer
    assert list(engine.list_tags(f"docker-archive:{source}")) == ["docker.io/library/busybox:1"]


def test_what_docker_saves_from_25_on_is_read_as_either(engine: Engine, tmp_path: Path) -> None:
    image, config, layers = image_of(1)
    files = layout_members(tmp_path / "in", {"1": image})
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/library/app:1"
    files["index.json"] = json.dumps(index).encode()
    names = [f"blobs/sha256/{digest_of(layer)[7:]}" for layer in layers]
    entry = {
        "Config": f"blobs/sha256/{next(iter(config))[7:]}",
        "RepoTags": ["app:1"],
        "Layers": names,
    }
    members = [member(n, c) for n, c in files.items()]
    source = write_tar(tmp_path / "saved.tar", [manifest_member(entry), *members])

    as_layout = engine.copy(
        f"oci-archive:{source}:docker.io/library/app:1", f"oci:{tmp_path}/out:layout"
    )
    as_docker = engine.copy(f"docker-archive:{source}:app:1", f"oci:{tmp_path}/out:docker")

    assert str(as_layout.digest) == image.digest
    made = json.loads(blob_path(tmp_path / "out", str(as_docker.digest)).read_bytes())
    assert made["config"]["digest"] == next(iter(config))
    assert as_docker.bytes_sent == 0


@pytest.mark.parametrize("packing", ["zstd", "bzip2", "xz"])
def test_layers_that_registries_do_not_know_packed_are_unpacked(
    engine: Engine, tmp_path: Path, out: Path, packing: str
) -> None:
    """Out of a docker-archive, and into one: layers in zstd are common in registries."""
    _, config, layers = image_of(1)
    packed = [PACKERS[packing](layer) for layer in layers]
    entry = {"Config": "c", "RepoTags": ["app:1"], "Layers": ["a", "b", "a"]}
    content = json.loads(next(iter(config.values())))
    content["rootfs"]["diff_ids"] = [digest_of(layer) for layer in (*layers, layers[0])]
    source = write_tar(
        tmp_path / "saved.tar",
        [
            manifest_member(entry),
            member("c", json.dumps(content).encode()),
            member("a", packed[0]),
            member("b", packed[1]),
        ],
    )

    result = engine.copy(f"docker-archive:{source}:app:1", f"oci:{tmp_path}/out:v1")
    engine.copy(f"docker-archive:{source}:app:1", f"docker-archive:{out}:app:1")

    manifest = Manifest.parse(blob_path(tmp_path / "out", str(result.digest)).read_bytes())
    digests = [str(layer.digest) for layer in manifest.blobs()[1:]]
    assert digests == [digest_of(layer) for layer in (*layers, layers[0])]
    for layer in layers:
        assert blob_path(tmp_path / "out", digest_of(layer)).read_bytes() == layer
    assert {files_of(out)[name] for name in listed(out)[0]["Layers"]} == set(layers)
    pulled = engine.pull_blob(f"docker-archive:{source}@{digests[1]}", tmp_path / "layer")
    assert (tmp_path / "layer").read_bytes() == layers[1]
    assert pulled.size == len(layers[1])


@pytest.mark.parametrize("packing", ["zstd", "bzip2", "xz"])
def test_packed_layers_of_a_registry_or_layout_become_plain_in_a_docker_archive(
    engine: Engine, tmp_path: Path, out: Path, packing: str
) -> None:
    plain = plain_layer(1)
    source = layout_with_layer(tmp_path / "in", PACKERS[packing](plain), digest_of(plain))

    engine.copy(source, f"docker-archive:{out}:app")

    (entry,) = listed(out)
    assert [files_of(out)[name] for name in entry["Layers"]] == [plain]


@pytest.mark.parametrize("packing", PACKERS)
def test_a_layer_of_an_archive_that_unpacks_without_end_is_refused(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    monkeypatch.setattr(decompress, "MAX_RATIO", 10)
    monkeypatch.setattr(decompress, "MIN_OUTPUT_LIMIT", 100_000)
    bomb = PACKERS[packing](bytes(3_000_000))
    _, config, _ = image_of(1, layers=1)
    entry = {"Config": "c", "RepoTags": ["app:1"], "Layers": ["a"]}
    members = [manifest_member(entry), member("c", next(iter(config.values()))), member("a", bomb)]
    source = write_tar(tmp_path / "saved.tar", members)
    whole = tmp_path / "whole"
    whole.write_bytes(PACKERS[packing](bytes(3_000_000)))

    for address in (f"docker-archive:{source}", f"oci-archive:{whole}"):
        with pytest.raises(ContentError) as excinfo:
            engine.copy(address, f"oci:{tmp_path}/out:v1")
        assert has_message(excinfo.value, "decompresses to more than 100000 bytes")


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda packed: packed[:-5], "is truncated"),
        (lambda packed: packed + b"something else", "is damaged"),
    ],
    ids=["truncated", "trailing"],
)
def test_a_damaged_layer_of_a_docker_archive_is_never_copied(
    engine: Engine, tmp_path: Path, packing: str, change: Callable[[bytes], bytes], words: str
) -> None:
    """Gzip, too, which stays as it is: its digest says nothing of its content."""
    _, config, (layer,) = image_of(1, layers=1)
    entry = {"Config": "c", "RepoTags": ["app:1"], "Layers": ["a"]}
    members = [manifest_member(entry), member("c", next(iter(config.values())))]
    source = tmp_path / "saved.tar"
    write_tar(source, [*members, member("a", change(PACKERS[packing](layer)))])

    with pytest.raises(ContentError) as excinfo:
        engine.copy(f"docker-archive:{source}", f"oci:{tmp_path}/out:v1")

    assert has_message(excinfo.value, words, "layer a in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("packing", PACKERS)
def test_a_layer_of_a_docker_archive_is_what_the_config_says(
    engine: Engine, tmp_path: Path, packing: str
) -> None:
    _, config, _ = image_of(1, layers=1)
    entry = {"Config": "c", "RepoTags": ["app:1"], "Layers": ["a"]}
    members = [manifest_member(entry), member("c", next(iter(config.values())))]
    source = tmp_path / "saved.tar"
    write_tar(source, [*members, member("a", PACKERS[packing](plain_layer(99)))])

    with pytest.raises(DigestMismatch) as excinfo:
        engine.copy(f"docker-archive:{source}", f"oci:{tmp_path}/out:v1")

    assert has_message(excinfo.value, "layer a in", "does not match its diff ID")


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_layer_of_a_docker_archive_is_read_in_every_way(
    engine: Engine, tmp_path: Path, packing: str
) -> None:
    _, config, (layer,) = image_of(1, layers=1)
    pack = PACKERS[packing]
    packed = pack(layer[:4000]) + pack(layer[4000:])
    entry = {"Config": "c", "RepoTags": ["app:1"], "Layers": ["a"]}
    members = [manifest_member(entry), member("c", next(iter(config.values())))]
    plain = write_tar(tmp_path / "saved.tar", [*members, member("a", packed)])
    whole = tmp_path / "whole.tar"
    whole.write_bytes(pack(plain.read_bytes()[:4000]) + pack(plain.read_bytes()[4000:]))

    for source in (f"docker-archive:{plain}", f"docker-archive:{whole}"):
        out = f"oci:{tmp_path}/{Path(source).name}.out"
        result = engine.copy(source, f"{out}:v1")
        again = engine.copy(f"{source}:app:1", f"{out}:v1")
        body = blob_path(Path(out[4:]), str(result.digest)).read_bytes()
        digest = Manifest.parse(body).blobs()[1].digest
        with engine.open_layer(f"{source}@{digest}") as opened:
            assert [one.name for one in opened] == ["file-10"]
        assert (again.state.value, again.digest) == ("present", result.digest)
        copied = blob_path(Path(out[4:]), str(digest)).read_bytes()
        assert copied == (packed if packing == "gzip" else layer)


def test_packed_layers_of_an_archive_stay_packed(engine: Engine, tmp_path: Path) -> None:
    _, config, layers = image_of(1)
    packed = [gzip.compress(layer) for layer in layers]
    name = "config.json"
    entry = {"Config": name, "RepoTags": None, "Layers": ["a.tar", "link"]}
    source = write_tar(
        tmp_path / "saved.tar",
        [
            manifest_member(entry),
            member(name, next(iter(config.values()))),
            member("a.tar", packed[0]),
            member("b.tar", packed[1]),
            link("link", "b.tar"),
        ],
    )

    result = engine.copy(f"docker-archive:{source}", f"oci:{tmp_path}/out:v1")

    manifest = Manifest.parse(blob_path(tmp_path / "out", str(result.digest)).read_bytes())
    assert [str(layer.digest) for layer in manifest.blobs()[1:]] == list(map(digest_of, packed))
    assert all(layer.media_type.endswith(".gzip") for layer in manifest.blobs()[1:])


def test_images_of_an_archive_are_distinguished(engine: Engine, tmp_path: Path) -> None:
    members, entries = [], []
    for number, tags in enumerate((["a:1"], ["b:1", "b:2"], None, ["<none>:<none>"])):
        _, config, layers = image_of(number, layers=1)
        members += [
            member(f"{number}.json", next(iter(config.values()))),
            member(f"{number}.tar", layers[0]),
        ]
        config_name, layer_name = f"{number}.json", f"{number}.tar"
        entries.append({"Config": config_name, "RepoTags": tags, "Layers": [layer_name]})
    source = write_tar(tmp_path / "saved.tar", [*members, manifest_member(*entries)])
    address = f"docker-archive:{source}"

    digests = {
        name: engine.copy(f"{address}:{name}", f"oci:{tmp_path}/out:{number}").digest
        for number, name in enumerate(("a:1", "b:1", "b:2", "@0", "@1", "@2", "@3"))
    }

    assert digests["a:1"] == digests["@0"]
    assert digests["b:1"] == digests["b:2"] == digests["@1"]
    assert len(set(digests.values())) == 4
    by_digest = engine.copy(f"{address}@{digests['@2']}", f"oci:{tmp_path}/out:d")
    assert by_digest.digest == digests["@2"]
    names = "docker.io/library/a:1, docker.io/library/b:1, @2, @3"
    with pytest.raises(UsageError) as several:
        engine.copy(address, f"oci:{tmp_path}/out:x")
    assert has_message(several.value, names)
    with pytest.raises(NotFound) as missing:
        engine.copy(f"{address}:c:1", f"oci:{tmp_path}/out:x")
    assert names in missing.value.remedy
    with pytest.raises(NotFound) as beyond:
        engine.copy(f"{address}:@4", f"oci:{tmp_path}/out:x")
    assert has_message(beyond.value, "4 images", "@4")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{}", "is not a list"),
        (b"[1]", "an invalid entry"),
        (b'[{"Config": 1}]', "an invalid entry"),
        (b'[{"Config": "c", "Layers": "l"}]', "an invalid entry"),
        (b'[{"Config": "c", "Layers": [1]}]', "an invalid entry"),
        (b"nonsense", "not JSON"),
        (b'[{"Config": "none", "Layers": []}]', "no 'none'"),
        (b'[{"Config": "../c", "Layers": []}]', "no '../c'"),
        (b'[{"Config": "c", "Layers": []}]', "lists 2 layers"),
        (b'[{"Config": "c", "Layers": ["x", "y"]}]', "no 'x'"),
        (b'[{"Config": "c", "Layers": []}, {"Config": "d", "Layers": []}]', "2 images"),
        (b'[{"Config": "manifest.json", "Layers": []}]', "not an image config"),
        (b'[{"Config": "c", "Layers": ["z", "z"]}]', "is damaged"),
    ],
)  # fmt: skip
def test_invalid_docker_archives_are_an_error_in_one_line(
    engine: Engine, tmp_path: Path, document: bytes, words: str
) -> None:
    _, config, layers = image_of(1)
    source = write_tar(
        tmp_path / "saved.tar",
        [
            member("c", next(iter(config.values()))),
            member("l", layers[0]),
            member("z", b"\xfd7zXZ\x00" + bytes(50)),
            member("manifest.json", document),
        ],
    )

    with pytest.raises((InvalidManifest, NotFound, StoreError, UsageError)) as excinfo:
        engine.copy(f"docker-archive:{source}", f"oci:{tmp_path}/out:v1")
    assert has_message(excinfo.value, words)


def test_a_damaged_layer_of_an_archive_is_found(engine: Engine, tmp_path: Path) -> None:
    _, config, layers = image_of(1)
    layers[1] = layers[1][:-1] + b"x"
    members = legacy_members("app:1", next(iter(config.values())), layers)
    source = write_tar(tmp_path / "saved.tar", members)

    with pytest.raises(DigestMismatch):
        engine.copy(f"docker-archive:{source}", f"oci:{tmp_path}/out:v1")
    with pytest.raises(NotFound):
        engine.copy(f"oci:{tmp_path}/out:v1", f"oci:{tmp_path}/none:v1")


def test_blobs_of_an_archive_can_be_pulled(engine: Engine, tmp_path: Path) -> None:
    _, config, layers = image_of(1)
    members = legacy_members("app:1", next(iter(config.values())), layers)
    source = write_tar(tmp_path / "saved.tar", members)
    digest = digest_of(layers[1])

    found = engine.pull_blob(f"docker-archive:{source}@{digest}", tmp_path / "layer")

    assert found == Descriptor("application/octet-stream", Digest.parse(digest), len(layers[1]))
    assert (tmp_path / "layer").read_bytes() == layers[1]
