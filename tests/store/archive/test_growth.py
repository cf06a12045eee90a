"""What a docker-archive of many images costs grows with their number, and no faster."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from concil.fs.local_file import FileBlobReader
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_CONFIG
from concil.store.archive.docker_reader import DockerArchiveReader
from concil.store.archive.docker_writer import DockerArchiveWriter
from concil.store.archive.tar_headers import Member
from concil.store.archive.tar_reader import TarReader
from tests.support import store_contract
from tests.support.archives import image_of, manifest_member, member, write_tar

COUNT = 400  # names; each one with each of the others would be 160 000 comparisons


class Tag(str):
    """A tag that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Tag.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.fixture(autouse=True)
def _nothing_compared() -> None:
    Tag.compared = 0


def name_of(number: int) -> str:
    return f"docker.io/library/app:{number}"


def test_one_image_under_many_names_is_written(tmp_path: Path) -> None:
    _, config, (layer,) = image_of(1, layers=1)
    content = next(iter(config.values()))
    config_blob = store_contract.Blob.of(content, media_type=OCI_CONFIG)
    manifest = store_contract.manifest_of(config_blob, store_contract.Blob.of(layer))
    writer = DockerArchiveWriter(tmp_path / "out.tar")
    for blob in (content, layer):
        store_contract.write(writer, blob, Digest.from_bytes(blob))

    for number in range(COUNT):
        assert writer.find_manifest(Tag(name_of(number))) is None
        writer.put_manifest(manifest, Tag(name_of(number)))
    for number in range(COUNT):
        assert writer.find_manifest(Tag(name_of(number))) == manifest.descriptor
    writer.commit()
    writer.close()

    assert Tag.compared < 20 * COUNT
    archive = DockerArchiveReader(tmp_path / "out.tar")
    assert list(archive.tags()) == [name_of(number) for number in range(COUNT)]
    archive.close()


def test_many_images_that_share_a_layer_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, (layer,) = image_of(1, layers=1)
    document = json.loads(next(iter(config.values())))
    entries, members = [], [member("layer.tar", gzip.compress(layer))]
    for number in range(COUNT):
        members.append(member(f"{number}.json", json.dumps(document | {"n": number}).encode()))
        tags = [name_of(number)]
        entry = {"Config": f"{number}.json", "RepoTags": tags, "Layers": ["layer.tar"]}
        entries.append(entry)
    archive = DockerArchiveReader(
        write_tar(tmp_path / "in.tar", [manifest_member(*entries), *members])
    )
    opened: list[Member] = []
    open_member = TarReader.open_member

    def note(tar: TarReader, one: Member) -> FileBlobReader:
        opened.append(one)
        return open_member(tar, one)

    monkeypatch.setattr(TarReader, "open_member", note)

    digests = {archive.get_manifest(Tag(name_of(number))).digest for number in range(COUNT)}
    for digest in digests:
        assert archive.get_manifest(str(digest)).digest == digest
    archive.close()

    assert len(digests) == COUNT
    assert Tag.compared < 20 * COUNT
    # Each config is read, and the start of the layer; its content once.
    assert len(opened) == 2 * COUNT + 1
