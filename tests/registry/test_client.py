"""Every endpoint of the specification but uploads, and what registries make of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from concil.content import OCI_INDEX, OCI_MANIFEST, Digest
from concil.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    ProtocolViolation,
    QuotaExceeded,
    RegistryDenied,
    RegistryNotFound,
    StatusError,
)
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from tests.lab.images import make_image, make_index
from tests.registry.guarded import Guarded
from tests.registry.scripted import Answer, Scripted, Seen, reply
from tests.registry.wiring import FAST

BLOB = b"0123456789"
DIGEST = Digest.of(BLOB)
IMAGE = make_image(1, (10,))
INDEX = make_index([IMAGE])
BLOB_PATH = f"/v2/team/app/blobs/{DIGEST}"
TAG_PATH = "/v2/team/app/manifests/v1"


# Blobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (reply(200, BLOB), 10),
        (reply(200, b""), 0),
        (Answer(200, length=-1), -1),
        (Answer(200, headers=(("Content-Length", "\xb2"),), length=-1), -1),
        (reply(404), None),
    ],
)
def test_head_blob(
    server: Scripted, client: RegistryClient, answer: Answer, size: int | None
) -> None:
    server.on("HEAD", BLOB_PATH, answer)

    assert client.head_blob(DIGEST) == size


@pytest.mark.parametrize(("answer", "size"), [(reply(200, BLOB), 10), (reply(404), None)])
def test_where_head_is_refused_a_get_tells(
    server: Scripted, client: RegistryClient, answer: Answer, size: int | None
) -> None:
    server.on("HEAD", BLOB_PATH, reply(405))
    server.on("GET", BLOB_PATH, answer)

    assert client.head_blob(DIGEST) == size


def test_a_head_may_redirect(server: Scripted, storage: Scripted, client: RegistryClient) -> None:
    """DigitalOcean's does."""
    server.on("HEAD", BLOB_PATH, reply(307, Location=f"{storage.url}/key"))
    storage.on("HEAD", "/key", reply(200, BLOB))

    assert client.head_blob(DIGEST) == 10


def test_a_head_that_is_refused_is_no_absence(server: Scripted, client: RegistryClient) -> None:
    server.on("HEAD", BLOB_PATH, reply(403))

    with pytest.raises(RegistryDenied, match="403"):
        client.head_blob(DIGEST)


def test_heads_use_one_connection(server: Scripted, client: RegistryClient) -> None:
    server.on("HEAD", BLOB_PATH, reply(200, BLOB), reply(404, b"text"), reply(200, BLOB))

    for _ in range(6):
        client.head_blob(DIGEST)

    assert server.connections == 1


