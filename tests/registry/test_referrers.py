"""Lists of referrers, as registries have them or as tags, and what is written into a tag."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from concil.content import OCI_INDEX, Descriptor, Digest, Manifest
from concil.errors import (
    AccessDenied,
    ConcilError,
    InvalidManifest,
    ProtocolViolation,
    StatusError,
)
from concil.registry.client import RegistryClient
from concil.registry.referrers import MOST_REFERRERS, Referrers, SharedReferrers
from tests.lab.images import OCI, Image, make_image, make_index
from tests.lab.referrers import make_referrer
from tests.registry.scripted import Answer, Scripted, Seen, reply

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
    return manifest.listed(manifest.digest).to_json()


def body_of(*entries: object, **fields: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **fields}
    ).encode()


def listing(*manifests: Manifest, link: str = "") -> Answer:
    answer = reply(body=body_of(*map(entry, manifests)), Content_Type=OCI_INDEX)
    if link:
        headers = (*answer.headers, ("Link", f'<{link}>; rel="next"'))
        return Answer(answer.status, answer.body, headers)
    return answer


def digests(found: tuple[Descriptor, ...]) -> list[Digest]:
    return [each.digest for each in found]


@pytest.fixture
def referrers(client: RegistryClient) -> Referrers:
    return Referrers(client, SharedReferrers())


def test_pages_are_put_together_and_each_is_there_once(
    server: Scripted, referrers: Referrers
) -> None:
    server.on("GET", API, listing(FIRST, SECOND, link=f"{API}?n=2&last=x"))
    server.on("GET", rf"{API}\?n=2&last=x", listing(SECOND, THIRD))

    found = referrers.of(SUBJECT)

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
        reply(302),
    ],
)
def test_registry_without_a_list_may_have_a_tag(
    server: Scripted, referrers: Referrers, answer: Answer
) -> None:
    server.on("GET", API, answer)
    server.on("GET", BY_TAG, listing(FIRST))

    assert digests(referrers.of(SUBJECT)) == [FIRST.digest]


def test_registry_without_a_list_is_asked_once(server: Scripted, referrers: Referrers) -> None:
    server.on("GET", BY_TAG, listing(FIRST))

    for _ in range(3):
        referrers.of(SUBJECT)

    assert len(server.asked("GET", "/referrers/")) == 1


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])
def test_unknown_name_says_nothing_of_the_registry(
    server: Scripted, referrers: Referrers, code: str
) -> None:
    unknown = reply(404, json.dumps({"errors": [{"code": code}]}), Content_Type="application/json")
    server.on("GET", API, unknown, listing(FIRST))

    assert referrers.of(SUBJECT) == ()
    assert digests(referrers.of(SUBJECT)) == [FIRST.digest]


def test_list_may_be_elsewhere_in_the_same_registry(server: Scripted, referrers: Referrers) -> None:
    server.on("GET", API, reply(307, Location="/lists/1"))
    server.on("GET", "/lists/1", listing(FIRST))

    assert digests(referrers.of(SUBJECT)) == [FIRST.digest]


def test_registry_may_list_nothing_in_two_ways(server: Scripted, referrers: Referrers) -> None:
    nothing = reply(body='{"schemaVersion":2,"manifests":null}', Content_Type=OCI_INDEX)
    server.on("GET", API, listing(), nothing)

    assert referrers.of(SUBJECT) == referrers.of(SUBJECT) == ()


def in_a_circle(server: Scripted) -> None:
    server.on("GET", rf"{API}(\?.*)?", lambda seen: listing(FIRST, link=seen.path))


def test_list_that_leads_to_itself_ends(server: Scripted, referrers: Referrers) -> None:
    in_a_circle(server)

    assert digests(referrers.of(SUBJECT)) == [FIRST.digest]


def broken(server: Scripted) -> None:
    server.on("GET", API, reply(body=b'{"manifests":[{}]}', Content_Type=OCI_INDEX))


def no_json(server: Scripted) -> None:
    server.on("GET", API, reply(body=b"[", Content_Type=OCI_INDEX))


def traversing(server: Scripted) -> None:
    odd = {**entry(FIRST), "digest": "sha256:../../etc/passwd"}
    server.on("GET", API, reply(body=body_of(odd), Content_Type=OCI_INDEX))


def half(server: Scripted) -> None:
    server.on("GET", API, listing(FIRST, link=f"{API}?page=2"))


def elsewhere(server: Scripted) -> None:
    server.on("GET", API, listing(FIRST, link="https://other.example/list"))


def endless(server: Scripted) -> None:
    pages = iter(range(10_000))

    def page(_seen: Seen) -> Answer:
        number = next(pages)
        entries = [
            {**entry(FIRST), "digest": str(Digest.of(b"%d %d" % (number, n)))} for n in range(900)
        ]
        body = body_of(*entries)
        link = f'<{API}?page={number}>; rel="next"'
        return Answer(200, body, (("Content-Type", OCI_INDEX), ("Link", link)))

    server.on("GET", rf"{API}(\?.*)?", page)


@pytest.mark.parametrize("odd", [broken, no_json, traversing, half, elsewhere, endless])
def test_list_that_makes_no_sense_is_an_error_and_not_half_a_list(
    server: Scripted, referrers: Referrers, odd: Callable[[Scripted], None]
) -> None:
    odd(server)

    with pytest.raises((InvalidManifest, ProtocolViolation), match="app"):
        referrers.of(SUBJECT)

    assert len(server.requests) <= MOST_REFERRERS // 900 + 2


@pytest.mark.parametrize(("status", "error"), [(403, AccessDenied), (500, StatusError)])
def test_list_that_is_refused_is_not_an_empty_one(
    server: Scripted, referrers: Referrers, status: int, error: type[ConcilError]
) -> None:
    server.on("GET", API, reply(status))
    server.on("GET", BY_TAG, listing(FIRST))

    with pytest.raises(error):
        referrers.of(SUBJECT)


@pytest.mark.parametrize("held", [INDEX, IMAGE], ids=["the index itself", "an image"])
def test_image_under_the_tag_of_a_digest_is_no_list(
    server: Scripted, referrers: Referrers, held: Image
) -> None:
    subject = Digest.parse(INDEX.digest)
    path = f"/v2/team/app/manifests/sha256-{subject.hex}"
    server.on("GET", path, reply(body=held.manifest, Content_Type=held.media_type))

    assert referrers.of(subject) == ()
    with pytest.raises(InvalidManifest, match="is an image, and no list"):
        referrers.add(FIRST, FIRST.digest, subject)
    assert server.asked("PUT") == []


class Tagged:
    """The tag of a registry without a list, and others who write it."""

    def __init__(self, server: Scripted, *before: object, others: int = 0) -> None:
        self.body = body_of(*before, annotations={"kept": "too"}) if before else b""
        self.others = others  # writes of others that are still to come
        self.written = 0
        server.on("GET", BY_TAG, self._get)
        server.on("PUT", BY_TAG, self._put)

    @property
    def entries(self) -> list[dict[str, object]]:
        return list(json.loads(self.body)["manifests"])

    def _get(self, _seen: Seen) -> Answer:
        if not self.body:
            return reply(404, '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        return reply(body=self.body, Content_Type=OCI_INDEX)

    def _put(self, seen: Seen) -> Answer:
        assert seen.headers["content-type"] == OCI_INDEX
        self.body = seen.read()
        self.written += 1
        if self.others:
            # Another client had read the tag before, and writes what it makes of that.
            self.others -= 1
            self.body = body_of(entry(SECOND))
        return reply(201)


def test_first_referrer_makes_the_tag(server: Scripted, referrers: Referrers) -> None:
    tagged = Tagged(server)

    referrers.add(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [
        {
            "mediaType": OCI.manifest,
            "digest": str(FIRST.digest),
            "size": len(FIRST.body),
            "annotations": dict(FIRST.annotations),
            "artifactType": FIRST.artifact_type,
        }
    ]


def test_entries_of_others_stay_as_they_are(server: Scripted, referrers: Referrers) -> None:
    theirs = {**entry(SECOND), "platform": {"os": "x", "odd": 1}, "org.example": [1, {}]}
    tagged = Tagged(server, theirs)

    referrers.add(FIRST, FIRST.digest, SUBJECT)
    referrers.add(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [theirs, entry(FIRST)]
    assert json.loads(tagged.body)["annotations"] == {"kept": "too"}
    assert tagged.written == 1


def test_what_others_overwrote_is_written_again(server: Scripted, referrers: Referrers) -> None:
    tagged = Tagged(server, entry(THIRD), others=2)

    referrers.add(FIRST, FIRST.digest, SUBJECT)

    assert tagged.entries == [entry(SECOND), entry(FIRST)]
    assert tagged.written == 3


def test_tag_that_others_write_all_the_time_is_an_error(
    server: Scripted, referrers: Referrers
) -> None:
    Tagged(server, others=1_000)

    with pytest.raises(ProtocolViolation, match=TAG):
        referrers.add(FIRST, FIRST.digest, SUBJECT)

    assert len(server.asked("PUT")) < 10


def test_tags_of_cosign_are_found_in_one_listing(server: Scripted, referrers: Referrers) -> None:
    names = ["v1", f"{TAG}.sig", f"{TAG}.other", TAG, f"{TAG[:-1]}.sig", f"sha256-{'0' * 64}.sig"]
    server.on("GET", r"/v2/team/app/tags/list\?n=1000", reply(body=json.dumps({"tags": names})))

    assert set(referrers.digest_tags(SUBJECT)) == {f"{TAG}.sig", f"{TAG}.other"}
    assert referrers.digest_tags(Digest.of(b"unsigned")) == ()
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
    server: Scripted, referrers: Referrers, answer: Answer
) -> None:
    server.on("GET", r"/v2/team/app/tags/list\?n=1000", answer)

    expected = (f"{TAG}.sig", f"{TAG}.att", f"{TAG}.sbom")
    assert referrers.digest_tags(SUBJECT) == expected


def test_what_was_learned_can_be_forgotten(server: Scripted, client: RegistryClient) -> None:
    shared = SharedReferrers()
    referrers = Referrers(client, shared)
    server.on("GET", r"/v2/team/app/tags/list\?n=1000", reply(body='{"tags":[]}'))
    assert (referrers.of(SUBJECT), referrers.digest_tags(SUBJECT)) == ((), ())

    server.on("GET", r"/v2/team/app/tags/list\?n=1000", reply(body=f'{{"tags":["{TAG}.sig"]}}'))
    server.on("GET", API, listing(FIRST))
    shared.forget()

    assert digests(referrers.of(SUBJECT)) == [FIRST.digest]
    assert referrers.digest_tags(SUBJECT) == (f"{TAG}.sig",)
