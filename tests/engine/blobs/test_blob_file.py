"""A blob is a file that can be sought; whatever it returned can be verified."""

from __future__ import annotations

import io
import itertools
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil import BlobFile, Engine
from concil.errors import Cancelled, DigestMismatch, NotFound, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.server import EmbeddedRegistry, RegistryBehavior
from tests.engine.engine_setup import CHUNK, Registry, blob_path, engine_of
from tests.engine.relayed_registries import SIZE, RelayedRegistry
from tests.support.faults import Fault
from tests.support.images import make_blob, make_image, put_blob, write_layout

CONTENT = make_blob(1, SIZE)
DIGEST = Digest.from_bytes(CONTENT)


@pytest.fixture
def file(engine: Engine, registry: Registry, repository: str) -> Iterator[BlobFile]:
    put_blob(registry.url, repository, CONTENT)
    with engine.open_blob(f"{registry.url}/{repository}@{DIGEST}") as file:
        yield file


def is_verified(file: BlobFile) -> bool:
    return file.verified  # a property that changes, which mypy does not expect


def test_reading_it_in_order_verifies_it(file: BlobFile) -> None:
    assert not is_verified(file)
    assert file.read() == CONTENT
    assert is_verified(file)
    assert (file.size, file.digest, file.tell()) == (SIZE, DIGEST, SIZE)
    assert file.read(1) == b""


def test_any_order_returns_what_a_file_returns(file: BlobFile) -> None:
    reference, chooser = io.BytesIO(CONTENT), random.Random(5)
    for _ in range(200):
        whence = chooser.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
        position = chooser.randrange(SIZE + 100)
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: reference.tell(), os.SEEK_END: SIZE}[whence]
        assert file.seek(position - origin, whence) == reference.seek(position - origin, whence)
        length = chooser.choice([1, 100, 70_000, 600_000])
        assert file.read(length) == reference.read(length)
        assert file.tell() == reference.tell()
    file.verify()
    assert file.verified


def test_file_can_be_given_to_a_parser(engine: Engine, registry: Registry, repository: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}", make_blob(number, 100_000))
    address = f"{registry.url}/{repository}"
    blob = engine.push_blob(buffer.getvalue(), address)

    with engine.open_blob(f"{address}@{blob.digest}") as file:
        assert zipfile.ZipFile(file).read("13") == make_blob(13, 100_000)
        assert not file.verified
        file.verify()
        assert file.verified


def test_only_the_parts_that_are_read_are_requested(
    engine: Engine, relayed_registry: RelayedRegistry, repository: str
) -> None:
    put_blob(relayed_registry.registry.url, repository, CONTENT)
    with engine.open_blob(f"{relayed_registry.relay.url}/{repository}@{DIGEST}") as file:
        file.seek(-100, os.SEEK_END)
        assert file.read() == CONTENT[-100:]
        file.seek(2 * CHUNK)
        assert file.read(10) == CONTENT[2 * CHUNK :][:10]

    ranges = [r.headers.get("range") for r in relayed_registry.log.requests if r.method == "GET"]
    assert ranges == [f"bytes={SIZE - 100}-{SIZE - 1}", f"bytes={2 * CHUNK}-{2 * CHUNK + 262143}"]


def test_lost_connection_is_no_matter(
    engine: Engine, relayed_registry: RelayedRegistry, repository: str
) -> None:
    put_blob(relayed_registry.registry.url, repository, CONTENT)
    relayed_registry.relay.add_fault(Fault(action="rst", after=3 * CHUNK, direction="down"))

    with engine.open_blob(f"{relayed_registry.relay.url}/{repository}@{DIGEST}") as file:
        assert file.read() == CONTENT


class WithoutRanges(RegistryBehavior):
    """Answers every request with the whole blob."""

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        del header, size
        return None


