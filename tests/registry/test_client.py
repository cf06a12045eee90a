"""Every endpoint of the specification but uploads, and what registries make of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

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
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_INDEX, OCI_MANIFEST
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.upload_session import UploadSession
from tests.support.images import make_image, make_index
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.token_protected_registry import TokenProtectedRegistry

BLOB = b"0123456789"
DIGEST = Digest.from_bytes(BLOB)
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
        (ScriptedResponse(200, length=-1), -1),
        (ScriptedResponse(200, headers=(("Content-Length", "\xb2"),), length=-1), -1),
        (reply(404), None),
    ],
)
def test_head_blob(
    server: ScriptedServer, client: RegistryClient, answer: ScriptedResponse, size: int | None
) -> None:
    server.respond("HEAD", BLOB_PATH, answer)

    assert client.head_blob(DIGEST) == size


@pytest.mark.parametrize(("answer", "size"), [(reply(200, BLOB), 10), (reply(404), None)])
def test_where_head_is_refused_a_get_tells(
    server: ScriptedServer, client: RegistryClient, answer: ScriptedResponse, size: int | None
) -> None:
    server.respond("HEAD", BLOB_PATH, reply(405))
    server.respond("GET", BLOB_PATH, answer)

    assert client.head_blob(DIGEST) == size


def test_a_head_may_redirect(
    server: ScriptedServer, storage: ScriptedServer, client: RegistryClient
) -> None:
    """DigitalOcean's does."""
    server.respond("HEAD", BLOB_PATH, reply(307, Location=f"{storage.url}/key"))
    storage.respond("HEAD", "/key", reply(200, BLOB))

    assert client.head_blob(DIGEST) == 10


