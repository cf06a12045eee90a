"""What is not read of a blob is verified when its ``with`` ends; a layer always is."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import logging
import lzma
import sys
import tarfile
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from concil import Engine
from concil.config import TransferConfig
from concil.dockerhub import DockerHub, DockerPath, ResponseStream
from concil.engine.verified import MAX_REST
from concil.engine.verified_response import VerifiedResponse
from concil.errors import (
    Cancelled,
    ConcilError,
    ContentError,
    DigestMismatch,
    NotFound,
    UsageError,
)
from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.dockerhub.conftest import MakeHub
from tests.store.archive.test_decompress import PACKERS
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_blob, put_blob
from tests.support.relay import Relay
from tests.support.scripted_server import ScriptedResponse, ScriptedServer, reply

BLOB = make_blob(9, 200_000)
DIGEST = digest_of(BLOB)
WORDS = 40  # files of a layer
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def archive_of(word: bytes) -> bytes:
    """A tar archive whose every file repeats a word."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for number in range(WORDS):
            member = tarfile.TarInfo(f"bin/{number}")
            member.size = 20_000
            tar.addfile(member, io.BytesIO(word * 5000))
    return target.getvalue()


GOOD, EVIL = archive_of(b"good"), archive_of(b"EVIL")


def plainly(content: bytes) -> bytes:
    return content


def in_two_members(content: bytes) -> bytes:
    return gzip.compress(content[:100_000], mtime=0) + gzip.compress(content[100_000:], mtime=0)


def padded(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0) + bytes(3000)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": plainly,
    "gzip": lambda content: gzip.compress(content, 0, mtime=0),
    "small gzip": lambda content: gzip.compress(content, mtime=0),
    "two members": in_two_members,
    "padded": padded,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": PACKERS["zstd"],
    "trailing garbage": lambda content: gzip.compress(content, mtime=0) + b"something else",
}


@pytest.fixture(params=list(PACKINGS))
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    """Each way to pack a layer in turn."""
    return PACKINGS[request.param]


@pytest.fixture
def hub(server: ScriptedServer, make_hub: MakeHub) -> DockerHub:
    return make_hub(f"http://{server.host}/team/app:v1")


def serve(server: ScriptedServer, body: bytes, as_if: bytes | None = None) -> str:
    """Let the server answer with a body, by the digest of another one; return the digest."""
    digest = digest_of(body if as_if is None else as_if)
    server.respond("GET", f"/v2/team/app/blobs/{digest}", reply(200, body))
    return digest


def words_of(tar: tarfile.TarFile) -> set[bytes]:
    """How the files of an archive begin; there must be all of them."""
    found, count = set(), 0
    for member in tar:
        file = tar.extractfile(member)
        assert file is not None
        found.add(file.read(4))
        count += 1
    assert count == WORDS
    return found


# Parsers that stop before the end of the body ------------------------------------------------


def by_tarfile(response: requests.Response, mode: str) -> None:
    with tarfile.open(fileobj=response.raw, mode=mode) as tar:  # type: ignore[call-overload]
        words_of(tar)


def by_buffered_tarfile(response: requests.Response, mode: str) -> None:
    # The wrapper closes what it wraps before the response's own block ends.
    with io.BufferedReader(response.raw) as file, tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        words_of(tar)


def by_tarfile_on_a_stream(response: requests.Response, mode: str) -> None:
    with (
        ResponseStream(response) as stream,
        tarfile.open(fileobj=stream, mode=mode) as tar,  # type: ignore[call-overload]
    ):
        words_of(tar)


PARSERS = {
    "tarfile": by_tarfile,
    "buffered": by_buffered_tarfile,
    "ResponseStream": by_tarfile_on_a_stream,
}


@pytest.mark.parametrize("parse", list(PARSERS))
@pytest.mark.parametrize(("mode", "level"), [("r|gz", 0), ("r|", None), ("r|*", 9)])
def test_a_tampered_layer_is_an_error_however_little_a_parser_reads(
    server: ScriptedServer, hub: DockerHub, parse: str, mode: str, level: int | None
) -> None:
    good, evil = (
        each if level is None else gzip.compress(each, level, mtime=0) for each in (GOOD, EVIL)
    )
    digest = serve(server, evil, as_if=good)

    with pytest.raises(DigestMismatch, match=digest), hub.open_blob(digest) as response:
        PARSERS[parse](response, mode)


