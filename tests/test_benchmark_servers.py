"""The servers of the benchmarks: what they answer, and that no byte gets lost in them."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.cases.replay import count_replay, replay_mirror, reset_replay
from benchmarks.measure import MIB, measure
from benchmarks.programs import Programs
from benchmarks.servers.delay import Relay
from benchmarks.servers.replay_content import Content
from benchmarks.servers.replay_parser import Parser, Request

LAYER = b"layer" * 1000
LAYER_DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
MANIFEST = b'{"schemaVersion": 2}'
MANIFEST_DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
UPLOADS = "/v2/team/app/blobs/uploads/"


@pytest.fixture
def content(tmp_path: Path) -> Content:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for blob in (LAYER, MANIFEST):
        (blobs / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    (tmp_path / "tags.json").write_text(json.dumps({"team/app:v1": MANIFEST_DIGEST}))
    return Content(tmp_path)


def _answer(content: Content, method: str, target: str, head: str = "", body: bytes = b"") -> str:
    request = Request(method, target, head.encode(), len(body), body)
    return content.answer(request).head.decode()


def _status(answer: str) -> int:
    return int(answer.split()[1])


def _location(answer: str) -> str:
    return answer.partition("Location: ")[2].partition("\r\n")[0]


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_requests_are_found_however_they_arrive(step: int) -> None:
    arrived = (
        b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"
        b"PUT /b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
        b"PATCH /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n"
        b"0123456789abcdef\r\n0\r\n\r\n"
        b"GET /d HTTP/1.1\r\n\r\n"
    )
    parser, found = Parser(), []

    for start in range(0, len(arrived), step):
        parser.feed(arrived[start : start + step])
        while (request := parser.next_request()) is not None:
            found.append((request.method, request.target, request.size, request.body))

    assert found == [
        ("HEAD", "/a", 0, b""),
        ("PUT", "/b", 5, b"hello"),
        ("PATCH", "/c", 19, b""),
        ("GET", "/d", 0, b""),
    ]


def test_a_long_body_is_skipped() -> None:
    parser = Parser()
    parser.feed(b"PUT /b HTTP/1.1\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\nabc")

    assert parser.wants_continue()
    assert not parser.wants_continue()
    assert parser.skippable == 1_999_997
    assert parser.next_request() is None
    parser.skip(1_999_997)
    request = parser.next_request()
    assert request
    assert (request.size, request.body) == (2_000_000, b"")


def test_a_source_answers_from_its_content(content: Content) -> None:
    layer = f"/v2/team/app/blobs/{LAYER_DIGEST}"
    manifest = _answer(content, "GET", "/v2/team/app/manifests/v1")

    assert manifest.endswith(MANIFEST.decode())
    assert MANIFEST_DIGEST in manifest
    assert _answer(content, "GET", f"/v2/team/app/manifests/{MANIFEST_DIGEST}") == manifest
    assert _answer(content, "GET", layer).endswith(LAYER.decode())
    part = _answer(content, "GET", layer, "GET x\r\nRange: bytes=5-9")
    assert _status(part) == 206
    assert part.endswith("\r\n\r\nlayer")
    assert f"Content-Length: {len(LAYER)}\r\n" in _answer(content, "HEAD", layer)
    assert '["v1"]' in _answer(content, "GET", "/v2/team/app/tags/list")
    assert _status(_answer(content, "HEAD", "/v2/team/app/manifests/v2")) == 404


def test_a_destination_has_what_was_pushed_until_it_is_reset() -> None:
    content = Content(None)
    blob = f"/v2/team/app/blobs/{LAYER_DIGEST}"
    session = _location(_answer(content, "POST", UPLOADS))

    assert _status(_answer(content, "HEAD", blob)) == 404
    assert "Range: 0-4999\r\n" in _answer(content, "PATCH", session, body=LAYER)
    assert _status(_answer(content, "PUT", f"{session}?digest={LAYER_DIGEST}")) == 201
    assert "Content-Length: 5000\r\n" in _answer(content, "HEAD", blob)
    mount = f"/v2/other/blobs/uploads/?mount={LAYER_DIGEST}&from=team/app"
    assert _status(_answer(content, "POST", mount)) == 201
    assert _status(_answer(content, "POST", mount.replace("team/app", "no/app"))) == 202
    _answer(content, "PUT", "/v2/team/app/manifests/v1", body=MANIFEST)
    assert MANIFEST_DIGEST in _answer(content, "HEAD", "/v2/team/app/manifests/v1")
    assert content.count == 9

    _answer(content, "DELETE", "/")

    assert content.count == 0
    assert _status(_answer(content, "HEAD", blob)) == 404


@pytest.mark.real
@pytest.mark.process
def test_concil_mirrors_against_canned_answers(tmp_path: Path) -> None:
    with Bench(tmp_path, Programs({"concil": ""}, ()), size=MIB, images=3) as bench:
        case = replay_mirror(bench)
        command = case.commands(case.hosts)["concil"]

        measure(command, bench.environment())

        # Of each image at least its manifest on both sides, and four new blobs.
        assert count_replay(case.hosts) >= 3 * (2 + 4 * 2)
        reset_replay(case.hosts)
        assert count_replay(case.hosts) == 0
        case.close()


def test_a_delayed_connection_loses_nothing() -> None:
    sent = bytes(range(256)) * 20_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay(server.getsockname(), 0.001)
        threading.Thread(target=relay.run, daemon=True).start()
        host, _, port = relay.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            accepted, _ = server.accept()
            with accepted:
                threading.Thread(target=_send_all, args=(client, sent)).start()
                received = _receive_all(accepted)
                accepted.sendall(b"answer")
                accepted.shutdown(socket.SHUT_WR)
                answer = _receive_all(client)

    assert received == sent
    assert answer == b"answer"


def _send_all(connection: socket.socket, content: bytes) -> None:
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


def _receive_all(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)
