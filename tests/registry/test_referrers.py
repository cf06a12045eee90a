"""Lists of referrers, as registries have them or as tags, and what is written into a tag."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from concil.errors import (
    AccessDenied,
    ConcilError,
    InvalidManifest,
    ProtocolViolation,
    StatusError,
)
from concil.http.redirects import MAX_REDIRECTS
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_INDEX
from concil.registry.client import RegistryClient
from concil.registry.referrers import MAX_REFERRERS, Referrers, SharedReferrers
from tests.support.images import OCI, Image, make_image, make_index
from tests.support.referrers import make_referrer
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

IMAGE = make_image(1)
INDEX = make_index([IMAGE])
SUBJECT = Digest.parse(IMAGE.digest)
TAG = f"sha256-{SUBJECT.hex}"
API = f"/v2/team/app/referrers/{SUBJECT}"
BY_TAG = f"/v2/team/app/manifests/{TAG}"
FIRST, SECOND, THIRD = (
    Manifest.parse(make_referrer(IMAGE, content).manifest) for content in (b"1", b"2", b"3")
)


def entry(manifest: Manifest) -> dict[str, object]:
    return manifest.referrer_descriptor(manifest.digest).to_json()


def body_of(*entries: object, **fields: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **fields}
    ).encode()


def listing(*manifests: Manifest, link: str = "") -> ScriptedResponse:
    answer = reply(body=body_of(*map(entry, manifests)), Content_Type=OCI_INDEX)
    if link:
        headers = (*answer.headers, ("Link", f'<{link}>; rel="next"'))
        return ScriptedResponse(answer.status, answer.body, headers)
    return answer


def digests(found: tuple[Descriptor, ...]) -> list[Digest]:
    return [each.digest for each in found]


@pytest.fixture
def referrers(client: RegistryClient) -> Referrers:
    return Referrers(client, SharedReferrers())


def test_pages_are_put_together_and_each_is_there_once(
    server: ScriptedServer, referrers: Referrers
) -> None:
    server.respond("GET", API, listing(FIRST, SECOND, link=f"{API}?n=2&last=x"))
    server.respond("GET", rf"{API}\?n=2&last=x", listing(SECOND, THIRD))

    found = referrers.list_referrers(SUBJECT)

    assert digests(found) == [FIRST.digest, SECOND.digest, THIRD.digest]
    assert found[0].artifact_type == FIRST.artifact_type
    assert dict(found[0].annotations) == dict(FIRST.annotations)


@pytest.mark.parametrize(
    "answer",
    [
        reply(404, "404 page not found\n", Content_Type="text/plain"),
        reply(405),
        reply(400, '{"errors":[{"code":"MANIFEST_INVALID"}]}'),
        reply(200, "<html>", Content_Type="text/html"),
        reply(200, body_of(entry(THIRD)), Content_Type="application/json"),
        reply(303, Location="https://web.example/-/v2/packages"),
        reply(302, Location="http://127.0.0.1:1/elsewhere"),
        reply(307, Location=f"/v2/team/app/referrers/{SUBJECT}"),
        reply(302),
    ],
)
def test_registry_without_a_list_may_have_a_tag(
    server: ScriptedServer, referrers: Referrers, answer: ScriptedResponse
) -> None:
    server.respond("GET", API, answer)
    server.respond("GET", BY_TAG, listing(FIRST))

    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]


def test_registry_without_a_list_is_asked_once(
    server: ScriptedServer, referrers: Referrers
) -> None:
    server.respond("GET", BY_TAG, listing(FIRST))

    for _ in range(3):
        referrers.list_referrers(SUBJECT)

    assert len(server.matching_requests("GET", "/referrers/")) == 1


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])
def test_unknown_name_says_nothing_of_the_registry(
    server: ScriptedServer, referrers: Referrers, code: str
) -> None:
    unknown = reply(404, json.dumps({"errors": [{"code": code}]}), Content_Type="application/json")
    server.respond("GET", API, unknown, listing(FIRST))

    assert referrers.list_referrers(SUBJECT) == ()
    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]


def test_list_may_be_elsewhere_in_the_same_registry(
    server: ScriptedServer, referrers: Referrers
) -> None:
    server.respond("GET", API, reply(307, Location="/lists/1"))
    server.respond("GET", "/lists/1", listing(FIRST))

    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]


def test_redirects_in_a_circle_are_no_list(server: ScriptedServer, referrers: Referrers) -> None:
    server.respond("GET", API, reply(307, Location="/lists/1"))
    server.respond("GET", "/lists/1", reply(307, Location=API))
    server.respond("GET", BY_TAG, listing(FIRST))

    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]
    assert len(server.requests) == MAX_REDIRECTS + 2


def test_registry_may_list_nothing_in_two_ways(
    server: ScriptedServer, referrers: Referrers
) -> None:
    nothing = reply(body='{"schemaVersion":2,"manifests":null}', Content_Type=OCI_INDEX)
    server.respond("GET", API, listing(), nothing)

    assert referrers.list_referrers(SUBJECT) == referrers.list_referrers(SUBJECT) == ()


def in_a_circle(server: ScriptedServer) -> None:
    server.respond("GET", rf"{API}(\?.*)?", lambda seen: listing(FIRST, link=seen.path))


def test_list_that_leads_to_itself_ends(server: ScriptedServer, referrers: Referrers) -> None:
    in_a_circle(server)

    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]


def broken(server: ScriptedServer) -> None:
    server.respond("GET", API, reply(body=b'{"manifests":[{}]}', Content_Type=OCI_INDEX))


def no_json(server: ScriptedServer) -> None:
    server.respond("GET", API, reply(body=b"[", Content_Type=OCI_INDEX))


def traversing(server: ScriptedServer) -> None:
    odd = {**entry(FIRST), "digest": "sha256:../../etc/passwd"}
    server.respond("GET", API, reply(body=body_of(odd), Content_Type=OCI_INDEX))


def half(server: ScriptedServer) -> None:
    server.respond("GET", API, listing(FIRST, link=f"{API}?page=2"))


def elsewhere(server: ScriptedServer) -> None:
    server.respond("GET", API, listing(FIRST, link="https://other.example/list"))


def endless(server: ScriptedServer) -> None:
    pages = iter(range(10_000))

    def page(_seen: ReceivedRequest) -> ScriptedResponse:
        number = next(pages)
        entries = [
            {**entry(FIRST), "digest": str(Digest.from_bytes(b"%d %d" % (number, n)))}
            for n in range(900)
        ]
        body = body_of(*entries)
        link = f'<{API}?page={number}>; rel="next"'
        return ScriptedResponse(200, body, (("Content-Type", OCI_INDEX), ("Link", link)))

    server.respond("GET", rf"{API}(\?.*)?", page)


@pytest.mark.parametrize("odd", [broken, no_json, traversing, half, elsewhere, endless])
def test_list_that_makes_no_sense_is_an_error_and_not_half_a_list(
    server: ScriptedServer, referrers: Referrers, odd: Callable[[ScriptedServer], None]
) -> None:
    odd(server)

    with pytest.raises((InvalidManifest, ProtocolViolation), match="app"):
        referrers.list_referrers(SUBJECT)

    assert len(server.requests) <= MAX_REFERRERS // 900 + 2


@pytest.mark.parametrize(("status", "error"), [(403, AccessDenied), (500, StatusError)])
def test_list_that_is_refused_is_not_an_empty_one(
    server: ScriptedServer, referrers: Referrers, status: int, error: type[ConcilError]
) -> None:
    server.respond("GET", API, reply(status))
    server.respond("GET", BY_TAG, listing(FIRST))

    with pytest.raises(error):
        referrers.list_referrers(SUBJECT)


@pytest.mark.parametrize("held", [INDEX, IMAGE], ids=["the index itself", "an image"])
def test_image_under_the_tag_of_a_digest_is_no_list(
    server: ScriptedServer, referrers: Referrers, held: Image
) -> None:
    subject = Digest.parse(INDEX.digest)
    path = f"/v2/team/app/manifests/sha256-{subject.hex}"
    server.respond("GET", path, reply(body=held.manifest, Content_Type=held.media_type))

    assert referrers.list_referrers(subject) == ()
    with pytest.raises(InvalidManifest, match="is an image, not a list"):
        referrers.add_to_tag(FIRST, FIRST.digest, subject)
    assert server.matching_requests("PUT") == []


class Tagged:
    """The tag of a registry without a list, and others who write it."""

    def __init__(self, server: ScriptedServer, *before: object, others: int = 0) -> None:
        self.body = body_of(*before, annotations={"kept": "too"}) if before else b""
        self.others = others  # writes of others that are still to come
        self.written = 0
        server.respond("GET", BY_TAG, self._get)
        server.respond("PUT", BY_TAG, self._put)

    @property
    def entries(self) -> list[dict[str, object]]:
        return list(json.loads(self.body)["manifests"])

    def _get(self, _seen: ReceivedRequest) -> ScriptedResponse:
        if not self.body:
            return reply(404, '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        return reply(body=self.body, Content_Type=OCI_INDEX)

    def _put(self, seen: ReceivedRequest) -> ScriptedResponse:
        assert seen.headers["content-type"] == OCI_INDEX
        self.body = seen.read()
        self.written += 1
        if self.others:
            # Another client had read the tag before, and writes what it makes of that.
            self.others -= 1
            self.body = body_of(entry(SECOND))
        return reply(201)


def test_first_referrer_makes_the_tag(server: ScriptedServer, referrers: Referrers) -> None:
    tagged = Tagged(server)

    referrers.add_to_tag(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [
        {
            "mediaType": OCI.manifest,
            "digest": str(FIRST.digest),
            "size": len(FIRST.body),
            "annotations": dict(FIRST.annotations),
            "artifactType": FIRST.artifact_type,
        }
    ]


def test_entries_of_others_stay_as_they_are(server: ScriptedServer, referrers: Referrers) -> None:
    theirs = {**entry(SECOND), "platform": {"os": "x", "odd": 1}, "org.example": [1, {}]}
    tagged = Tagged(server, theirs)

    referrers.add_to_tag(FIRST, FIRST.digest, SUBJECT)
    referrers.add_to_tag(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [theirs, entry(FIRST)]
    assert json.loads(tagged.body)["annotations"] == {"kept": "too"}
    assert tagged.written == 1


def test_what_others_overwrote_is_written_again(
    server: ScriptedServer, referrers: Referrers
) -> None:
    tagged = Tagged(server, entry(THIRD), others=2)

    referrers.add_to_tag(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [entry(SECOND), entry(FIRST)]
    assert tagged.written == 3


def test_tag_that_others_write_all_the_time_is_an_error(
    server: ScriptedServer, referrers: Referrers
) -> None:
    Tagged(server, others=1_000)

    with pytest.raises(ProtocolViolation, match=TAG):
        referrers.add_to_tag(FIRST, FIRST.digest, SUBJECT)

    assert len(server.matching_requests("PUT")) < 10


def test_tags_of_cosign_are_found_in_one_listing(
    server: ScriptedServer, referrers: Referrers
) -> None:
    names = ["v1", f"{TAG}.sig", f"{TAG}.other", TAG, f"{TAG[:-1]}.sig", f"sha256-{'0' * 64}.sig"]
    server.respond(
        "GET", r"/v2/team/app/tags/list\?n=1000", reply(body=json.dumps({"tags": names}))
    )

    assert set(referrers.digest_tags(SUBJECT)) == {f"{TAG}.sig", f"{TAG}.other"}
    assert referrers.digest_tags(Digest.from_bytes(b"unsigned")) == ()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply(403),
        reply(body="no list"),
        reply(body=json.dumps({"tags": [f"t{n}" for n in range(20_001)]})),
    ],
)
def test_tags_of_cosign_are_guessed_where_they_cannot_be_listed(
    server: ScriptedServer, referrers: Referrers, answer: ScriptedResponse
) -> None:
    server.respond("GET", r"/v2/team/app/tags/list\?n=1000", answer)

    expected = (f"{TAG}.sig", f"{TAG}.att", f"{TAG}.sbom")
    assert referrers.digest_tags(SUBJECT) == expected


def test_what_was_learned_can_be_forgotten(server: ScriptedServer, client: RegistryClient) -> None:
    shared = SharedReferrers()
    referrers = Referrers(client, shared)
    server.respond("GET", r"/v2/team/app/tags/list\?n=1000", reply(body='{"tags":[]}'))
    assert (referrers.list_referrers(SUBJECT), referrers.digest_tags(SUBJECT)) == ((), ())

    server.respond(
        "GET", r"/v2/team/app/tags/list\?n=1000", reply(body=f'{{"tags":["{TAG}.sig"]}}')
    )
    server.respond("GET", API, listing(FIRST))
    shared.clear()

    assert digests(referrers.list_referrers(SUBJECT)) == [FIRST.digest]
    assert referrers.digest_tags(SUBJECT) == (f"{TAG}.sig",)