@pytest.mark.parametrize("parse", list(PARSERS))
def test_the_right_layer_is_none(server: ScriptedServer, hub: DockerHub, parse: str) -> None:
    digest = serve(server, gzip.compress(GOOD, 0, mtime=0))

    with hub.open_blob(digest) as response:
        PARSERS[parse](response, "r|gz")

    assert isinstance(response, VerifiedResponse)
    assert response.verified
    assert len(server.requests) == 1


def a_few_bytes(response: requests.Response) -> None:
    response.raw.read(100)


def one_piece(response: requests.Response) -> None:
    next(response.iter_content(1000))


def one_line(response: requests.Response) -> None:
    next(response.iter_lines())


def a_readline(response: requests.Response) -> None:
    response.raw.readline()


def unzlibbed(response: requests.Response) -> None:
    stream = zlib.decompressobj(wbits=31)
    while not stream.eof:
        stream.decompress(response.raw.read(10))


def first_of_json(response: requests.Response) -> None:
    raw: Any = response.raw
    text = io.TextIOWrapper(io.BufferedReader(raw))
    json.JSONDecoder().raw_decode(text.readline())


def nothing(response: requests.Response) -> None:
    pass


HALVES: dict[str, tuple[Callable[[requests.Response], None], bytes]] = {
    "read": (a_few_bytes, BLOB),
    "iter_content": (one_piece, BLOB),
    "iter_lines": (one_line, b"line\n" * 1000),
    "readline": (a_readline, b"line\n" * 1000),
    "zlib": (unzlibbed, gzip.compress(b"content") + b"behind"),
    "json": (first_of_json, b'{"a": 1}\n' * 10_000),
    "nothing": (nothing, BLOB),
}


@pytest.mark.parametrize("name", list(HALVES))
def test_what_was_not_read_is_verified(server: ScriptedServer, hub: DockerHub, name: str) -> None:
    read, content = HALVES[name]
    right = serve(server, content)
    wrong = serve(server, content[:-1] + b"?", as_if=content + b".")

    with hub.open_blob(right) as response:
        read(response)
    with pytest.raises(DigestMismatch), hub.open_blob(wrong) as response:
        read(response)


def test_the_rest_of_a_path_is_verified(server: ScriptedServer, hub: DockerHub) -> None:
    digest = serve(server, BLOB[:-1] + b"?", as_if=BLOB)

    with pytest.raises(DigestMismatch), DockerPath(hub, digest).open() as stream:
        assert stream.read(10) == BLOB[:10]


def test_the_rest_of_a_manifest_is_verified(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", f"/v2/team/app/manifests/{DIGEST}", reply(200, BLOB[:-1] + b"?"))

    with pytest.raises(DigestMismatch), hub.open_manifest(DIGEST) as response:
        response.raw.read(10)


def test_an_error_of_the_block_is_the_error(server: ScriptedServer, hub: DockerHub) -> None:
    digest = serve(server, BLOB[:-1] + b"?", as_if=BLOB)

    with pytest.raises(ZeroDivisionError), hub.open_blob(digest):
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), DockerPath(hub, digest).open():
        _ = 1 / 0


def test_a_wrong_length_without_a_length_is_an_error(
    server: ScriptedServer, hub: DockerHub
) -> None:
    server.respond(
        "GET",
        f"/v2/team/app/blobs/{DIGEST}",
        ScriptedResponse(200, BLOB[:-1], length=-1, cut="fin"),
    )

    with pytest.raises(DigestMismatch), hub.open_blob(DIGEST) as response:
        response.raw.read(10)


def test_a_rest_that_breaks_off_goes_on(server: ScriptedServer, hub: DockerHub) -> None:
    cut = ScriptedResponse(200, BLOB[:90_000], length=len(BLOB), cut="fin")
    server.respond("GET", f"/v2/team/app/blobs/{DIGEST}", cut, reply(200, BLOB))

    with hub.open_blob(DIGEST) as response:
        response.raw.read(10)

    assert len(server.requests) == 2


def test_who_verified_what_is_told(server: ScriptedServer, hub: DockerHub) -> None:
    right, wrong = serve(server, BLOB), serve(server, BLOB[:-1] + b"?", as_if=BLOB + b".")
    response = hub.open_blob(right)
    before = response.verified
    response.verify()
    assert (before, response.verified) == (False, True)
    response.close()

    other = hub.open_blob(wrong)
    for _ in range(2):
        with pytest.raises(DigestMismatch):
            other.verify()
    other.close()
    closed = hub.open_blob(right)
    closed.close()
    with pytest.raises(ValueError, match="closed before"):
        closed.verify()


