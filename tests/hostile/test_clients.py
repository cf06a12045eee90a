"""Clients of `concil serve` that mean harm; tests/server/test_http.py has odd paths and heads."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry, connection_table
from tests.hostile.hostile_registry import BLOB, all_paths
from tests.support.images import digest_of

TIMEOUT = 30  # seconds


@pytest.fixture
def served(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    registry = EmbeddedRegistry(tmp_path / "around" / "layout")
    registry.idle_timeout = 0.3
    with registry:
        yield registry
    beside = {path for path in all_paths(tmp_path / "around") if path.parts[0] != "layout"}
    assert beside == set()


def connect(registry: EmbeddedRegistry) -> socket.socket:
    host, _, port = registry.host.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT)


def ended(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            got += piece
    return got


def still_serves(registry: EmbeddedRegistry) -> bool:
    return requests.get(f"{registry.url}/v2/", timeout=TIMEOUT).status_code == 200


DRIBBLES = {
    "request line": (b"", b"G"),
    "header": (b"GET /v2/ HTTP/1.1\r\nX: ", b"x"),
    "headers": (b"GET /v2/ HTTP/1.1\r\n", b"X: y\r\n"),
    "chunk size": (
        b"POST /v2/a/blobs/uploads/?digest=sha256:"
        + b"0" * 64
        + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0",
    ),
    "trailers": (
        b"POST /v2/a/blobs/uploads/?digest=sha256:"
        + b"0" * 64
        + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
        b"X: y\r\n",
    ),
}


@pytest.mark.parametrize("part", DRIBBLES)
def test_a_client_that_dribbles_is_cut_off(served: EmbeddedRegistry, part: str) -> None:
    beginning, drop = DRIBBLES[part]
    over = threading.Event()
    with connect(served) as connection:
        connection.sendall(beginning)

        def dribble() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.01):
                    connection.sendall(drop)

        thread = threading.Thread(target=dribble)
        thread.start()
        ended(connection)
        over.set()
        thread.join()

    assert still_serves(served)


def test_trailers_without_end_are_cut_off(served: EmbeddedRegistry) -> None:
    target = f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(served) as connection, contextlib.suppress(OSError):
        connection.sendall(head.encode() + b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 200)
        assert b" 400 " in ended(connection)[:20]


@pytest.mark.parametrize("stray", ["\n", "\r", "\0", "\nContent-Length: 5\n"])
def test_a_header_that_a_proxy_reads_as_two_is_refused(
    served: EmbeddedRegistry, stray: str
) -> None:
    with connect(served) as connection:
        connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a{stray}b\r\n\r\n".encode())

        assert b" 400 " in ended(connection)[:20]


@pytest.mark.parametrize("said", [len(BLOB) - 1, len(BLOB) + 1])
def test_a_body_of_another_length_than_said_is_no_blob(served: EmbeddedRegistry, said: int) -> None:
    target = f"/v2/a/blobs/uploads/?digest={digest_of(BLOB)}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {said}\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(head.encode() + BLOB)
        connection.shutdown(socket.SHUT_WR)
        ended(connection)

    url = f"{served.url}/v2/a/blobs/{digest_of(BLOB)}"
    assert requests.head(url, timeout=TIMEOUT).status_code == 404


def test_a_session_belongs_to_its_repository(served: EmbeddedRegistry) -> None:
    opened = requests.post(f"{served.url}/v2/a/blobs/uploads/", timeout=TIMEOUT)
    name = opened.headers["Location"].rpartition("/")[2]

    for repository in ("b", "a/b", "a/blobs"):
        url = f"{served.url}/v2/{repository}/blobs/uploads/{name}"
        assert requests.patch(url, data=BLOB, timeout=TIMEOUT).status_code == 404
        assert requests.delete(url, timeout=TIMEOUT).status_code == 404


def test_a_log_line_is_one_line(
    served: EmbeddedRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evil = "%0a%1b%5b2JERROR:%20all%20is%20lost%c2%9b31m"
    requests.get(f"{served.url}/v2/{evil}/tags/list", timeout=TIMEOUT)
    (tmp_path / "around" / "layout" / "index.json").write_text("{")
    requests.get(f"{served.url}/v2/a/manifests/{evil}", timeout=TIMEOUT)

    ours = [r.getMessage() for r in caplog.records if r.name.startswith("concil.")]

    assert any("is lost" in line for line in ours)
    assert all(line.isprintable() for line in ours)


def test_long_paths_are_not_all_remembered(served: EmbeddedRegistry) -> None:
    requests.get(f"{served.url}/{'x' * 16_000}", timeout=TIMEOUT)

    assert len(served.requests[-1].path) <= 1000


def test_more_connections_than_there_are_threads_for_are_closed(
    served: EmbeddedRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_table, "MAX_CONNECTIONS", 5)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(served)) for _ in range(20)]
        for connection in idle:
            assert ended(connection) == b""  # all of them, be it after a silence

    assert "more than 5 connections: closing the one that has been idle longest" in caplog.text
    assert still_serves(served)
