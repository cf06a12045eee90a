"""A direct exchange gives what requests and urllib3 give, for every form of response."""

from __future__ import annotations

import gzip
import socket
import threading
from typing import Any

import pytest
import requests

from concil.errors import ConcilError
from concil.http import errors
from concil.http.adapter import RegistryAdapter
from concil.http.exchange.direct import exchange
from concil.http.exchange.pooled_connection import PooledConnection
from concil.http.requests_session import create_session
from concil.http.transport import Transport, read_limited
from tests.support.tcp_peers import TCPServer

TIMEOUT = 10.0  # seconds
BODY = b"0123456789" * 1000


class CannedServer(TCPServer):
    """Answers every request with the same bytes; the connection stays open unless they say so."""

    def __init__(self, answer: bytes, *, closes: bool = False) -> None:
        self.requests: list[bytes] = []
        self._answer_bytes = answer
        self._closes = closes
        super().__init__(self._serve_requests)

    def _serve_requests(self, connection: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    return
                received += piece
            head, _, received = received.partition(b"\r\n\r\n")
            self.requests.append(head)
            connection.sendall(self._answer_bytes)
            if self._closes:
                return


def receive(url: str, method: str, *, direct: bool) -> tuple[Any, ...]:
    """Send a request in one of both ways; return all that can be seen of its response."""
    with create_session() as session:  # with a connection of its own
        return receive_in(session, url, method, direct=direct)


def receive_in(
    session: requests.Session, url: str, method: str, *, direct: bool
) -> tuple[Any, ...]:
    """Do as `receive` in a session."""
    request = session.prepare_request(requests.Request(method, url))
    adapter = session.get_adapter(url)
    assert isinstance(adapter, RegistryAdapter)
    response: requests.Response
    try:
        if direct:
            pool = adapter.pool_for(request, verify=True)
            response = exchange(pool, request, TIMEOUT)
        else:
            response = adapter.send(
                request, stream=True, timeout=(TIMEOUT, TIMEOUT), verify=True, proxies={}
            )
        with response:
            pieces = b"".join(response.iter_content(1000))
    except (requests.RequestException, OSError, errors.URLLIB3_ERRORS):
        return ("an error",)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status_code, response.reason, headers, response.encoding, pieces


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + BODY,
    "with an empty body": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "without a reason": b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx",
    "of several words": b"HTTP/1.1 404 Not  Found here \r\nContent-Length: 1\r\n\r\nx",
    "of a status without body": b"HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n",
    "in chunks": CHUNKED + b"5;name=value\r\n01234\r\n0005\r\n56789\r\n0\r\nTrailer: x\r\n\r\n",
    "in chunks, with a length": CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "in chunks of upper case": CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n",
    "with line feeds only": b"HTTP/1.1 200 OK\nContent-Length: 2\nX: y\n\nab",
    "with repeated headers": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nA: 1\r\na: 2\r\n\r\nx",
    "with the same length twice": b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 1\r\n" * 2 + b"\r\nx",
    "with bytes beyond ASCII": b"HTTP/1.1 200 \xdcber\r\nContent-Length: 1\r\nA: \xe4\r\n\r\nx",
    "after an interim one": b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "with a type": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "encoded": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    % len(gzip.compress(BODY))
    + gzip.compress(BODY),
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "kept alive in HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n"
    b"Content-Length: 1\r\n\r\nx",
}
BROKEN = {
    "up to the end": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "shorter than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + BODY,
    "with two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "with a wrong chunk size": CHUNKED + b"x\r\nx\r\n0\r\n\r\n",
    "with a negative chunk size": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "with a chunk that breaks off": CHUNKED + b"5\r\n012",
    "without the last chunk": CHUNKED + b"5\r\n01234\r\n",
    "that is no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "of a wrong version": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "with a wrong status": b"HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n",
    "of nothing": b"",
    "with a long line": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
    "with too many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", RESPONSES)
def test_response_is_the_same_as_from_requests(name: str, method: str) -> None:
    answer = RESPONSES[name]
    if method == "HEAD":
        answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if b"\r\n\r\n" in answer else answer
    with CannedServer(answer, closes=True) as server:
        url = f"http://{server.host}/v2/"
        expected = receive(url, method, direct=False)
        seen = receive(url, method, direct=True)

    assert seen == expected
    assert seen[0] != "an error" or "interim" in name
    assert len({head.split(b"\r\n")[0] for head in server.requests}) == 1
    assert len({frozenset(head.split(b"\r\n")) for head in server.requests}) == 1


