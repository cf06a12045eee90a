"""A blob is verified whichever way it is read, and goes on after a drop."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from concil.dockerhub import DockerHub, DockerPath, ResponseStream
from concil.errors import (
    ConcilError,
    ConnectionLost,
    ContentError,
    DigestMismatch,
    SizeMismatch,
    StatusError,
)
from concil.progress.events import Event
from tests.dockerhub.conftest import MakeHub
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import digest_of, make_blob
from tests.support.relay import Relay
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

BLOB = make_blob(9, 200_000)
DIGEST = digest_of(BLOB)
PATH = f"/v2/team/app/blobs/{DIGEST}"
HALF = 90_001  # bytes


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0)


@pytest.fixture
def hub(server: ScriptedServer, make_hub: MakeHub) -> DockerHub:
    return make_hub(f"http://{server.host}/team/app:v1")


# Each way to read --------------------------------------------------------------------------


def by_readinto(response: requests.Response) -> bytes:
    buffer, found = bytearray(70_000), bytearray()
    while count := response.raw.readinto(buffer):
        found += buffer[:count]
    return bytes(found)


def by_read1(response: requests.Response) -> bytes:
    return b"".join(iter(lambda: response.raw.read1(10_000), b""))


def by_read1_without_a_size(response: requests.Response) -> bytes:
    return b"".join(iter(response.raw.read1, b""))


def by_buffered_reader(response: requests.Response) -> bytes:
    with io.BufferedReader(response.raw) as reader:
        return reader.read()


def by_copyfileobj(response: requests.Response) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(response.raw, target)
    return target.getvalue()


def by_stream_object(response: requests.Response) -> bytes:
    with ResponseStream(response) as stream:
        return b"".join(iter(lambda: stream.read(30_000), b""))


def by_stream_object_at_once(response: requests.Response) -> bytes:
    with ResponseStream(response) as stream:
        return stream.read()


READERS: dict[str, Callable[[requests.Response], bytes]] = {
    "content": lambda response: response.content,
    "iter_content": lambda response: b"".join(response.iter_content(4096)),
    "iter_content(large)": lambda response: b"".join(response.iter_content(1 << 20)),
    "iter_content(None)": lambda response: b"".join(response.iter_content(None)),
    "read(n)": lambda response: b"".join(iter(lambda: response.raw.read(10_000), b"")),
    "read(n, decode)": lambda response: b"".join(
        iter(lambda: response.raw.read(10_000, decode_content=True), b"")
    ),
    "read()": lambda response: bytes(response.raw.read()),
    "read(None)": lambda response: bytes(response.raw.read(None)),
    "read(all)": lambda response: response.raw.read(len(BLOB)) + response.raw.read(),
    "stream": lambda response: b"".join(response.raw.stream(7000, decode_content=False)),
    "stream(None)": lambda response: b"".join(response.raw.stream(None)),
    "data": lambda response: bytes(response.raw.data),
    "BufferedReader": by_buffered_reader,
    "readinto": by_readinto,
    "read1(n)": by_read1,
    "read1()": by_read1_without_a_size,
    "copyfileobj": by_copyfileobj,
    "ResponseStream": by_stream_object,
    "ResponseStream at once": by_stream_object_at_once,
}


@pytest.fixture(params=list(READERS))
def read(request: pytest.FixtureRequest) -> Callable[[requests.Response], bytes]:
    """Each way to read a blob in turn."""
    return READERS[request.param]


def ranged(seen: ReceivedRequest) -> ScriptedResponse:
    """A registry that knows ranges."""
    if "range" not in seen.headers:
        return reply(200, BLOB)
    start = int(seen.headers["range"].removeprefix("bytes=").partition("-")[0])
    span = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
    return reply(206, BLOB[start:], Content_Range=span)


CUT = ScriptedResponse(200, BLOB[:HALF], length=len(BLOB), cut="fin")
RESET = ScriptedResponse(200, BLOB[:HALF], length=len(BLOB), cut="rst")


def test_the_right_bytes(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes]
) -> None:
    server.respond("GET", PATH, reply(200, BLOB))

    with hub.open_blob(DIGEST) as response:
        assert read(response) == BLOB

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BLOB[:-1] + b"?", id="the last byte"),
        pytest.param(b"?" + BLOB[1:], id="the first byte"),
        pytest.param(BLOB[:-1], id="one too few"),
        pytest.param(BLOB + b"?", id="one too many"),
        pytest.param(b"", id="none"),
    ],
)
def test_wrong_bytes(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes], body: bytes
) -> None:
    server.respond("GET", PATH, reply(200, body))

    with hub.open_blob(DIGEST) as response, pytest.raises(DigestMismatch, match=DIGEST):
        read(response)


@pytest.mark.parametrize("length", [-1, len(BLOB) + 50])
def test_a_length_that_is_missing_or_lies(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes], length: int
) -> None:
    server.respond("GET", PATH, ScriptedResponse(200, BLOB[:-1], length=length, cut="fin"))

    with hub.open_blob(DIGEST) as response, pytest.raises(ContentError) as caught:
        read(response)

    assert isinstance(caught.value, (DigestMismatch, SizeMismatch))


def test_a_length_that_is_missing_is_no_error(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes]
) -> None:
    server.respond("GET", PATH, ScriptedResponse(200, BLOB, length=-1))

    with hub.open_blob(DIGEST) as response:
        assert read(response) == BLOB


@pytest.mark.parametrize("cut", [CUT, RESET], ids=["closed", "reset"])
def test_a_drop_goes_on_by_range(
    server: ScriptedServer,
    hub: DockerHub,
    read: Callable[[requests.Response], bytes],
    cut: ScriptedResponse,
) -> None:
    server.respond("GET", PATH, cut, ranged)

    with hub.open_blob(DIGEST) as response:
        assert read(response) == BLOB

    first, second = server.requests
    assert "range" not in first.headers
    if cut is CUT:
        assert second.headers["range"] == f"bytes={HALF}-"


def test_a_drop_without_ranges_begins_again_and_passes_over(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes]
) -> None:
    server.respond("GET", PATH, CUT, reply(200, BLOB))

    with hub.open_blob(DIGEST) as response:
        assert read(response) == BLOB


def test_gzip_that_is_none_is_not_unpacked(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes]
) -> None:
    server.respond("GET", PATH, reply(200, BLOB, Content_Encoding="gzip"))

    with hub.open_blob(DIGEST) as response:
        assert read(response) == BLOB


def test_gzip_of_the_blob_is_not_the_blob(
    server: ScriptedServer, hub: DockerHub, read: Callable[[requests.Response], bytes]
) -> None:
    server.respond("GET", PATH, reply(200, gzip.compress(BLOB), Content_Encoding="gzip"))

    with hub.open_blob(DIGEST) as response, pytest.raises(DigestMismatch):
        read(response)


def test_the_last_piece_comes_only_if_the_whole_is_right(
    server: ScriptedServer, hub: DockerHub
) -> None:
    server.respond("GET", PATH, reply(200, BLOB[:-1] + b"?"))
    got = 0
    with hub.open_blob(DIGEST) as response:
        pieces = response.iter_content(1000)
        for _ in range(len(BLOB) // 1000 - 1):
            got += len(next(pieces))

        with pytest.raises(DigestMismatch):
            next(pieces)

    assert got == len(BLOB) - 1000


def test_after_a_mismatch_nothing_more_comes(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, reply(200, b"?" + BLOB[1:]))
    response = hub.open_blob(DIGEST)
    with pytest.raises(DigestMismatch):
        response.raw.read()

    with pytest.raises((ConcilError, ValueError)):
        response.raw.read()
    response.close()


# After a drop ------------------------------------------------------------------------------


def test_many_drops_with_progress_are_survived(server: ScriptedServer, hub: DockerHub) -> None:
    def stuttering(seen: ReceivedRequest) -> ScriptedResponse:
        full = ranged(seen)
        return ScriptedResponse(full.status, full.body[:9000], full.headers, len(full.body), "fin")

    server.respond("GET", PATH, stuttering)

    assert hub.open_blob(DIGEST).content == BLOB
    assert len(server.requests) == -(-len(BLOB) // 9000)


def test_drops_without_progress_come_to_an_end(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, CUT, ScriptedResponse(0))

    with (
        hub.open_blob(DIGEST) as response,
        pytest.raises(SizeMismatch, match=f"only {HALF} of 200000 bytes were received"),
    ):
        _ = response.content

    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [404, 416, 403])
def test_a_refusal_after_a_drop_is_the_error(
    server: ScriptedServer, hub: DockerHub, status: int
) -> None:
    server.respond("GET", PATH, CUT, reply(status))

    with hub.open_blob(DIGEST) as response, pytest.raises(StatusError) as caught:
        _ = response.content

    assert caught.value.status == status
    assert len(server.requests) == 2


def test_a_busy_registry_after_a_drop_is_waited_for(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, CUT, reply(503), reply(429), ranged)

    assert hub.open_blob(DIGEST).content == BLOB


def test_another_range_than_asked_for_is_not_taken(server: ScriptedServer, hub: DockerHub) -> None:
    wrong = reply(206, BLOB[HALF + 1 :], Content_Range=f"bytes {HALF + 1}-199999/200000")
    server.respond("GET", PATH, CUT, wrong)

    with hub.open_blob(DIGEST) as response, pytest.raises(ConcilError):
        _ = response.content


def test_what_is_passed_over_is_read_in_large_pieces(
    server: ScriptedServer, hub: DockerHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that asks for single bytes would take hours over a large blob otherwise."""
    sizes: list[int] = []
    receive = socket.socket.recv_into

    def counted(self: socket.socket, buffer: memoryview, size: int = 0) -> int:
        count = receive(self, buffer, size)
        sizes.append(count)
        return count

    server.respond("GET", PATH, CUT, reply(200, BLOB))
    with hub.open_blob(DIGEST) as response:
        assert response.raw.read(HALF) == BLOB[:HALF]
        monkeypatch.setattr("socket.socket.recv_into", counted)

        assert response.raw.read(1) == BLOB[HALF : HALF + 1]

    assert len(sizes) < 1000


