"""Directories are packed as oras packs them, and unpacked without leaving their place."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.engine.artifacts.pack import packed_directory
from concil.engine.artifacts.titles import TitledBlob
from concil.engine.artifacts.unpack import unpack
from concil.errors import Cancelled, ConcilError, ContentError, DigestMismatch, UsageError
from concil.fs.nofollow_tree import NoFollowTree
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from tests.engine.artifacts.oras_model import BLOB, CONTENT_DIGEST, make_model, tree_of

GO_ON = threading.Event()
ARCHIVE = ".concil/archive"


def packed(path: Path, title: str) -> tuple[bytes, Digest]:
    with packed_directory(path, title, GO_ON) as result:
        buffer = bytearray(result.source.size)
        reader = result.source.open(0)
        count = reader.readinto(memoryview(buffer))
        reader.close()
        assert count == len(buffer)
        assert result.source.digest == Digest.from_bytes(bytes(buffer))
        return bytes(buffer), result.content_digest


def unpacked(output: Path, archive: bytes, digest: Digest | None, title: str = "model") -> None:
    tree = NoFollowTree(output)
    output.mkdir(exist_ok=True)
    tree.make_directory(".concil")
    (output / ARCHIVE).write_bytes(archive)
    blob = Descriptor("application/gzip", Digest.from_bytes(archive), len(archive))
    unpack(tree, ARCHIVE, TitledBlob(title, blob, is_directory=True, content_digest=digest), GO_ON)


def test_directory_is_packed_into_the_tar_archive_of_oras(tmp_path: Path) -> None:
    make_model(tmp_path / "here")

    blob, digest = packed(tmp_path / "here", "model")

    assert str(digest) == CONTENT_DIGEST
    assert gzip.decompress(blob) == gzip.decompress(BLOB)


def test_directory_gives_the_same_bytes_each_time(tmp_path: Path) -> None:
    make_model(tmp_path / "here")

    assert packed(tmp_path / "here", "a/b") == packed(tmp_path / "here", "a/b")


def test_archive_of_oras_is_unpacked(tmp_path: Path) -> None:
    make_model(tmp_path / "made")

    unpacked(tmp_path / "out", BLOB, Digest.parse(CONTENT_DIGEST))

    assert tree_of(tmp_path / "out" / "model") == tree_of(tmp_path / "made")


def test_files_in_the_way_are_replaced_and_others_kept(tmp_path: Path) -> None:
    make_model(tmp_path / "made")
    model = tmp_path / "out" / "model"
    (model / "weights").mkdir(parents=True)
    (model / "weights" / "other").write_bytes(b"kept")
    outside = tmp_path / "outside"
    outside.write_bytes(b"unchanged")
    (model / "config.json").symlink_to(outside)
    (model / "run.sh").hardlink_to(outside)

    unpacked(tmp_path / "out", BLOB, None)

    assert (model / "weights" / "other").read_bytes() == b"kept"
    assert (model / "config.json").read_bytes() == b'{"layers": 2}\n'
    assert (model / "run.sh").read_bytes() == b"#!/bin/sh\n"
    assert outside.read_bytes() == b"unchanged"


def tar_of(*members: tarfile.TarInfo, contents: dict[str, bytes] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            content = (contents or {}).get(member.name, b"")
            member.size = len(content) or member.size
            archive.addfile(member, io.BytesIO(content) if content else None)
    return gzip.compress(raw.getvalue())


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, size, 0o755
    return info


GOOD = member("model/good")
HOSTILE = {
    "absolute": member("/tmp/concil-evil"),
    "parent": member("model/../../evil"),
    "parent inside": member("model/a/../b"),
    "another directory": member("other/evil"),
    "prefix": member("model2/evil"),
    "hard link": member("model/l", tarfile.LNKTYPE, "model/good"),
    "link out": member("model/l", tarfile.SYMTYPE, "../../evil"),
    "absolute link": member("model/l", tarfile.SYMTYPE, "/etc/passwd"),
    "link through a link": member("model/l", tarfile.SYMTYPE, "a/../.."),
    "empty link": member("model/l", tarfile.SYMTYPE, ""),
    "pipe": member("model/p", tarfile.FIFOTYPE),
    "device": member("model/d", tarfile.CHRTYPE),
    "block device": member("model/d", tarfile.BLKTYPE),
    "the directory is a file": member("model"),
    "the directory is a link": member("model", tarfile.SYMTYPE, "good"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_member_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    archive = tar_of(GOOD, HOSTILE[name])

    with pytest.raises(ContentError):
        unpacked(tmp_path / "out", archive, None)

    assert not (tmp_path / "out" / "model").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("target", ["elsewhere", "."])
def test_member_behind_a_link_of_the_archive_is_refused(tmp_path: Path, target: str) -> None:
    archive = tar_of(
        member("model", tarfile.DIRTYPE),
        member("model/l", tarfile.SYMTYPE, target),
        member("model/l/file"),
        contents={"model/l/file": b"x"},
    )

    with pytest.raises(ConcilError):
        unpacked(tmp_path / "out", archive, None)

    assert not (tmp_path / "out" / "model" / "file").exists()


def test_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").mkdir()
    (tmp_path / "out" / "model" / "weights").symlink_to(outside)

    with pytest.raises(ConcilError, match="link"):
        unpacked(tmp_path / "out", BLOB, None)

    assert list(outside.iterdir()) == []


def test_content_digest_is_compared_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        unpacked(tmp_path / "out", BLOB, Digest.from_bytes(b"another"))

    assert not (tmp_path / "out" / "model").exists()


def test_archive_that_needs_more_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    header = member("model/huge", size=2**60).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ConcilError, match="the disk has room"):
        unpacked(tmp_path / "out", gzip.compress(header + bytes(1024)), None)

    assert not (tmp_path / "out" / "model").exists()


def test_archive_that_ends_within_a_file_is_refused(tmp_path: Path) -> None:
    header = member("model/cut", size=10_000_000).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ConcilError):
        unpacked(tmp_path / "out", gzip.compress(header + bytes(1024)), None)

    assert not (tmp_path / "out" / "model").exists()


def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concil.store.archive.decompress.MIN_OUTPUT_LIMIT", 1024)
    monkeypatch.setattr("concil.store.archive.decompress.MAX_RATIO", 2)
    archive = tar_of(member("model/zeros"), contents={"model/zeros": bytes(1_000_000)})

    with pytest.raises(ContentError, match="decompresses to more"):
        unpacked(tmp_path / "out", archive, None)

    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8bnot gzip", b"neither tar nor gzip" * 100])
def test_damaged_archive_is_refused(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(ConcilError):
        unpacked(tmp_path / "out", damage or BLOB[:-100], Digest.parse(CONTENT_DIGEST))

    assert not (tmp_path / "out" / "model").exists()


def test_bits_of_privileged_programs_are_dropped(tmp_path: Path) -> None:
    program = member("model/program")
    program.mode = 0o6755
    unpacked(tmp_path / "out", tar_of(program, contents={"model/program": b"x"}), None)

    assert (tmp_path / "out" / "model" / "program").stat().st_mode & 0o7000 == 0


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (make_pipe, "neither"),
        (link_to("/etc"), "leads out"),
        (link_to("../x"), "leads out"),
        (link_to("a/../../x"), "leads out"),
    ],
)
def test_what_nobody_could_unpack_is_not_packed(
    tmp_path: Path, make: Callable[[Path], None], word: str
) -> None:
    (tmp_path / "d").mkdir()
    make(tmp_path / "d" / "odd")

    with pytest.raises(UsageError, match=word), packed_directory(tmp_path / "d", "d", GO_ON):
        pass


def test_packing_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    make_model(tmp_path / "d")
    stop = threading.Event()
    stop.set()

    with pytest.raises(Cancelled), packed_directory(tmp_path / "d", "d", stop):
        pass