def ranged(seen: Seen) -> Answer:
    first, _, last = seen.headers["range"].removeprefix("bytes=").partition("-")
    start, stop = int(first), int(last) + 1 if last else len(BLOB)
    return reply(206, BLOB[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(BLOB)}")


@pytest.mark.parametrize(
    ("span", "asked", "content"),
    [
        ((3, None), "bytes=3-", b"3456789"),
        ((0, 4), "bytes=0-3", b"0123"),
        ((3, 5), "bytes=3-4", b"34"),
    ],
)
def test_a_range_is_asked_for_half_open(
    server: Scripted,
    client: RegistryClient,
    span: tuple[int, int | None],
    asked: str,
    content: bytes,
) -> None:
    server.on("GET", BLOB_PATH, ranged)

    with client.get_blob(DIGEST, *span) as response:
        assert response.content == content

    [seen] = server.requests
    assert seen.headers["range"] == asked
    assert seen.headers["accept-encoding"] == "identity"


def test_all_of_a_blob_is_asked_for_without_a_range(
    server: Scripted, client: RegistryClient
) -> None:
    server.on("GET", BLOB_PATH, reply(200, BLOB))

    with client.get_blob(DIGEST) as response:
        assert response.content == BLOB

    assert "range" not in server.requests[0].headers


@pytest.mark.parametrize(
    "header", ["bytes 0-9/10", "bytes 4-9/10", "bytes */10", "items 3-9/10", "bytes 3-", ""]
)
def test_another_range_than_asked_for_is_refused(
    server: Scripted, client: RegistryClient, header: str
) -> None:
    server.on("GET", BLOB_PATH, reply(206, BLOB, Content_Range=header))

    with pytest.raises(ProtocolViolation, match="asked for bytes from 3"):
        client.get_blob(DIGEST, 3)


@pytest.mark.parametrize("status", [503, 404, 416])
def test_a_blob_is_asked_for_once(server: Scripted, client: RegistryClient, status: int) -> None:
    """How often a body is opened again is up to its reader."""
    server.on("GET", BLOB_PATH, reply(status))

    with pytest.raises(StatusError):
        client.get_blob(DIGEST, 3)

    assert len(server.requests) == 1


def test_delete_blob(server: Scripted, client: RegistryClient) -> None:
    server.on("DELETE", BLOB_PATH, reply(202), reply(405), reply(404))

    client.delete_blob(DIGEST)
    with pytest.raises(StatusError, match="405"):
        client.delete_blob(DIGEST)
    with pytest.raises(RegistryNotFound):
        client.delete_blob(DIGEST)


def test_the_right_to_delete_is_asked_for_only_to_delete(
    server: Scripted, client: RegistryClient
) -> None:
    guarded = Guarded(server)
    guarded.challenge = f'Bearer realm="{server.url}/token"'
    guarded.let_in = lambda seen: "authorization" in seen.headers
    guarded.content = lambda _: reply(202, Location="/v2/team/app/blobs/uploads/1")

    client.delete_blob(DIGEST)
    client.mount_blob(DIGEST, "team/base")

    assert [asked.query["scope"] for asked in guarded.token_requests] == [
        ["repository:team/app:pull,delete"],
        ["repository:team/app:pull,push", "repository:team/base:pull"],
    ]


MOUNT = rf"/v2/team/app/blobs/uploads/\?mount={DIGEST}&from=team/base"


def test_a_mount_that_worked(server: Scripted, client: RegistryClient) -> None:
    server.on("POST", MOUNT, reply(201, Location=BLOB_PATH))

    assert client.mount_blob(DIGEST, "team/base") is None
    assert server.requests[0].headers["content-length"] == "0"


def test_a_mount_that_became_an_upload(server: Scripted, client: RegistryClient) -> None:
    server.on("POST", MOUNT, reply(202, Location="/v2/team/app/blobs/uploads/9?_state=a%2Fb"))

    location = client.mount_blob(DIGEST, "team/base")

    assert location == f"{server.url}/v2/team/app/blobs/uploads/9?_state=a%2Fb"


# Manifests ---------------------------------------------------------------------------------


def manifest(**headers: str) -> Answer:
    return reply(200, IMAGE.manifest, Content_Type=OCI_MANIFEST, **headers)


def test_head_manifest_believes_a_complete_answer(server: Scripted, client: RegistryClient) -> None:
    server.on("HEAD", TAG_PATH, manifest(Docker_Content_Digest=IMAGE.digest))

    found = client.head_manifest("v1")

    assert found is not None
    assert (str(found.digest), found.size) == (IMAGE.digest, len(IMAGE.manifest))
    assert found.media_type == OCI_MANIFEST
    assert OCI_INDEX in server.requests[0].headers["accept"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(manifest(), id="no digest"),
        pytest.param(manifest(Docker_Content_Digest="sha1:00"), id="an odd digest"),
        pytest.param(
            reply(
                200, IMAGE.manifest, Content_Type="text/plain", Docker_Content_Digest=IMAGE.digest
            ),
            id="an odd type",
        ),
        pytest.param(
            Answer(
                200,
                headers=(("Content-Type", OCI_MANIFEST), ("Docker-Content-Digest", IMAGE.digest)),
                length=-1,
            ),
            id="no length",
        ),
        pytest.param(reply(405), id="refused"),
    ],
)
def test_head_manifest_fetches_what_it_is_not_told(
    server: Scripted, client: RegistryClient, answer: Answer
) -> None:
    server.on("HEAD", TAG_PATH, answer)
    server.on("GET", TAG_PATH, manifest())

    found = client.head_manifest("v1")

    assert found is not None
    assert (str(found.digest), found.size) == (IMAGE.digest, len(IMAGE.manifest))


def test_head_manifest_of_what_is_not_there(server: Scripted, client: RegistryClient) -> None:
    server.on("HEAD", TAG_PATH, reply(404), reply(405))

    assert client.head_manifest("v1") is None
    assert client.head_manifest("v1") is None  # and a GET says 404


def test_head_manifest_passes_other_errors_on(server: Scripted, client: RegistryClient) -> None:
    server.on("HEAD", TAG_PATH, reply(405))
    server.on("GET", TAG_PATH, reply(403))

    with pytest.raises(RegistryDenied):
        client.head_manifest("v1")


def test_get_manifest_by_tag(server: Scripted, client: RegistryClient) -> None:
    server.on("GET", TAG_PATH, manifest(Docker_Content_Digest="sha256:" + "0" * 64))

    found = client.get_manifest("v1")

    # The bytes are as they were served, the digest is theirs and not what a header says.
    assert found.body == IMAGE.manifest
    assert str(found.digest) == IMAGE.digest