def test_a_drop_while_bytes_are_passed_over(server: ScriptedServer, hub: DockerHub) -> None:
    short = ScriptedResponse(200, BLOB[:100], length=len(BLOB), cut="fin")
    server.respond(
        "GET", PATH, CUT, short, short, ScriptedResponse(200, b"", length=-1), reply(200, BLOB)
    )

    assert hub.open_blob(DIGEST).content == BLOB


def test_other_bytes_after_a_drop_are_a_mismatch(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, CUT, reply(200, bytes(len(BLOB))))

    with hub.open_blob(DIGEST) as response, pytest.raises(DigestMismatch):
        _ = response.content


def test_a_blob_without_a_length_that_breaks_off_is_lost(
    server: ScriptedServer, hub: DockerHub
) -> None:
    chunked = b"7\r\n1234567\r\n7\r\n123"
    server.respond(
        "GET",
        PATH,
        ScriptedResponse(200, chunked, (("Transfer-Encoding", "chunked"),), length=-1, cut="fin"),
    )

    with hub.open_blob(DIGEST) as response, pytest.raises((ConnectionLost, DigestMismatch)):
        _ = response.content


def test_a_chunked_blob_is_read(server: ScriptedServer, hub: DockerHub) -> None:
    pieces = [BLOB[i : i + 50_000] for i in range(0, len(BLOB), 50_000)]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in [*pieces, b""])
    server.respond(
        "GET", PATH, ScriptedResponse(200, chunked, (("Transfer-Encoding", "chunked"),), length=-1)
    )

    assert hub.open_blob(DIGEST).content == BLOB


