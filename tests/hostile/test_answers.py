"""Answers that are odd, slow or without end, below what a document says."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import pytest
import requests

from concil.engine.engine import Engine
from concil.errors import AccessDenied, ConcilError, ConnectionLost, ProtocolViolation
from concil.http.requests_session import create_session
from tests.hostile.endless_server import create_flood
from tests.hostile.hostile_registry import HostileRegistry, failure
from tests.support.quick_retries import drop_backoff
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, reply
from tests.support.tcp_peers import serve_pieces


def tags(hostile: HostileRegistry, alice: Engine) -> ConcilError:
    """Ask for tags; return the error it must end in."""
    return failure(lambda: list(alice.list_tags(f"http://{hostile.registry.host}/app")))


# Words that the product looks for in the texts of its own HTTP stack.
WORDS = (
    "CERTIFICATE_VERIFY_FAILED SSLError: trust me (x",
    "SSLError WRONG_VERSION_NUMBER",
    "Could not find a suitable TLS CA certificate bundle, invalid path: /etc/shadow",
    "Missing dependencies for SOCKS support.",
    "Tunnel connection failed: 407 no",
    "NameResolutionError gaierror",
    "\x1b]0;owned\x07 \x9b31m SSLError CERTIFICATE_VERIFY_FAILED: \x1b[2J (",
)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("form", ["{}\r\n\r\n", "HTTP/9.9 {}\r\n\r\n", "HTTP/1.1 200 {}\r\nX: y"])
def test_what_a_server_says_is_not_taken_for_our_own_words(
    authenticated_engine: Engine, words: str, form: str
) -> None:
    """Or it could tell a person to use --insecure."""
    with serve_pieces(lambda: [form.format(words).encode("latin-1")]) as server:
        error = failure(lambda: list(authenticated_engine.list_tags(f"http://{server.host}/app")))

    assert isinstance(error, (ConnectionLost, ProtocolViolation))
    told = f"{error} {error.remedy}"
    assert not any(word in told for word in ("insecure", "shadow", "proxy", "PROXY", "cacert"))
    assert "name is not known" not in told


@pytest.mark.parametrize("status", [200, 404, 500])
def test_no_header_floods_a_message(
    hostile: HostileRegistry, authenticated_engine: Engine, status: int
) -> None:
    reason = "\x1b[31m" + "very " * 12_000
    answer = f"HTTP/1.1 {status} {reason}\r\n\r\nno JSON".encode()
    with serve_pieces(lambda: [answer]) as server:
        error = failure(lambda: list(authenticated_engine.list_tags(f"http://{server.host}/app")))

    assert len(str(error)) < 1000


LENGTHS = ("+5", "-5", "5, 6", "0x5", "5 5", "\xb2", "9" * 5000, "1e3", "5;5", "")


@pytest.mark.threads_only
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("status", [200, 307, 401, 404, 500])
def test_an_odd_length_ends_in_an_error_of_ours(
    hostile: HostileRegistry, authenticated_engine: Engine, length: str, status: int
) -> None:
    headers = (("Content-Length", length), ("Location", "/v2/app/tags/list?n=1"))
    hostile.serve("tags/list", ScriptedResponse(status, b"[]", headers, length=-1))

    tags(hostile, authenticated_engine)


@pytest.mark.parametrize(
    "headers",
    [
        (("Content-Length", "3"), ("Content-Length", "4")),
        (("Content-Length", "3"), ("Transfer-Encoding", "chunked")),
        (("Transfer-Encoding", "chunked, chunked"),),
        (("Transfer-Encoding", "gzip, chunked"),),
        (("Location", "/a"), ("Location", "http://127.0.0.1/b")),
        (("Content-Type", "a"), ("Content-Type", "b")),
        (("Docker-Content-Digest", "a"), ("Docker-Content-Digest", "b")),
        (("Retry-After", "-1"), ("Retry-After", "9" * 9000)),
        (("Link", "<" * 60_000),),
        (("Link", '<a>; rel="' + "x " * 30_000),),
        (("WWW-Authenticate", "Bearer " + 'realm="' * 9000),),
        (("WWW-Authenticate", "," * 60_000),),
        (("Set-Cookie", "a=" + "b; expires=" * 6000),),
        (("Date", "x" * 60_000),),
        (("X\x00Y", "z"),),
        (("", "empty"),),
        (("No-Colon\r\nno colon at all", "x"),),
    ],
)
@pytest.mark.threads_only
@pytest.mark.parametrize("status", [200, 307, 401, 429])
def test_odd_headers_end_in_an_error_of_ours(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    headers: tuple[tuple[str, str], ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drop_backoff(monkeypatch)
    monkeypatch.setattr("concil.http.throttle.ratelimit_headers.parse_retry_after", lambda _: None)
    answer = ScriptedResponse(status, b"[]", headers).wire(head=False)
    with serve_pieces(lambda: [answer]) as server:
        failure(lambda: list(authenticated_engine.list_tags(f"http://{server.host}/app")))


@pytest.mark.parametrize("names", [["x" * 127] * 50_000, ["%d"] * 60_000])
def test_a_list_of_tags_without_end_is_given_up(
    hostile: HostileRegistry, authenticated_engine: Engine, names: list[str]
) -> None:
    number = iter(range(10_000))
    page = json.dumps({"tags": names})

    def answer(_seen: ReceivedRequest) -> ScriptedResponse:
        return reply(200, page, Link=f'</v2/app/tags/list?last={next(number)}>; rel="next"')

    hostile.serve("tags/list", answer)

    assert isinstance(tags(hostile, authenticated_engine), ProtocolViolation)
    assert next(number) < 12


# A token service --------------------------------------------------------------------

TOKEN_FLOODS = (
    "body without a length",
    "chunks",
    "headers",
    "interim answers",
    "error",
    "redirect",
)


@pytest.mark.parametrize("way", TOKEN_FLOODS)
def test_a_token_service_without_end_is_given_up(
    hostile: HostileRegistry, authenticated_engine: Engine, way: str
) -> None:
    with create_flood(way) as flood:
        challenge = f'Bearer realm="http://{flood.host}/token",service="s"'
        hostile.registry.respond("*", "/v2/.*", reply(401, WWW_Authenticate=challenge))

        tags(hostile, authenticated_engine)


@pytest.mark.parametrize(
    "body",
    [
        b'{"token": "' + b"x" * 70_000 + b'"}',
        b'{"token": "x", "a": ' + b"[" * 30_000,
        b'{"token": "x\\r\\nX-Evil: 1"}',
        '{"token": "\uff58"}'.encode(),
        b'{"token": ["x"]}',
        b'{"token": "x", "expires_in": ' + b"9" * 5000 + b"}",
        gzip.compress(b'{"token": "' + bytes(50_000_000)),
    ],
)
def test_a_token_that_is_none_is_refused(
    hostile: HostileRegistry, authenticated_engine: Engine, body: bytes
) -> None:
    encoding = {"Content_Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    hostile.registry.respond("GET", "/token.*", reply(200, body, **encoding))

    assert isinstance(tags(hostile, authenticated_engine), (AccessDenied, ProtocolViolation))


# Slow ------------------------------------------------------------------------------


class Clock:
    """A clock that a byte moves on by nearly what is borne of silence."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


