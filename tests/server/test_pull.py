"""Pulling: blobs, their ranges, and manifests, as the conformance suite asks for them."""

from __future__ import annotations

import hashlib
import socket

import pytest

from tests.server.client import Client, code_of
from tests.support.images import OCI, digest_of, make_blob

BLOB = make_blob(1, 2048)
MISSING = digest_of(b"never pushed")


def test_api_version_check_succeeds(client: Client) -> None:
    for path in ("/v2/", "/v2"):
        answer = client.ask("GET", path)

        assert answer.status_code == 200
        assert answer.json() == {}
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_comes_whole_with_its_digest(client: Client, method: str) -> None:
    digest = client.push(BLOB)

    answer = client.ask(method, f"blobs/{digest}")

    assert answer.status_code == 200
    assert answer.content == (BLOB if method == "GET" else b"")
    assert answer.headers["Content-Length"] == str(len(BLOB))
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_an_empty_blob_costs_no_connection(client: Client) -> None:
    digest = client.push(b"")

    assert client.ask("GET", f"blobs/{digest}").headers["Connection"] == "keep-alive"
    with socket.create_connection(("127.0.0.1", int(client.url.rpartition(":")[2]))) as sock:
        request = f"GET /v2/{client.repository}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        for _ in range(2):
            sock.sendall(request)
            assert sock.recv(10_000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"blobs/{MISSING}", "BLOB_UNKNOWN"),
        (f"manifests/{MISSING}", "MANIFEST_UNKNOWN"),
        ("manifests/missing", "MANIFEST_UNKNOWN"),
        # What the conformance suite asks for: not even a tag by its syntax.
        ("manifests/.INVALID_MANIFEST_NAME", "MANIFEST_UNKNOWN"),
    ],
)
def test_missing_content_is_404(client: Client, method: str, path: str, code: str) -> None:
    answer = client.ask(method, path)

    assert answer.status_code == 404
    if method != "HEAD":
        assert code_of(answer) == code


@pytest.mark.parametrize("part", ["blobs", "manifests"])
@pytest.mark.parametrize(
    "digest", ["sha256:baddigeststring", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:"]
)
def test_a_bad_digest_is_400(client: Client, part: str, digest: str) -> None:
    answer = client.ask("GET", f"{part}/{digest}")

    assert answer.status_code == 400
    assert code_of(answer) == "DIGEST_INVALID"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-", 0, 2048),
        ("bytes=0-0", 0, 1),
        ("bytes=2047-2047", 2047, 2048),
        ("bytes=-5000", 0, 2048),
    ],
)
def test_a_range_is_206(client: Client, asked: str, start: int, stop: int) -> None:
    digest = client.push(BLOB)

    answer = client.ask("GET", f"blobs/{digest}", headers={"Range": asked})

    assert answer.status_code == 206
    assert answer.content == BLOB[start:stop]
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/2048"
    assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize(
    "asked", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=-", "bytes=a-b"]
)
def test_range_outside_the_blob_is_416(client: Client, asked: str) -> None:
    digest = client.push(BLOB)

    answer = client.ask("GET", f"blobs/{digest}", headers={"Range": asked})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */2048"
    assert code_of(answer) == "RANGE_INVALID"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "lines=1-2"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
    ],
)
def test_a_range_that_cannot_be_served_gets_the_whole_blob(
    client: Client, headers: dict[str, str]
) -> None:
    digest = client.push(BLOB)

    answer = client.ask("GET", f"blobs/{digest}", headers=headers)

    assert answer.status_code == 200
    assert answer.content == BLOB


def test_if_range_with_the_right_tag_is_a_range(client: Client) -> None:
    digest = client.push(BLOB)

    headers = {"Range": "bytes=1-2", "If-Range": f'"{digest}"'}
    answer = client.ask("GET", f"blobs/{digest}", headers=headers)

    assert answer.status_code == 206


def test_head_knows_no_ranges(client: Client) -> None:
    digest = client.push(BLOB)

    answer = client.ask("HEAD", f"blobs/{digest}", headers={"Range": "bytes=0-9"})

    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == "2048"


@pytest.mark.parametrize("asked", [None, "bytes=0-", "bytes=-1"])
def test_an_empty_blob_is_served(client: Client, asked: str | None) -> None:
    digest = client.push(b"")

    answer = client.ask("GET", f"blobs/{digest}", headers={"Range": asked} if asked else {})

    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["Content-Length"] == "0"


def test_a_blob_can_be_had_by_its_sha512(client: Client) -> None:
    digest = f"sha512:{hashlib.sha512(BLOB).hexdigest()}"
    location = client.post(**{"digest-algorithm": "sha512"}).headers["Location"]

    pushed = client.put(location, digest, BLOB)
    answer = client.ask("GET", f"blobs/{digest}")

    assert pushed.headers["Docker-Content-Digest"] == digest
    assert answer.content == BLOB
    assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_comes_as_it_was_pushed_by_tag_and_by_digest(
    client: Client, method: str
) -> None:
    digest, body = client.push_image("v1")

    for reference in ("v1", digest):
        answer = client.ask(method, f"manifests/{reference}")

        assert answer.status_code == 200
        assert answer.content == (body if method == "GET" else b"")
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["Content-Type"] == OCI.manifest
        assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("part", ["blobs", "manifests"])
def test_what_the_client_has_already_is_304(client: Client, part: str) -> None:
    digest, _ = client.push_image("v1")
    if part == "blobs":
        digest = client.push(BLOB)

    headers = {"If-None-Match": f'"{digest}"'}
    answer = client.ask("GET", f"{part}/{digest}", headers=headers)

    assert answer.status_code == 304
    assert answer.content == b""


def test_a_blob_of_another_repository_is_404(client: Client) -> None:
    digest = client.push(BLOB)
    other = client.at("team/other")

    assert other.ask("GET", f"blobs/{digest}").status_code == 404
    assert other.ask("HEAD", f"blobs/{digest}").status_code == 404


def test_a_manifest_is_no_blob_and_a_blob_no_manifest(client: Client) -> None:
    digest, _ = client.push_image("v1")
    blob = client.push(BLOB)

    assert client.ask("GET", f"blobs/{digest}").status_code == 404
    assert client.ask("GET", f"manifests/{blob}").status_code == 404