def test_a_stall_goes_on(make_hub: MakeHub) -> None:
    """The server stops in the middle without closing."""
    over = threading.Event()
    with ScriptedServer() as server, socket.create_server(("127.0.0.1", 0)) as stalling:

        def stall() -> None:
            connection, _ = stalling.accept()
            with connection:
                connection.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BLOB)}\r\n\r\n".encode()
                connection.sendall(head + BLOB[:HALF])
                over.wait(30)

        thread = threading.Thread(target=stall)
        thread.start()
        port = stalling.getsockname()[1]
        there = f"http://127.0.0.1:{port}/key"
        server.respond("GET", PATH, reply(307, Location=there), ranged)
        hub = make_hub(f"http://{server.host}/team/app", timeout=0.1)

        assert hub.open_blob(DIGEST).content == BLOB

        over.set()
        thread.join()
        # It begins again at the registry: a signed URL of a storage may have expired.
        assert len(server.requests) == 2


@pytest.mark.real
def test_a_reset_of_the_real_registry_is_survived(
    docker_registry: DockerRegistry, repository: str, make_hub: MakeHub
) -> None:
    blob = make_blob(10, 3_000_000)
    digest = digest_of(blob)
    with Relay(docker_registry.host) as relay:
        hub = make_hub(f"http://{relay.host}/{repository}")
        hub.post_blob_data(blob, digest)
        relay.add_fault(Fault(action="rst", after=1_000_000, direction="down", times=2))

        with DockerPath(hub, digest).open() as stream:
            assert hashlib.sha256(stream.read()).hexdigest() == digest.partition(":")[2]

        assert relay.fired_count == 2