def test_registry_without_ranges_is_read_from_the_start(engine: Engine, tmp_path: Path) -> None:
    with EmbeddedRegistry(tmp_path / "whole", behavior=WithoutRanges()) as registry:
        put_blob(registry.url, "files", CONTENT)
        with engine.open_blob(f"{registry.url}/files@{DIGEST}") as file:
            file.seek(2 * CHUNK + 1)
            assert file.read(CHUNK) == CONTENT[2 * CHUNK + 1 :][:CHUNK]
            file.seek(5)
            assert file.read(10) == CONTENT[5:15]
            file.verify()


def layout_with(tmp_path: Path, content: bytes) -> str:
    """A layout whose blob of `DIGEST` has other bytes."""
    write_layout(tmp_path / "layout", {"v": make_image(1)})
    path = blob_path(tmp_path / "layout", str(DIGEST))
    path.write_bytes(content)
    return f"oci:{tmp_path / 'layout'}@{DIGEST}"


def test_last_block_of_wrong_bytes_is_never_returned(engine: Engine, tmp_path: Path) -> None:
    wrong = b"\0" + CONTENT[1:]
    seen = bytearray()

    with engine.open_blob(layout_with(tmp_path, wrong)) as file, pytest.raises(DigestMismatch):
        seen.extend(itertools.chain.from_iterable(iter(lambda: file.read(100_000), b"")))

    assert len(seen) < SIZE


def test_verify_finds_wrong_bytes_that_were_not_read(engine: Engine, tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])

    with engine.open_blob(layout_with(tmp_path, wrong)) as file:
        assert file.read(100) == CONTENT[:100]
        with pytest.raises(DigestMismatch):
            file.verify()
        assert not file.verified


def test_verify_finds_bytes_that_were_wrong_when_they_were_read(
    engine: Engine, tmp_path: Path
) -> None:
    address = layout_with(tmp_path, CONTENT[:CHUNK] + b"lie" + CONTENT[CHUNK + 3 :])
    with engine.open_blob(address) as file:
        file.seek(CHUNK)
        assert file.read(3) == b"lie"
        blob_path(tmp_path / "layout", str(DIGEST)).write_bytes(CONTENT)

        with pytest.raises(DigestMismatch, match=f"bytes {CHUNK} to"):
            file.verify()


def test_empty_blob_is_an_empty_file(engine: Engine, registry: Registry, repository: str) -> None:
    put_blob(registry.url, repository, b"")
    address = f"{registry.url}/{repository}@{Digest.from_bytes(b'')}"

    with engine.open_blob(address) as file:
        assert file.read() == b""
        file.verify()
        assert file.verified


def test_missing_blob_and_missing_digest_are_errors(
    engine: Engine, registry: Registry, repository: str
) -> None:
    with pytest.raises(NotFound):
        engine.open_blob(f"{registry.url}/{repository}@{DIGEST}")
    with pytest.raises(UsageError):
        engine.open_blob(f"{registry.url}/{repository}:latest")


def test_closed_file_and_invalid_seeks_are_errors(file: BlobFile) -> None:
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_cancelled_engine_ends_the_reading(registry: Registry, repository: str) -> None:
    put_blob(registry.url, repository, CONTENT)
    with engine_of() as engine, engine.open_blob(f"{registry.url}/{repository}@{DIGEST}") as file:
        engine.cancel()
        with pytest.raises(Cancelled):
            file.read(1)


class Sink:
    """A stream that takes a few bytes at a time."""

    name = "sink"

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: memoryview, /) -> int:
        self.content += data[:1000]
        return min(len(data), 1000)


def test_blob_is_written_to_a_stream(engine: Engine, registry: Registry, repository: str) -> None:
    content = CONTENT[:CHUNK]
    put_blob(registry.url, repository, content)
    sink, digest = Sink(), Digest.from_bytes(content)

    pulled = engine.pull_blob(f"{registry.url}/{repository}@{digest}", sink)

    assert bytes(sink.content) == content
    assert pulled == Descriptor("application/octet-stream", digest, CHUNK)


def test_stream_never_gets_the_last_block_of_wrong_bytes(engine: Engine, tmp_path: Path) -> None:
    sink = Sink()

    with pytest.raises(DigestMismatch):
        engine.pull_blob(layout_with(tmp_path, b"\0" + CONTENT[1:]), sink)

    assert len(sink.content) < SIZE