# Stopping on purpose -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["break", "close", "raise"])
def test_a_large_blob_may_be_left_early_at_no_cost(
    tmp_path: Path, make_hub: MakeHub, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    blob = make_blob(3, MAX_REST + 8_000_000)
    digest = digest_of(blob)
    with EmbeddedRegistry(tmp_path / "layout") as registry, Relay(registry.host) as relay:
        put_blob(registry.url, "team/app", blob)
        hub = make_hub(f"http://{relay.host}/team/app")

        response = hub.open_blob(digest)
        with (
            caplog.at_level(logging.WARNING, "concil"),
            contextlib.suppress(ZeroDivisionError),
            response,
        ):
            for piece in response.iter_content(1_000_000):
                assert piece == blob[:1_000_000]
                if way == "close":
                    response.close()
                assert 1 / (way != "raise")
                break

        assert not response.verified
        assert relay.bytes_down < MAX_REST
        assert ("is not verified" in caplog.text) == (way == "break")


# Layers --------------------------------------------------------------------------------------


def test_a_layer_is_read(
    server: ScriptedServer, hub: DockerHub, pack: Callable[[bytes], bytes]
) -> None:
    digest = serve(server, pack(GOOD))
    events: list[Event] = []

    with hub.open_layer(digest, progress=events.append) as layer:
        assert words_of(layer) == {b"good"}

    assert len(server.requests) == 1
    assert events[-1].state is State.DONE


def test_a_tampered_layer_is_an_error(
    server: ScriptedServer, hub: DockerHub, pack: Callable[[bytes], bytes]
) -> None:
    digest = serve(server, pack(EVIL), as_if=pack(GOOD))

    with pytest.raises(DigestMismatch), hub.open_layer(digest) as layer:
        words_of(layer)


@pytest.mark.parametrize("members", [0, 1])
def test_a_layer_is_verified_however_little_of_it_was_read(
    server: ScriptedServer, hub: DockerHub, members: int
) -> None:
    large = EVIL + bytes(MAX_REST)  # more than the end of a blob's block would read
    digest = serve(server, large, as_if=GOOD)

    with pytest.raises(DigestMismatch), hub.open_layer(digest) as layer:
        assert len([layer.next() for _ in range(members)]) == members
    closed = hub.open_layer(digest)
    with pytest.raises(DigestMismatch):
        closed.close()
    closed.close()


def test_bytes_without_end_behind_the_last_file_are_an_error(
    server: ScriptedServer, hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.engine.layer.MAX_TRAILER_SIZE", 1_000_000)
    digest = serve(server, EVIL + bytes(2_000_000), as_if=GOOD)

    with pytest.raises(ContentError, match="follow its last file"), hub.open_layer(digest) as layer:
        words_of(layer)


def test_an_error_of_the_block_is_that_of_a_layer(server: ScriptedServer, hub: DockerHub) -> None:
    digest = serve(server, EVIL, as_if=GOOD)

    with pytest.raises(ZeroDivisionError), hub.open_layer(digest):
        _ = 1 / 0


def test_what_is_no_archive_is_said_to_be_none(server: ScriptedServer, hub: DockerHub) -> None:
    text = serve(server, b'{"architecture": "amd64"}' * 100)
    empty = serve(server, b"")
    other = serve(server, b"no archive, and not the blob either" * 100, as_if=GOOD)
    cut = serve(server, gzip.compress(GOOD, 0)[:-100_000])

    for digest in (text, empty):
        with pytest.raises(ContentError, match="is not a tar archive"):
            hub.open_layer(digest)
    with pytest.raises(DigestMismatch):
        hub.open_layer(other)
    with pytest.raises(ContentError, match="in the middle"), hub.open_layer(cut) as layer:
        words_of(layer)


def test_a_layer_that_unpacks_without_bound_is_an_error(
    server: ScriptedServer, hub: DockerHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.store.archive.decompress.MIN_OUTPUT_LIMIT", 1_000_000)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 50_000_000
        tar.addfile(member, io.BytesIO(bytes(50_000_000)))
    digest = serve(server, gzip.compress(target.getvalue(), mtime=0))

    with pytest.raises(ContentError, match="decompresses to more"), hub.open_layer(digest) as layer:
        layer.extractall(tmp_path)


def test_an_archive_that_climbs_out_is_not_extracted(
    server: ScriptedServer, hub: DockerHub, tmp_path: Path
) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    digest = serve(server, target.getvalue())

    with pytest.raises(tarfile.TarError), hub.open_layer(digest) as layer:
        layer.extractall(tmp_path / "inside")

    assert not (tmp_path / "outside").exists()


def test_zstd_says_what_helps_where_python_cannot(
    server: ScriptedServer, hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    digest = serve(server, ZSTD_MAGIC + bytes(100))

    with pytest.raises(ConcilError, match="zstd") as caught:
        hub.open_layer(digest)

    assert caught.value.remedy == "pip install 'concil[zstd]', or use Python 3.14 or newer"


def test_zstd_is_read_where_python_can(
    server: ScriptedServer, hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in with the interface of compression.zstd, which Python 3.14 brings."""

    class Frames:
        def __init__(self) -> None:
            self._stream = bz2.BZ2Decompressor()
            self.needs_input, self.eof, self.unused_data = True, False, b""

        def decompress(self, data: bytes, max_length: int = -1) -> bytes:
            data = data.removeprefix(ZSTD_MAGIC)
            found = self._stream.decompress(data, max_length)
            self.needs_input, self.eof = self._stream.needs_input, self._stream.eof
            self.unused_data = self._stream.unused_data
            return found

    package = types.ModuleType("compression")
    package.zstd = types.ModuleType("compression.zstd")  # type: ignore[attr-defined]
    package.zstd.ZstdDecompressor = Frames
    monkeypatch.setitem(sys.modules, "compression", package)
    packed = [ZSTD_MAGIC + bz2.compress(part) for part in (GOOD[:50_000], GOOD[50_000:])]
    digest = serve(server, b"".join(packed))

    with hub.open_layer(digest) as layer:
        assert words_of(layer) == {b"good"}


# The engine ----------------------------------------------------------------------------------


def test_the_engine_reads_a_layer_of_a_registry_and_of_a_layout(tmp_path: Path) -> None:
    layer = gzip.compress(GOOD, mtime=0)
    digest = digest_of(layer)
    with (
        EmbeddedRegistry(tmp_path / "layout") as registry,
        Engine(journal=Journal(None)) as engine,
    ):
        put_blob(registry.url, "team/app", layer)
        for address in (f"{registry.url}/team/app@{digest}", f"oci:{tmp_path}/layout@{digest}"):
            with engine.open_layer(address) as opened:
                assert words_of(opened) == {b"good"}


def test_the_engine_verifies_a_layer(tmp_path: Path) -> None:
    layer = gzip.compress(GOOD, 0, mtime=0)
    digest = digest_of(layer)
    events: list[Event] = []
    with (
        EmbeddedRegistry(tmp_path / "layout") as registry,
        Engine(TransferConfig(workers=0), journal=Journal(None), progress=events.append) as engine,
    ):
        put_blob(registry.url, "team/app", layer)
        blob = tmp_path / "layout" / "blobs" / digest.replace(":", "/")
        blob.write_bytes(gzip.compress(EVIL, 0, mtime=0))
        for address in (f"{registry.url}/team/app@{digest}", f"oci:{tmp_path}/layout@{digest}"):
            with pytest.raises(DigestMismatch), engine.open_layer(address) as opened:
                words_of(opened)

        with pytest.raises(UsageError, match="no digest"):
            engine.open_layer(f"{registry.url}/team/app:1")
        with pytest.raises(NotFound):
            engine.open_layer(f"{registry.url}/team/app@{DIGEST}")
    assert [event.state for event in events if event.state.is_final] == [State.FAILED] * 2


def test_a_cancelled_engine_reads_no_layer(tmp_path: Path) -> None:
    digest = digest_of(GOOD)
    with EmbeddedRegistry(tmp_path / "layout") as registry:
        put_blob(registry.url, "team/app", GOOD)
        with Engine(journal=Journal(None)) as engine:
            layer = engine.open_layer(f"{registry.url}/team/app@{digest}")
            engine.cancel()
            with pytest.raises(Cancelled), layer:
                words_of(layer)


@pytest.mark.real
def test_a_layer_of_the_real_registry(
    docker_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    layer = gzip.compress(GOOD, mtime=0)
    hub = make_hub(f"http://{docker_registry.host}/{repository}")
    hub.post_blob_data(layer, digest_of(layer))

    with hub.open_layer(digest_of(layer)) as opened:
        assert words_of(opened) == {b"good"}