def test_a_head_that_is_refused_is_no_absence(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("HEAD", BLOB_PATH, reply(403))

    with pytest.raises(RegistryDenied, match="403"):
        client.head_blob(DIGEST)


def test_heads_use_one_connection(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("HEAD", BLOB_PATH, reply(200, BLOB), reply(404, b"text"), reply(200, BLOB))

    for _ in range(6):
        client.head_blob(DIGEST)

    assert server.connections == 1


def ranged(seen: ReceivedRequest) -> ScriptedResponse:
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
    server: ScriptedServer,
    client: RegistryClient,
    span: tuple[int, int | None],
    asked: str,
    content: bytes,
) -> None:
    server.respond("GET", BLOB_PATH, ranged)

    with client.get_blob(DIGEST, *span) as response:
        assert response.content == content

    [seen] = server.requests
    assert seen.headers["range"] == asked
    assert seen.headers["accept-encoding"] == "identity"


def test_all_of_a_blob_is_asked_for_without_a_range(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", BLOB_PATH, reply(200, BLOB))

    with client.get_blob(DIGEST) as response:
        assert response.content == BLOB

    assert "range" not in server.requests[0].headers


@pytest.mark.parametrize(
    "header", ["bytes 0-9/10", "bytes 4-9/10", "bytes */10", "items 3-9/10", "bytes 3-", ""]
)
def test_another_range_than_asked_for_is_refused(
    server: ScriptedServer, client: RegistryClient, header: str
) -> None:
    server.respond("GET", BLOB_PATH, reply(206, BLOB, Content_Range=header))

    with pytest.raises(ProtocolViolation, match="requested bytes from 3"):
        client.get_blob(DIGEST, 3)


@pytest.mark.parametrize("status", [503, 404, 416])
def test_a_blob_is_asked_for_once(
    server: ScriptedServer, client: RegistryClient, status: int
) -> None:
    """How often a body is opened again is up to its reader."""
    server.respond("GET", BLOB_PATH, reply(status))

    with pytest.raises(StatusError):
        client.get_blob(DIGEST, 3)

    assert len(server.requests) == 1


def test_delete_blob(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("DELETE", BLOB_PATH, reply(202), reply(405), reply(404))

    client.delete_blob(DIGEST)
    with pytest.raises(StatusError, match="405"):
        client.delete_blob(DIGEST)
    with pytest.raises(RegistryNotFound):
        client.delete_blob(DIGEST)


def test_the_right_to_delete_is_asked_for_only_to_delete(
    server: ScriptedServer, client: RegistryClient
) -> None:
    guarded = TokenProtectedRegistry(server)
    guarded.challenge = f'Bearer realm="{server.url}/token"'
    guarded.let_in = lambda seen: "authorization" in seen.headers
    guarded.content = lambda _: reply(202, Location="/v2/team/app/blobs/uploads/1")

    client.delete_blob(DIGEST)
    UploadSession.start_by_mount(client, DIGEST, "team/base")

    assert [asked.query["scope"] for asked in guarded.token_requests] == [
        ["repository:team/app:pull,delete"],
        ["repository:team/app:pull,push", "repository:team/base:pull"],
    ]


MOUNT = rf"/v2/team/app/blobs/uploads/\?mount={DIGEST}&from=team/base"


def test_a_mount_that_worked(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("POST", MOUNT, reply(201, Location=BLOB_PATH))

    assert UploadSession.start_by_mount(client, DIGEST, "team/base") is None
    assert server.requests[0].headers["content-length"] == "0"


def test_a_mount_that_became_an_upload(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("POST", MOUNT, reply(202, Location="/v2/team/app/blobs/uploads/9?_state=a%2Fb"))

    session = UploadSession.start_by_mount(client, DIGEST, "team/base")

    assert session is not None
    assert session.location == f"{server.url}/v2/team/app/blobs/uploads/9?_state=a%2Fb"


# Manifests ---------------------------------------------------------------------------------


def manifest(**headers: str) -> ScriptedResponse:
    return reply(200, IMAGE.manifest, Content_Type=OCI_MANIFEST, **headers)


def test_head_manifest_believes_a_complete_answer(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("HEAD", TAG_PATH, manifest(Docker_Content_Digest=IMAGE.digest))

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
            ScriptedResponse(
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
    server: ScriptedServer, client: RegistryClient, answer: ScriptedResponse
) -> None:
    server.respond("HEAD", TAG_PATH, answer)
    server.respond("GET", TAG_PATH, manifest())

    found = client.head_manifest("v1")

    assert found is not None
    assert (str(found.digest), found.size) == (IMAGE.digest, len(IMAGE.manifest))


def test_head_manifest_of_what_is_not_there(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("HEAD", TAG_PATH, reply(404), reply(405))

    assert client.head_manifest("v1") is None
    assert client.head_manifest("v1") is None  # and a GET says 404


def test_head_manifest_passes_other_errors_on(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("HEAD", TAG_PATH, reply(405))
    server.respond("GET", TAG_PATH, reply(403))

    with pytest.raises(RegistryDenied):
        client.head_manifest("v1")


def test_get_manifest_by_tag(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("GET", TAG_PATH, manifest(Docker_Content_Digest="sha256:" + "0" * 64))

    found = client.get_manifest("v1")

    # The bytes are as they were served, the digest is theirs and not what a header says.
    assert found.body == IMAGE.manifest
    assert str(found.digest) == IMAGE.digest


def test_get_manifest_by_digest_is_verified(server: ScriptedServer, client: RegistryClient) -> None:
    path = f"/v2/team/app/manifests/{IMAGE.digest}"
    server.respond("GET", path, manifest(), reply(200, INDEX.manifest, Content_Type=OCI_INDEX))

    assert client.get_manifest(IMAGE.digest).body == IMAGE.manifest
    with pytest.raises(DigestMismatch, match=IMAGE.digest):
        client.get_manifest(IMAGE.digest)


def test_get_manifest_by_sha512(server: ScriptedServer, client: RegistryClient) -> None:
    digest = Digest.from_bytes(IMAGE.manifest, "sha512")
    server.respond("GET", f"/v2/team/app/manifests/{digest}", manifest())

    assert client.get_manifest(str(digest)).body == IMAGE.manifest


def test_a_manifest_above_the_limit_is_refused(server: ScriptedServer, endpoint: Endpoint) -> None:
    client = RegistryClient(
        endpoint, "team/app", policy=FAST, max_manifest_size=len(IMAGE.manifest) - 1
    )
    server.respond("GET", TAG_PATH, manifest())

    with pytest.raises(InvalidManifest, match="larger than"):
        client.get_manifest("v1")

    assert len(server.requests) == 1


def test_a_manifest_at_the_limit_is_taken(server: ScriptedServer, endpoint: Endpoint) -> None:
    client = RegistryClient(
        endpoint, "team/app", policy=FAST, max_manifest_size=len(IMAGE.manifest)
    )
    server.respond("GET", TAG_PATH, manifest())

    assert client.get_manifest("v1").body == IMAGE.manifest


@pytest.mark.parametrize("length", [None, -1])
def test_a_manifest_that_breaks_off_is_fetched_again(
    server: ScriptedServer, client: RegistryClient, length: int | None
) -> None:
    half = ScriptedResponse(
        200,
        IMAGE.manifest[:50],
        (("Content-Type", OCI_MANIFEST),),
        length=len(IMAGE.manifest) if length is None else length,
        cut="fin",
    )
    server.respond("GET", f"/v2/team/app/manifests/{IMAGE.digest}", half, manifest())

    # Where nothing says that more was to come, the digest does.
    assert client.get_manifest(IMAGE.digest).body == IMAGE.manifest


def changed(at: int) -> bytes:
    """Return the manifest with a letter changed: still JSON."""
    body = bytearray(IMAGE.manifest)
    place = body.index(b"sha256:") + 7 + at
    body[place] = ord("0") if body[place] != ord("0") else ord("1")
    return bytes(body)


def sent(body: bytes) -> ScriptedResponse:
    """Return an answer that says it is the manifest."""
    return reply(200, body, Content_Type=OCI_MANIFEST, Docker_Content_Digest=IMAGE.digest)


@pytest.mark.parametrize("reference", ["v1", IMAGE.digest])
def test_a_manifest_that_arrives_wrong_once_is_fetched_once_more(
    server: ScriptedServer, client: RegistryClient, reference: str
) -> None:
    server.respond("GET", f"/v2/team/app/manifests/{reference}", sent(changed(0)), manifest())

    assert client.get_manifest(reference).body == IMAGE.manifest

    assert len(server.requests) == 2


def test_a_manifest_that_is_wrong_twice_is_the_sources(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", f"/v2/team/app/manifests/{IMAGE.digest}", sent(changed(0)))

    with pytest.raises(DigestMismatch, match="a second attempt gave the same bytes") as caught:
        client.get_manifest(IMAGE.digest)

    assert "the content of the source is damaged" in caught.value.remedy
    assert len(server.requests) == 2


@pytest.mark.parametrize("reference", ["v1", IMAGE.digest])
def test_a_manifest_that_is_wrong_in_two_ways_is_the_lines(
    server: ScriptedServer, client: RegistryClient, reference: str
) -> None:
    path = f"/v2/team/app/manifests/{reference}"
    server.respond("GET", path, sent(changed(0)), sent(changed(1)))

    with pytest.raises(DigestMismatch, match="an earlier attempt hashed to sha256:") as caught:
        client.get_manifest(reference)

    assert "the source or the network" in caught.value.remedy


def test_a_registry_that_is_wrong_about_the_digest_of_a_tag_is_not_believed(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", "/v2/team/app/manifests/v1", sent(changed(0)))

    assert client.get_manifest("v1").body == changed(0)


@pytest.mark.parametrize("reference", ["../../etc", "a b", "sha256:../x", "", "x" * 129, "a/b"])
def test_a_reference_is_checked_before_it_is_part_of_a_url(
    server: ScriptedServer, client: RegistryClient, reference: str
) -> None:
    for ask in (client.get_manifest, client.head_manifest, client.delete_manifest):
        with pytest.raises((InvalidReference, InvalidDigest)):
            ask(reference)
    with pytest.raises((InvalidReference, InvalidDigest)):
        client.put_manifest(b"{}", OCI_MANIFEST, reference)

    assert not server.requests


def test_put_manifest_sends_the_bytes_as_they_are(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("PUT", TAG_PATH, reply(503), reply(201, Location="/x"))

    response = client.put_manifest(IMAGE.manifest, OCI_MANIFEST, "v1")

    assert response.status_code == 201
    assert [seen.body for seen in server.requests] == [IMAGE.manifest] * 2
    assert server.requests[0].headers["content-type"] == OCI_MANIFEST


def test_a_manifest_that_is_refused_says_why(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("PUT", TAG_PATH, reply(400, '{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}'))

    with pytest.raises(StatusError, match="MANIFEST_BLOB_UNKNOWN"):
        client.put_manifest(b"{}", OCI_MANIFEST, "v1")


def test_delete_manifest(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("DELETE", TAG_PATH, reply(202), reply(404), reply(405))

    client.delete_manifest("v1")
    with pytest.raises(RegistryNotFound):
        client.delete_manifest("v1")
    with pytest.raises(StatusError, match="405"):
        client.delete_manifest("v1")


# Tags --------------------------------------------------------------------------------------

FIRST = r"/v2/team/app/tags/list\?n=1000"


def page(*names: str, link: str = "") -> ScriptedResponse:
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
def test_pages_of_tags_are_followed(
    server: ScriptedServer, client: RegistryClient, link: str
) -> None:
    server.respond("GET", FIRST, page("a", "b", link=link.format(url=server.url)))
    server.respond("GET", FIRST + "&last=b", page("c"))

    assert list(client.list_tags()) == ["a", "b", "c"]
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
    server: ScriptedServer, client: RegistryClient, link: str
) -> None:
    server.respond("GET", FIRST, page("a", link=link))

    assert list(client.list_tags()) == ["a"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.2:1/v2/team/app/tags/list", "http://localhost/v2/", "https://else.example/"],
)
def test_a_list_that_goes_on_elsewhere_is_refused(
    server: ScriptedServer, client: RegistryClient, link: str
) -> None:
    """Half a list is no list: a mirror would miss what is not in it."""
    server.respond("GET", FIRST, page("a", link=f"<{link}>; rel=next"))

    with pytest.raises(ProtocolViolation, match="is on another host"):
        list(client.list_tags())

    assert len(server.requests) == 1


def test_pages_without_end_are_refused(
    server: ScriptedServer, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.registry.name_lists.MAX_PAGES", 5)
    count = itertools.count()
    server.respond("GET", ".*", lambda _: page("a", link=f"<list?last={next(count)}>; rel=next"))

    with pytest.raises(ProtocolViolation, match="does not end after 5 pages"):
        list(client.list_tags())

    assert len(server.requests) == 5


@pytest.mark.parametrize("body", ['{"tags": null}', '{"tags": []}', "{}", '{"tags": [5]}'])
def test_no_tags(server: ScriptedServer, client: RegistryClient, body: str) -> None:
    server.respond("GET", FIRST, reply(200, body))

    assert list(client.list_tags()) == []


@pytest.mark.parametrize(
    "body", [b"<not", b"", b"[]", b"null", b"[" * 100_000, b'{"tags": "abc"}', b'{"tags": 7}']
)
def test_a_list_that_is_none_is_refused(
    server: ScriptedServer, client: RegistryClient, body: bytes
) -> None:
    server.respond("GET", FIRST, ScriptedResponse(200, body))

    with pytest.raises(ProtocolViolation, match="list of tags"):
        list(client.list_tags())


def test_a_web_page_in_place_of_a_list_is_called_that(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", FIRST, ScriptedResponse(200, b"<html><title>Log in</title>"))

    with pytest.raises(
        ProtocolViolation, match=r"cannot list the tags of .*/team/app: .* web page \('Log in'\)"
    ):
        list(client.list_tags())


def test_pages_are_fetched_as_they_are_needed(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", FIRST, page("a", link="</v2/team/app/tags/list?last=a>; rel=next"))

    assert next(client.list_tags()) == "a"
    assert len(server.requests) == 1


def test_a_page_that_breaks_off_is_fetched_again(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond(
        "GET", FIRST, ScriptedResponse(200, b'{"ta', length=50, cut="fin"), reply(503), page("a")
    )

    assert list(client.list_tags()) == ["a"]
    assert len(server.requests) == 3


def test_an_unknown_repository(server: ScriptedServer, client: RegistryClient) -> None:
    with pytest.raises(RegistryNotFound):
        list(client.list_tags())


# What it costs -----------------------------------------------------------------------------


def test_costs_add_they_never_multiply(server: ScriptedServer, client: RegistryClient) -> None:
    server.respond("*", "/.*", reply(503))
    calls: list[Callable[[], object]] = [
        lambda: client.head_blob(DIGEST),
        lambda: client.delete_blob(DIGEST),
        lambda: UploadSession.start_by_mount(client, DIGEST, "team/base"),
        lambda: client.head_manifest("v1"),
        lambda: client.get_manifest("v1"),
        lambda: client.put_manifest(b"{}", OCI_MANIFEST, "v1"),
        lambda: client.delete_manifest("v1"),
        lambda: list(client.list_tags()),
    ]

    for number, call in enumerate(calls, 1):
        with pytest.raises(StatusError, match="503"):
            call()
        assert len(server.requests) == 6 * number


# Quotas ------------------------------------------------------------------------------------

PULLS = "You have reached your pull rate limit. You may increase the limit by authenticating"


def test_the_pull_limit_is_told_at_once_and_asked_about_once(
    server: ScriptedServer, client: RegistryClient
) -> None:
    server.respond("GET", TAG_PATH, reply(429, PULLS, Retry_After="3000"))
    server.respond("HEAD", TAG_PATH, reply(404))

    with pytest.raises(QuotaExceeded, match=r"429 .*You have reached your pull rate limit"):
        client.get_manifest("v1")
    with pytest.raises(QuotaExceeded, match="quota is used up"):
        client.get_manifest("v1")

    assert client.head_manifest("v1") is None  # costs nothing, and is not held up
    assert [seen.method for seen in server.requests] == ["GET", "HEAD"]