SLOW = {
    "status line": b"HTTP/1.1 200 " + b"x" * 400,
    "header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400,
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90,
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"[" * 400,
    "body of an error": b"HTTP/1.1 404 No\r\nContent-Length: 400\r\n\r\n" + b"[" * 400,
    "body of a redirect": b"HTTP/1.1 307 Go\r\nContent-Length: 400\r\nLocation: /x\r\n\r\n"
    + b"[" * 400,
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 400,
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    + b"X: y\r\n" * 90,
}


@pytest.mark.parametrize("part", SLOW)
def test_a_byte_a_minute_is_not_waited_for(
    part: str, authenticated_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent = Clock(), [0]
    head, _, rest = (
        SLOW[part].partition(b"\r\n\r\n")
        if "\r\n\r\n" in SLOW[part].decode()
        else (b"", b"", SLOW[part])
    )
    quick = head + b"\r\n\r\n" if head else b""

    def dribble() -> Iterator[bytes]:
        yield quick
        for number in range(len(rest)):
            clock.now += 50
            sent[0] += 1
            yield rest[number : number + 1]
            time.sleep(0.0005)  # or several bytes would come as one

    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    with serve_pieces(dribble) as server:
        failure(lambda: list(authenticated_engine.list_tags(f"http://{server.host}/app")))

    assert sent[0] < len(rest)


def test_the_size_of_a_chunk_is_no_endless_number() -> None:
    """urllib3 reads it on its own where a response is streamed."""
    sent = [0]

    def digits() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while sent[0] < 50_000_000:
            sent[0] += 100_000
            yield b"1" * 100_000

    with serve_pieces(digits) as server, create_session() as plain:
        response = plain.get(f"http://{server.host}/", stream=True)
        with pytest.raises(requests.RequestException):
            next(response.iter_content())
        response.close()

    assert sent[0] < 50_000_000