def test_get_manifest_by_digest_is_verified(server: Scripted, client: RegistryClient) -> None:
    path = f"/v2/team/app/manifests/{IMAGE.digest}"
    server.on("GET", path, manifest(), reply(200, INDEX.manifest, Content_Type=OCI_INDEX))

    assert client.get_manifest(IMAGE.digest).body == IMAGE.manifest
    with pytest.raises(DigestMismatch, match=IMAGE.digest):
        client.get_manifest(IMAGE.digest)


def test_get_manifest_by_sha512(server: Scripted, client: RegistryClient) -> None:
    digest = Digest.of(IMAGE.manifest, "sha512")
    server.on("GET", f"/v2/team/app/manifests/{digest}", manifest())

    assert client.get_manifest(str(digest)).body == IMAGE.manifest


def test_a_manifest_above_the_limit_is_refused(server: Scripted, endpoint: Endpoint) -> None:
    client = RegistryClient(
        endpoint, "team/app", policy=FAST, manifest_limit=len(IMAGE.manifest) - 1
    )
    server.on("GET", TAG_PATH, manifest())

    with pytest.raises(InvalidManifest, match="larger than"):
        client.get_manifest("v1")

    assert len(server.requests) == 1


def test_a_manifest_at_the_limit_is_taken(server: Scripted, endpoint: Endpoint) -> None:
    client = RegistryClient(endpoint, "team/app", policy=FAST, manifest_limit=len(IMAGE.manifest))
    server.on("GET", TAG_PATH, manifest())

    assert client.get_manifest("v1").body == IMAGE.manifest


@pytest.mark.parametrize("length", [None, -1])
def test_a_manifest_that_breaks_off_is_fetched_again(
    server: Scripted, client: RegistryClient, length: int | None
) -> None:
    half = Answer(
        200,
        IMAGE.manifest[:50],
        (("Content-Type", OCI_MANIFEST),),
        length=len(IMAGE.manifest) if length is None else length,
        cut="fin",
    )
    server.on("GET", f"/v2/team/app/manifests/{IMAGE.digest}", half, manifest())

    if length is None:
        assert client.get_manifest(IMAGE.digest).body == IMAGE.manifest
    else:  # nothing says that more was to come
        with pytest.raises(DigestMismatch):
            client.get_manifest(IMAGE.digest)


@pytest.mark.parametrize("reference", ["../../etc", "a b", "sha256:../x", "", "x" * 129, "a/b"])
def test_a_reference_is_checked_before_it_is_part_of_a_url(
    server: Scripted, client: RegistryClient, reference: str
) -> None:
    for ask in (client.get_manifest, client.head_manifest, client.delete_manifest):
        with pytest.raises((InvalidReference, InvalidDigest)):
            ask(reference)
    with pytest.raises((InvalidReference, InvalidDigest)):
        client.put_manifest(b"{}", OCI_MANIFEST, reference)

    assert not server.requests


def test_put_manifest_sends_the_bytes_as_they_are(server: Scripted, client: RegistryClient) -> None:
    server.on("PUT", TAG_PATH, reply(503), reply(201, Location="/x"))

    response = client.put_manifest(IMAGE.manifest, OCI_MANIFEST, "v1")

    assert response.status_code == 201
    assert [seen.body for seen in server.requests] == [IMAGE.manifest] * 2
    assert server.requests[0].headers["content-type"] == OCI_MANIFEST


def test_a_manifest_that_is_refused_says_why(server: Scripted, client: RegistryClient) -> None:
    server.on("PUT", TAG_PATH, reply(400, '{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}'))

    with pytest.raises(StatusError, match="MANIFEST_BLOB_UNKNOWN"):
        client.put_manifest(b"{}", OCI_MANIFEST, "v1")


def test_delete_manifest(server: Scripted, client: RegistryClient) -> None:
    server.on("DELETE", TAG_PATH, reply(202), reply(404), reply(405))

    client.delete_manifest("v1")
    with pytest.raises(RegistryNotFound):
        client.delete_manifest("v1")
    with pytest.raises(StatusError, match="405"):
        client.delete_manifest("v1")


# Tags --------------------------------------------------------------------------------------

FIRST = r"/v2/team/app/tags/list\?n=1000"


def page(*names: str, link: str = "") -> Answer:
    body = json.dumps({"name": "team/app", "tags": names, "manifest": {}})
    return reply(200, body, Link=link) if link else reply(200, body)


