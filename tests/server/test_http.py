"""What comes over the wire that no HTTP library would send, and what must not harm."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.server.client import Client, RawClient, code_of
from tests.support.images import digest_of, make_blob
from tests.support.tls import CertificateAuthority

BLOB = make_blob(5, 300_000)
DIGEST = digest_of(BLOB)
HEX = "0" * 64


@pytest.fixture
def raw(registry: EmbeddedRegistry) -> Iterator[RawClient]:
    with RawClient(registry.host) as raw:
        yield raw


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        f"/v2/../../blobs/sha256:{HEX}",
        f"/v2/a/../../../etc/blobs/sha256:{HEX}",
        f"/v2/%2e%2e/%2e%2e/etc/blobs/sha256:{HEX}",
        f"/v2/a%2f..%2fb/blobs/sha256:{HEX}",
        f"/v2//etc/blobs/sha256:{HEX}",
        f"/v2/_blobs/blobs/sha256:{HEX}",
        f"/v2/a/_manifests/blobs/sha256:{HEX}",
        f"/v2/a%00b/blobs/sha256:{HEX}",
        f"/v2/UPPER/blobs/sha256:{HEX}",
        f"/v2/{'a/' * 150}a/blobs/sha256:{HEX}",
        "/v2/a/blobs/sha256:../../../../etc/passwd",
        "/v2/a/blobs/..%2f..%2findex.json",
        "/v2/a/blobs/sha256:%2e%2e%2f%2e%2e%2findex.json",
        "/v2/a/manifests/..%2f..%2findex.json",
        "/v2/a/manifests/sha256:../../index.json",
        "/v2/a/blobs/uploads/..%2f..%2fsecret",
        "/v2/a/blobs/uploads/../../../secret",
        "/v2/a/blobs/uploads/%2e%2e",
        "/v2/a/referrers/sha256:../../..",
        "/v2/../../../../etc/passwd",
        "/etc/passwd",
        "*",
    ],
)
def test_no_path_leads_out_of_the_registry(
    raw: RawClient, directory: Path, method: str, path: str
) -> None:
    secret = directory.parent / "secret"
    secret.write_text("secret")

    raw.send(f"{method} {path}?digest=sha256:{HEX} HTTP/1.1\nHost: x\nContent-Length: 0\n\n")
    answer = raw.answer(head=method == "HEAD")

    assert answer.status in (400, 404, 405)
    assert b"secret" not in answer.body
    assert secret.read_text() == "secret"
    assert not any(path.is_file() for path in directory.rglob("_*"))


@pytest.mark.parametrize(
    "head",
    [
        "nonsense\n\n",
        "GET /v2/ HTTP/2.0\n\n",
        "GET /v2/\n\n",
        "GET /v2/ HTTP/1.1\nno colon\n\n",
        "GET /v2/ HTTP/1.1\nA: b\n folded: line\n\n",
        "GET /v2/ HTTP/1.1\nBad Name: x\n\n",
        "PATCH /v2/ HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n\n",
        "PATCH /v2/ HTTP/1.1\nContent-Length: -1\n\n",
        "PATCH /v2/ HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
        "PATCH /v2/ HTTP/1.1\nTransfer-Encoding: gzip, chunked\n\n",
        f"GET /v2/{'?a=b' + '&a=b' * 100} HTTP/1.1\n\n",
    ],
)
def test_what_is_no_http_gets_400_and_is_cut_off(raw: RawClient, client: Client, head: str) -> None:
    raw.send(head)

    assert raw.answer().status == 400
    assert raw.closed()
    assert client.ask("GET", "/v2/").status_code == 200


@pytest.mark.parametrize(
    "head", ["GET /" + "a" * 40_000, "GET /v2/ HTTP/1.1\n" + "X: y\n" * 10_000]
)
def test_endless_headers_are_cut_off(raw: RawClient, head: str) -> None:
    raw.send(head)

    assert raw.answer().status == 431
    assert raw.closed()


def test_tls_client_gets_an_error_response_immediately(registry: EmbeddedRegistry) -> None:
    with requests.Session() as session, pytest.raises(requests.exceptions.SSLError):
        session.get(f"https://{registry.host}/v2/", timeout=10)


def test_a_connection_serves_many_requests(raw: RawClient) -> None:
    raw.send("GET /v2/ HTTP/1.1\nHost: x\n\nGET /v2/_catalog HTTP/1.1\nHost: x\n\n")

    assert raw.answer().body == b"{}"
    assert raw.answer().body == b'{"repositories":[]}'


@pytest.mark.parametrize(
    "line", ["GET /v2/ HTTP/1.0\n\n", "GET /v2/ HTTP/1.1\nHost: x\nConnection: close\n\n"]
)
def test_a_connection_ends_when_the_client_wants_it(raw: RawClient, line: str) -> None:
    raw.send(line)

    assert raw.answer().status == 200
    assert raw.closed()


@pytest.mark.parametrize(
    "line",
    ["GET /v2/ HTTP/1.1\n\n", *(f"GET /v2/ HTTP/1.{n}\nHost: x\nHost: x\n\n" for n in (0, 1))],
)
def test_a_request_has_one_host(raw: RawClient, line: str) -> None:
    raw.send(line)

    assert raw.answer().status == 400
    assert raw.closed()


def test_a_proxy_may_send_the_whole_address(raw: RawClient) -> None:
    raw.send("GET http://registry.example/v2/ HTTP/1.1\nHost: x\n\n")

    assert raw.answer().status == 200


def test_the_body_waits_for_100_continue(raw: RawClient, client: Client) -> None:
    location = client.begin()
    head = f"Host: x\nContent-Length: {len(BLOB)}\nExpect: 100-continue"

    raw.send(f"PUT {location}?digest={DIGEST} HTTP/1.1\n{head}\n\n")
    assert raw.answer().status == 100
    raw.send("", BLOB)

    assert raw.answer().status == 201


def test_a_refused_body_is_not_asked_for(raw: RawClient) -> None:
    head = f"Host: x\nContent-Length: {1 << 40}\nExpect: 100-continue"

    raw.send(f"PATCH /v2/a/blobs/uploads/unknown HTTP/1.1\n{head}\n\n")

    assert raw.answer().status == 404
    assert raw.closed()


def test_a_refused_body_that_comes_anyway_is_read_and_the_connection_lives(
    raw: RawClient,
) -> None:
    head = f"Host: x\nContent-Length: {len(BLOB)}"

    raw.send(f"PATCH /v2/a/blobs/uploads/unknown HTTP/1.1\n{head}\n\n", BLOB)
    raw.send("GET /v2/ HTTP/1.1\nHost: x\n\n")

    assert raw.answer().status == 404
    assert raw.answer().status == 200


@pytest.mark.parametrize(
    "coded", [b"xyz\r\n", b"-5\r\nhello\r\n", b"5\r\nhello!!\r\n", b"ffffffffffffffffff\r\n"]
)
def test_a_broken_chunked_coding_is_refused(raw: RawClient, client: Client, coded: bytes) -> None:
    location = client.begin()

    raw.send(f"PATCH {location} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n", coded)

    assert raw.answer().status == 400
    assert raw.closed()


def test_chunk_extensions_and_trailers_are_passed_over(raw: RawClient, client: Client) -> None:
    location = client.begin()
    coded = b"5;a=b\r\nhello\r\n1 \r\n!\r\n0\r\nTrailer: x\r\n\r\n"

    raw.send(f"PATCH {location} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n", coded)

    assert raw.answer().headers["range"] == "0-5"
    assert client.put(location, digest_of(b"hello!")).status_code == 201


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_silent_client_is_cut_off(directory: Path, sent: int) -> None:
    registry = EmbeddedRegistry(directory)
    registry.idle_timeout = 0.05
    with registry, Client(registry.url) as client, RawClient(registry.host) as raw:
        if sent:
            location = client.begin()
            head = f"Host: x\nContent-Length: {len(BLOB)}"
            raw.send(f"PATCH {location} HTTP/1.1\n{head}\n\n", BLOB[:sent])

        assert raw.closed()


def test_another_method_is_405_and_says_which_are_allowed(client: Client) -> None:
    answer = client.ask("POST", "manifests/v1")

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "DELETE, GET, PUT"
    assert code_of(answer) == "UNSUPPORTED"


def test_a_read_only_registry_serves_and_takes_nothing(client: Client, directory: Path) -> None:
    digest, body = client.push_image("v1")
    before = sorted(directory.rglob("*"))

    with (
        EmbeddedRegistry(directory, read_only=True) as registry,
        Client(registry.url) as reader,
    ):
        assert reader.ask("GET", f"manifests/{digest}").content == body
        assert reader.tags() == ["v1"]
        for method, path in (
            ("POST", "blobs/uploads/"),
            ("PUT", "manifests/v2"),
            ("DELETE", "manifests/v1"),
            ("DELETE", f"blobs/{digest}"),
            ("PATCH", "blobs/uploads/x"),
        ):
            answer = reader.ask(method, path)
            assert answer.status_code == 405
            assert code_of(answer) == "UNSUPPORTED"
    assert sorted(directory.rglob("*")) == before


def test_it_speaks_tls(directory: Path, ca: CertificateAuthority) -> None:
    context = ca.issue().server_context()
    with (
        EmbeddedRegistry(directory, ssl_context=context) as registry,
        RawClient(registry.host) as stranger,
        requests.Session() as session,
    ):
        stranger.send("GET /v2/ HTTP/1.1\n\n")
        session.verify = str(ca.path)
        with Client(registry.url) as client:
            client._session.verify = str(ca.path)
            client.push(BLOB)
            answer = client.ask("GET", f"blobs/{DIGEST}", headers={"Range": "bytes=7-"})

        assert registry.url.startswith("https://")
        assert answer.content == BLOB[7:]
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{registry.url}/v2/", timeout=10)


def test_closing_breaks_off_what_is_running(directory: Path, ca: CertificateAuthority) -> None:
    context = ca.issue().server_context()
    trusting = ssl.create_default_context(cafile=str(ca.path))
    registry = EmbeddedRegistry(directory, ssl_context=context)
    registry.start()
    with (
        RawClient(registry.host) as unsecured,
        RawClient(registry.host) as idle,
        trusting.wrap_socket(idle.sock, server_hostname="localhost") as secured,
    ):
        registry.close()
        registry.close()

        assert secured.recv(1) == b""
        assert unsecured.closed()