def test_spaces_around_values_and_folded_lines_are_removed() -> None:
    """Requests leaves them in the value. Source: RFC 9112, 5.1 and 5.2."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length:  1 \r\nA:\t b \r\nC: 1,\r\n\t2\r\nD: 3\r\n\r\nx"
    with CannedServer(answer) as server:
        _, _, headers, _, body = receive(f"http://{server.host}/", "GET", direct=True)

    assert headers == {"content-length": "1", "a": "b", "c": "1, 2", "d": "3"}
    assert body == b"x"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_response_is_the_same_as_from_requests(name: str) -> None:
    with CannedServer(BROKEN[name], closes=True) as server:
        url = f"http://{server.host}/v2/"
        expected = receive(url, "GET", direct=False)
        seen = receive(url, "GET", direct=True)

    assert seen == expected
    assert (seen == ("an error",)) is (name != "up to the end")


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 1),
        (CHUNKED + b"1\r\nx\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 3),
        # Bytes behind the body would be taken for the next response.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n", 3),
    ],
)
def test_connection_is_reused_only_after_a_complete_response(
    answer: bytes, connections: int
) -> None:
    with CannedServer(answer) as server, create_session() as session:
        transport = Transport(session)
        for _ in range(3):
            response = transport.send(requests.Request("GET", f"http://{server.host}/"))
            assert read_limited(response, 10, "an answer") == b"x"

    assert server.connections == connections


def test_connection_with_unread_bytes_is_closed() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + BODY
    with CannedServer(answer) as server, create_session() as session:
        transport = Transport(session)
        for _ in range(3):
            response = transport.send(requests.Request("GET", f"http://{server.host}/"))
            assert response.raw.read1(10) == BODY[:10]
            response.close()

    assert server.connections == 3


def test_body_that_breaks_off_is_an_error_for_every_way_to_read_it() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + BODY
    with CannedServer(answer, closes=True) as server, create_session() as session:
        transport = Transport(session)

        def send() -> requests.Response:
            return transport.send(requests.Request("GET", f"http://{server.host}/"))

        with send() as response, pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(response.iter_content(1000))
        with send() as response, pytest.raises(errors.URLLIB3_ERRORS):
            response.raw.read()
        with send() as response, pytest.raises(ConcilError):
            read_limited(response, 30_000, "an answer")


def test_silence_within_a_body_ends_by_its_timeout() -> None:
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
        done.wait(TIMEOUT)

    server = TCPServer(serve)
    try:
        with create_session() as session:
            adapter = session.get_adapter("http://")
            assert isinstance(adapter, RegistryAdapter)
            request = session.prepare_request(requests.Request("GET", f"http://{server.host}/"))
            pool = adapter.pool_for(request, verify=True)
            with exchange(pool, request, (TIMEOUT, 0.05)) as response:
                assert response.raw.read1(1) == b"x"
                with pytest.raises(requests.ConnectionError):
                    list(response.iter_content(10))
    finally:
        done.set()
        server.close()


# Connections ----------------------------------------------------------------------------


def test_a_pool_keeps_no_more_connections_than_it_may() -> None:
    server = CannedServer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    try:
        with create_session(pool_maxsize=1) as session:
            adapter = session.get_adapter("http://")
            assert isinstance(adapter, RegistryAdapter)
            request = session.prepare_request(requests.Request("GET", f"http://{server.host}/"))
            pool = adapter.pool_for(request, verify=True)
            first, second = (PooledConnection(pool, TIMEOUT, TIMEOUT) for _ in range(2))
            kept, closed = first._sock, second._sock
            first.release(is_reusable=True)
            second.release(is_reusable=True)

            assert closed.fileno() == -1
            third = PooledConnection(pool, TIMEOUT, TIMEOUT)
            assert third._sock is kept
            third.discard()
    finally:
        server.close()


# Requests with a body -------------------------------------------------------------------


class StreamBody:
    """A body that is read block by block, as a chunk of a blob is."""

    def __init__(self, content: bytes, error: ConcilError | None = None) -> None:
        self._content, self._error = content, error
        self._position = 0

    def __len__(self) -> int:
        return len(self._content)

    def read(self, size: int = -1) -> memoryview:
        """Return the next block, or raise the error."""
        if self._error is not None:
            raise self._error
        stop = len(self._content) if size < 0 else self._position + size
        block = memoryview(self._content)[self._position : stop]
        self._position += len(block)
        return block


def send_stream(body: StreamBody) -> tuple[list[bytes], ConcilError | None]:
    """Send a PUT; return what the server received, as it came, and the error of the client."""
    pieces: list[bytes] = []
    error: ConcilError | None = None

    def serve(connection: socket.socket) -> None:
        size = None  # bytes of the whole request
        while size is None or len(b"".join(pieces)) < size:
            if not (piece := connection.recv(4 * 1024 * 1024)):
                return
            pieces.append(piece)
            head, end, _ = b"".join(pieces).partition(b"\r\n\r\n")
            size = len(head + end) + len(body) if end else None
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with TCPServer(serve) as server, create_session() as session:
        try:
            Transport(session).send(
                requests.Request("PUT", f"http://{server.host}/", data=body)
            ).close()
        except ConcilError as caught:
            error = caught
    return pieces, error


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, 64 * 1024 + 1, 3 * 1024 * 1024 + 5])
def test_streamed_body_arrives_whole(size: int) -> None:
    content = (BODY * (size // len(BODY) + 1))[:size]

    pieces, error = send_stream(StreamBody(content))

    assert error is None
    assert b"".join(pieces).partition(b"\r\n\r\n")[2] == content


def test_small_streamed_body_comes_with_the_head() -> None:
    pieces, _ = send_stream(StreamBody(BODY[:1000]))

    assert len(pieces) == 1


def test_nothing_is_sent_if_the_first_block_cannot_be_read() -> None:
    pieces, error = send_stream(StreamBody(BODY, ConcilError("the source is gone")))

    assert pieces == []
    assert str(error) == "the source is gone"
