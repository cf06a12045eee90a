"""A server that never comes to an end, in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.support.tcp_peers import TCPServer, serve_pieces

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"


def _for_ever(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def _then(*pieces: bytes, ever: bytes) -> Callable[[], Iterator[bytes]]:
    def answer() -> Iterator[bytes]:
        yield from pieces
        yield from _for_ever(ever)

    return answer


_ZEROS = bytes(64 * 1024)
_CHUNK = b"10000\r\n" + _ZEROS + b"\r\n"
FLOODS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "body without a length": _then(HEAD + b"\r\n", ever=_ZEROS),
    "body with a small length": _then(HEAD + b"Content-Length: 100\r\n\r\n", ever=_ZEROS),
    "body with a huge length": _then(HEAD + b"Content-Length: 99999999999\r\n\r\n", ever=_ZEROS),
    "length of thousands of digits": _then(
        HEAD + b"Content-Length: " + b"9" * 9000 + b"\r\n\r\n", ever=_ZEROS
    ),
    "chunks": _then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", ever=_CHUNK),
    "one chunk size": _then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", ever=b"1" * 65536),
    "trailers": _then(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", ever=b"X-A: b\r\n" * 9000
    ),
    "one trailer": _then(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", ever=b"x" * 65536
    ),
    "headers": _then(HEAD, ever=b"X-A: b\r\n" * 9000),
    "one header": _then(HEAD + b"X-A: ", ever=b"x" * 65536),
    "status line": _then(b"HTTP/1.1 200 ", ever=b"x" * 65536),
    "no HTTP": _then(ever=_ZEROS),
    "interim answers": _then(ever=b"HTTP/1.1 100 Continue\r\n\r\n" * 2500),
    "error": _then(b"HTTP/1.1 500 Oops\r\n\r\n", ever=_ZEROS),
    "refusal": _then(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n", ever=_ZEROS),
    "challenge": _then(b"HTTP/1.1 401 No\r\nWWW-Authenticate: ", ever=b'a="b",' * 9000),
    "redirect": _then(b"HTTP/1.1 307 Go\r\nLocation: /v2/x\r\n\r\n", ever=_ZEROS),
}


def create_flood(way: str) -> TCPServer:
    """Return a server that answers every request in one of the ways of `FLOODS`."""
    return serve_pieces(FLOODS[way])