# Closing -----------------------------------------------------------------------------------


def test_a_blob_that_was_read_gives_its_connection_back(
    server: ScriptedServer, hub: DockerHub
) -> None:
    server.respond("GET", PATH, ranged)

    for _ in range(3):
        assert hub.open_blob(DIGEST).content == BLOB
    for _ in range(3):
        with hub.open_blob(DIGEST) as response:
            assert b"".join(response.iter_content(5000)) == BLOB

    assert server.connections == 1


def test_a_blob_may_be_closed_in_the_middle(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, ranged)

    with hub.open_blob(DIGEST) as response:
        assert response.raw.read(10) == BLOB[:10]
    hub.open_blob(DIGEST).close()

    with pytest.raises(ValueError, match="closed"):
        response.raw.read(10)
    assert hub.open_blob(DIGEST).content == BLOB
    assert len(server.requests) == 3  # nothing was opened again behind the caller's back


def test_what_urllib3s_body_tells_is_told(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, reply(200, BLOB, X_Note="yes"))

    with hub.open_blob(DIGEST) as response:
        assert response.raw.headers["X-Note"] == "yes"
        assert response.raw.status == 200
        assert response.raw.readable()
        assert response.raw.read(0) == b""
        for name in ("_private", "nonsense", "read_chunked", "json"):
            assert not hasattr(response.raw, name)


# Progress ----------------------------------------------------------------------------------


def test_progress_says_positions_that_never_go_back(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, CUT, CUT, ranged)
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)

    with hub.open_blob(DIGEST, progress=note) as response:
        assert b"".join(response.iter_content(1000)) == BLOB

    positions = [event.position for event in events]
    assert positions == sorted(positions)
    assert events[-1].state == "done"
    assert events[-1].position == events[-1].total == len(BLOB)
    assert {(event.kind, event.subject) for event in events} == {("blob", DIGEST)}


def test_wrong_bytes_are_never_done(server: ScriptedServer, hub: DockerHub) -> None:
    server.respond("GET", PATH, reply(200, b"?" + BLOB[1:]))
    states: set[str] = set()

    def note(event: Event) -> None:
        states.add(event.state)

    with hub.open_blob(DIGEST, progress=note) as response, pytest.raises(DigestMismatch):
        _ = response.content

    assert "done" not in states


def test_a_callback_that_fails_breaks_nothing(
    server: ScriptedServer, hub: DockerHub, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    server.respond("GET", PATH, reply(200, BLOB))

    assert hub.open_blob(DIGEST, progress=broken).content == BLOB
    assert "progress callback failed" in caplog.text


# ResponseStream on any response ------------------------------------------------------------


class Pieces(requests.Response):
    """A response of chosen pieces."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self._pieces = pieces

    def iter_content(
        self, chunk_size: int | None = 1, decode_unicode: bool = False
    ) -> Iterator[bytes]:
        return iter(self._pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_a_stream_gives_as_many_bytes_as_asked_for(size: int) -> None:
    stream = ResponseStream(Pieces(b"ab", b"cde", b"f"))

    pieces = list(iter(lambda: stream.read(size), b""))

    assert b"".join(pieces) == b"abcdef"
    assert all(len(piece) == size for piece in pieces[:-1])
    assert stream.read() == b""


def test_a_stream_that_was_read_in_part_gives_the_rest() -> None:
    stream = ResponseStream(Pieces(b"ab", b"cde", b"f"))

    assert stream.read(3) == b"abc"
    assert stream.read(None) == b"def"
    assert stream.read() == b""
