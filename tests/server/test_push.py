"""Pushing blobs: whole, in chunks, as a stream, mounted; and everything refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.server.client import OCTETS, Client, code_of
from tests.support.images import digest_of, make_blob

BLOB = make_blob(2, 3000)
DIGEST = digest_of(BLOB)


def assert_held(client: Client, blob: bytes, location: str | None = None) -> None:
    answer = client.ask("GET", location or f"blobs/{digest_of(blob)}")
    assert answer.status_code == 200
    assert answer.content == blob


def test_blob_is_pushed_in_one_post(client: Client) -> None:
    answer = client.ask(
        "POST", "blobs/uploads/", params={"digest": DIGEST}, data=BLOB, headers=OCTETS
    )

    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == DIGEST
    assert_held(client, BLOB, answer.headers["Location"])


def test_blob_is_pushed_in_a_post_and_a_put(client: Client) -> None:
    answer = client.put(client.begin(), DIGEST, BLOB)

    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == DIGEST
    assert_held(client, BLOB, answer.headers["Location"])


def test_blob_is_pushed_in_chunks(client: Client) -> None:
    location = client.begin()
    for start in (0, 1024, 2048):
        answer = client.patch(location, BLOB[start : start + 1024], start)
        assert answer.status_code == 202
        assert answer.headers["Range"] == f"0-{min(start + 1024, 3000) - 1}"
        location = answer.headers["Location"]

    answer = client.put(location, DIGEST)

    assert answer.status_code == 201
    assert_held(client, BLOB, answer.headers["Location"])


def test_last_chunk_may_be_sent_in_the_put(client: Client) -> None:
    location = client.patch(client.begin(), BLOB[:1024], 0).headers["Location"]

    answer = client.ask(
        "PUT",
        location,
        params={"digest": DIGEST},
        data=BLOB[1024:],
        headers={**OCTETS, "Content-Range": "1024-2999"},
    )

    assert answer.status_code == 201
    assert_held(client, BLOB)


def test_blob_is_pushed_as_a_stream_without_content_range(client: Client) -> None:
    answer = client.patch(client.begin(), BLOB)
    assert answer.status_code == 202

    assert client.put(answer.headers["Location"], DIGEST).status_code == 201
    assert_held(client, BLOB)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_blob_is_pushed_with_chunked_transfer_coding(client: Client, method: str) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, 3000, 700):
            yield BLOB[start : start + 700]

    location = client.begin()
    query = {"digest": DIGEST} if method == "PUT" else {}
    answer = client.ask(method, location, data=pieces(), params=query, headers=OCTETS)

    assert answer.status_code == (201 if method == "PUT" else 202)
    if method == "PATCH":
        assert client.put(location, DIGEST).status_code == 201
    assert_held(client, BLOB)


@pytest.mark.parametrize("blob", [b"", b"{}", b"x"])
def test_small_blobs_are_pushed_by_every_method(client: Client, blob: bytes) -> None:
    digest = digest_of(blob)

    whole = client.ask("POST", "blobs/uploads/", params={"digest": digest}, data=blob)
    streamed = client.patch(client.begin(), blob)

    assert whole.status_code == 201
    assert client.put(streamed.headers["Location"], digest).status_code == 201
    assert client.put(client.begin(), digest, blob).status_code == 201
    assert_held(client, blob)


def test_a_new_session_says_that_it_is_empty(client: Client) -> None:
    opened = client.post()

    status = client.ask("GET", opened.headers["Location"])

    assert opened.status_code == 202
    assert opened.headers["Range"] == "0-0"
    assert status.status_code == 204
    assert status.headers["Range"] == "0-0"


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("start", [0, 1023, 1025, 2048])
def test_a_chunk_out_of_order_is_416_and_harmless(client: Client, method: str, start: int) -> None:
    location = client.patch(client.begin(), BLOB[:1024], 0).headers["Location"]
    query = {"digest": DIGEST} if method == "PUT" else {}

    answer = client.ask(
        method,
        location,
        params=query,
        data=BLOB[start:],
        headers={**OCTETS, "Content-Range": f"{start}-2999"},
    )
    status = client.ask("GET", location)

    assert answer.status_code == 416
    assert answer.headers["Range"] == "0-1023"
    assert status.status_code == 204
    assert status.headers["Range"] == "0-1023"
    goes_on = client.patch(answer.headers["Location"], BLOB[1024:], 1024)
    assert client.put(goes_on.headers["Location"], DIGEST).status_code == 201


@pytest.mark.parametrize("header", ["bytes 0-2999", "0-2999/3000", "0-", "5-2", "x"])
def test_a_content_range_of_another_form_is_400(client: Client, header: str) -> None:
    headers = {**OCTETS, "Content-Range": header}

    answer = client.ask("PATCH", client.begin(), data=BLOB, headers=headers)

    assert answer.status_code == 400
    assert code_of(answer) == "BLOB_UPLOAD_INVALID"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("last", [2998, 3000])
def test_a_length_that_differs_from_the_range_is_400_and_keeps_nothing(
    client: Client, last: int, chunked: bool
) -> None:
    location = client.begin()
    body = iter([BLOB]) if chunked else BLOB

    answer = client.ask(
        "PATCH", location, data=body, headers={**OCTETS, "Content-Range": f"0-{last}"}
    )

    assert answer.status_code == 400
    assert code_of(answer) == "SIZE_INVALID"
    assert client.ask("GET", location).headers["Range"] == "0-0"
    assert client.put(location, DIGEST, BLOB).status_code == 201


@pytest.mark.parametrize("way", ["post", "put", "chunk", "stream"])
def test_bytes_with_another_digest_are_400_and_nowhere_to_be_had(client: Client, way: str) -> None:
    wrong = BLOB + b"oh no"
    if way == "post":
        answer = client.ask("POST", "blobs/uploads/", params={"digest": DIGEST}, data=wrong)
    elif way == "put":
        answer = client.put(client.begin(), DIGEST, wrong)
    else:
        location = client.patch(client.begin(), wrong, 0 if way == "chunk" else None)
        answer = client.put(location.headers["Location"], DIGEST)

    assert answer.status_code == 400
    assert code_of(answer) == "DIGEST_INVALID"
    assert client.ask("HEAD", f"blobs/{DIGEST}").status_code == 404


@pytest.mark.parametrize("digest", ["", "sha256:short", "sha256:../../x", "blake3:" + "0" * 64])
def test_a_digest_that_is_none_is_400_and_the_session_lives(client: Client, digest: str) -> None:
    location = client.patch(client.begin(), BLOB).headers["Location"]

    answer = client.put(location, digest)

    assert answer.status_code == 400
    assert code_of(answer) == "DIGEST_INVALID"
    assert client.put(location, DIGEST).status_code == 201


def test_an_unknown_digest_algorithm_is_400(client: Client) -> None:
    answer = client.post(**{"digest-algorithm": "md5"})

    assert answer.status_code == 400


def test_a_session_may_end_in_another_algorithm_than_it_began(client: Client) -> None:
    location = client.patch(client.begin(), BLOB).headers["Location"]
    digest = f"sha512:{hashlib.sha512(BLOB).hexdigest()}"

    assert client.put(location, digest).status_code == 201
    assert client.ask("GET", f"blobs/{digest}").content == BLOB


def test_a_cancelled_session_is_gone(client: Client) -> None:
    location = client.begin()

    assert client.ask("DELETE", location).status_code == 204

    for method in ("GET", "PATCH", "DELETE"):
        answer = client.ask(method, location)
        assert answer.status_code == 404
        assert code_of(answer) == "BLOB_UPLOAD_UNKNOWN"


def test_after_the_closing_put_the_session_is_gone_and_the_blob_exists(client: Client) -> None:
    location = client.begin()
    client.put(location, DIGEST, BLOB)

    assert client.put(location, DIGEST).status_code == 404
    assert client.ask("HEAD", f"blobs/{DIGEST}").status_code == 200


def test_a_session_belongs_to_its_repository(client: Client) -> None:
    location = client.begin()

    answer = client.ask("GET", location.replace("team/app", "team/other"))

    assert answer.status_code == 404


def test_a_blob_is_mounted_from_a_sibling(client: Client) -> None:
    digest = client.push(BLOB)
    other = client.at("team/other")

    answer = other.post(mount=digest, **{"from": "team/app"})

    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == digest
    assert_held(other, BLOB, answer.headers["Location"])


def test_a_blob_is_mounted_from_wherever_it_is(client: Client) -> None:
    digest = client.push(BLOB)
    other = client.at("team/other")

    assert other.post(mount=digest).status_code == 201
    assert_held(other, BLOB)


@pytest.mark.parametrize("source", ["team/app", "nobody", "../../etc", "UPPER"])
def test_mount_of_a_missing_blob_opens_a_session(client: Client, source: str) -> None:
    client.at("team/third").push(BLOB)

    answer = client.post(mount=DIGEST, **{"from": source})

    assert answer.status_code == 202
    assert client.ask("HEAD", f"blobs/{DIGEST}").status_code == 404
    assert client.put(answer.headers["Location"], DIGEST, BLOB).status_code == 201


def test_a_body_in_a_plain_post_is_ignored(client: Client) -> None:
    answer = client.ask("POST", "blobs/uploads/", data=BLOB)

    assert answer.status_code == 202
    assert client.ask("GET", answer.headers["Location"]).headers["Range"] == "0-0"