@pytest.mark.parametrize(
    "link",
    [
        '</v2/team/app/tags/list?n=1000&last=b>; rel="next"',
        '<{url}/v2/team/app/tags/list?n=1000&last=b>; rel="next"',
        "<list?n=1000&last=b>; rel=next",
        "{url}/v2/team/app/tags/list?n=1000&last=b; rel=next",
        '</v2/team/app/tags/list?n=1000&last=b>;title="x";REL="next"',
        '</other>; rel="prev", </v2/team/app/tags/list?n=1000&last=b>; rel="next"',
    ],
)
def test_pages_of_tags_are_followed(server: Scripted, client: RegistryClient, link: str) -> None:
    server.on("GET", FIRST, page("a", "b", link=link.format(url=server.url)))
    server.on("GET", FIRST + "&last=b", page("c"))

    assert list(client.tags()) == ["a", "b", "c"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "link",
    [
        '</v2/team/app/tags/list?n=1000>; rel="next"',  # itself
        '</other>; rel="prev"',
        "nonsense",
    ],
)
def test_links_that_lead_nowhere_end_the_list(
    server: Scripted, client: RegistryClient, link: str
) -> None:
    server.on("GET", FIRST, page("a", link=link))

    assert list(client.tags()) == ["a"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.2:1/v2/team/app/tags/list", "http://localhost/v2/", "https://else.example/"],
)
def test_a_list_that_goes_on_elsewhere_is_refused(
    server: Scripted, client: RegistryClient, link: str
) -> None:
    """Half a list is no list: a mirror would miss what is not in it."""
    server.on("GET", FIRST, page("a", link=f"<{link}>; rel=next"))

    with pytest.raises(ProtocolViolation, match="goes on elsewhere"):
        list(client.tags())

    assert len(server.requests) == 1


def test_pages_without_end_are_refused(
    server: Scripted, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.registry.lists.MOST_PAGES", 5)
    count = itertools.count()
    server.on("GET", ".*", lambda _: page("a", link=f"<list?last={next(count)}>; rel=next"))

    with pytest.raises(ProtocolViolation, match="goes on after 5 pages"):
        list(client.tags())

    assert len(server.requests) == 5


@pytest.mark.parametrize("body", ['{"tags": null}', '{"tags": []}', "{}", '{"tags": [5]}'])
def test_no_tags(server: Scripted, client: RegistryClient, body: str) -> None:
    server.on("GET", FIRST, reply(200, body))

    assert list(client.tags()) == []


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b"null", b"[" * 100_000, b'{"tags": "abc"}', b'{"tags": 7}']
)
def test_a_list_that_is_none_is_refused(
    server: Scripted, client: RegistryClient, body: bytes
) -> None:
    server.on("GET", FIRST, Answer(200, body))

    with pytest.raises(ProtocolViolation, match="list of tags"):
        list(client.tags())


def test_pages_are_fetched_as_they_are_needed(server: Scripted, client: RegistryClient) -> None:
    server.on("GET", FIRST, page("a", link="</v2/team/app/tags/list?last=a>; rel=next"))

    assert next(client.tags()) == "a"
    assert len(server.requests) == 1


def test_a_page_that_breaks_off_is_fetched_again(server: Scripted, client: RegistryClient) -> None:
    server.on("GET", FIRST, Answer(200, b'{"ta', length=50, cut="fin"), reply(503), page("a"))

    assert list(client.tags()) == ["a"]
    assert len(server.requests) == 3


def test_an_unknown_repository(server: Scripted, client: RegistryClient) -> None:
    with pytest.raises(RegistryNotFound):
        list(client.tags())


# What it costs -----------------------------------------------------------------------------


def test_costs_add_they_never_multiply(server: Scripted, client: RegistryClient) -> None:
    server.on("*", "/.*", reply(503))
    calls: list[Callable[[], object]] = [
        lambda: client.head_blob(DIGEST),
        lambda: client.delete_blob(DIGEST),
        lambda: client.mount_blob(DIGEST, "team/base"),
        lambda: client.head_manifest("v1"),
        lambda: client.get_manifest("v1"),
        lambda: client.put_manifest(b"{}", OCI_MANIFEST, "v1"),
        lambda: client.delete_manifest("v1"),
        lambda: list(client.tags()),
    ]

    for number, call in enumerate(calls, 1):
        with pytest.raises(StatusError, match="503"):
            call()
        assert len(server.requests) == 6 * number


# Quotas ------------------------------------------------------------------------------------

PULLS = "You have reached your pull rate limit. You may increase the limit by authenticating"


def test_the_pull_limit_is_told_at_once_and_asked_about_once(
    server: Scripted, client: RegistryClient
) -> None:
    server.on("GET", TAG_PATH, reply(429, PULLS, Retry_After="3000"))
    server.on("HEAD", TAG_PATH, reply(404))

    with pytest.raises(QuotaExceeded, match=r"429 .*You have reached your pull rate limit"):
        client.get_manifest("v1")
    with pytest.raises(QuotaExceeded, match="quota is used up"):
        client.get_manifest("v1")

    assert client.head_manifest("v1") is None  # costs nothing, and is not held up
    assert [seen.method for seen in server.requests] == ["GET", "HEAD"]
