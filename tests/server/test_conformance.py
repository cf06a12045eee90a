"""The walks of the specification's own conformance suite, for both kinds of digest.

Each kind of content is pushed, listed, asked for, pulled, found by what it refers to, and
deleted. Source: distribution-spec, conformance/run.go.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.server.client import OCTETS, Client
from tests.support.images import OCI

ALGORITHMS = ("sha256", "sha512")
CHUNK = 1024  # bytes
WALKS: dict[str, Callable[[Content], None]] = {}


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def some(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def in_pieces(content: bytes) -> Iterator[bytes]:
    """A body of unknown length: it is sent in the chunked transfer coding."""
    yield content[:100]
    yield content[100:]


def patch(client: Client, location: str, content: bytes, number: int) -> requests.Response:
    start = number * CHUNK
    return client.patch(location, content[start : start + CHUNK], start)


def close_with_last_chunk(
    client: Client, location: str, content: bytes, name: str
) -> requests.Response:
    start = 2 * CHUNK
    headers = {**OCTETS, "Content-Range": f"{start}-{len(content) - 1}"}
    return client.ask(
        "PUT", location, params={"digest": name}, data=content[start:], headers=headers
    )


def assert_there_until_deleted(client: Client, name: str, content: bytes) -> None:
    asked = client.ask("HEAD", f"blobs/{name}")
    assert (asked.status_code, asked.headers["Content-Length"]) == (200, str(len(content)))
    assert asked.headers["Docker-Content-Digest"] == name
    assert client.ask("GET", f"blobs/{name}").content == content
    assert client.ask("DELETE", f"blobs/{name}").status_code == 202
    assert client.ask("HEAD", f"blobs/{name}").status_code == 404


def post_only(client: Client, content: bytes, name: str) -> requests.Response:
    return client.ask(
        "POST", "blobs/uploads/", params={"digest": name}, data=content, headers=OCTETS
    )


def post_and_put(client: Client, content: bytes, name: str) -> requests.Response:
    return client.put(client.begin(), name, content)


def stream(client: Client, content: bytes, name: str) -> requests.Response:
    sent = client.ask("PATCH", client.begin(), data=in_pieces(content), headers=OCTETS)
    assert sent.status_code == 202
    return client.put(sent.headers["Location"], name)


def chunks(
    client: Client, content: bytes, name: str, *, astray: bool = False, last_in_put: bool = False
) -> requests.Response:
    """Push three chunks; with ``astray`` others come between them, in the wrong order."""
    location = client.begin()
    if astray:
        assert patch(client, location, content, 1).status_code == 416
    for number in range(2 if last_in_put else 3):
        answer = patch(client, location, content, number)
        assert answer.status_code == 202, answer.text
        location = answer.headers["Location"]
        held = min((number + 1) * CHUNK, len(content))
        assert answer.headers["Range"] == f"0-{held - 1}"
        status = client.ask("GET", location)
        assert (status.status_code, status.headers["Range"]) == (204, f"0-{held - 1}")
        if astray and number == 0:
            assert patch(client, location, content, 2).status_code == 416
            location = client.ask("GET", location).headers["Location"]
    if last_in_put:
        return close_with_last_chunk(client, location, content, name)
    return client.put(location, name)


UPLOADS: dict[str, Callable[[Client, bytes, str], requests.Response]] = {
    "post only": post_only,
    "post and put": post_and_put,
    "stream": stream,
    "chunks": chunks,
    "chunks, the last in the put": lambda *to: chunks(*to, last_in_put=True),
    "chunks, some astray": lambda *to: chunks(*to, astray=True),
    "chunks, some astray, the last in the put": lambda *to: chunks(
        *to, astray=True, last_in_put=True
    ),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", UPLOADS)
def test_blob_is_pushed_and_deleted(client: Client, way: str, algorithm: str) -> None:
    content = some(way, 3 * CHUNK - 5)
    name = digest(content, algorithm)
    assert client.ask("GET", f"blobs/{name}").status_code == 404

    answer = UPLOADS[way](client, content, name)

    assert answer.status_code == 201, answer.text
    assert answer.headers["Docker-Content-Digest"] == name
    assert answer.headers["Location"].endswith(f"/blobs/{name}")
    assert_there_until_deleted(client, name, content)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", ["post only", "post and put", "stream", "chunks"])
def test_a_blob_with_another_digest_is_refused(client: Client, way: str, algorithm: str) -> None:
    content = some(way, 3 * CHUNK - 5)
    name = digest(b"another", algorithm)

    answer = UPLOADS[way](client, content, name)

    assert answer.status_code == 400
    assert client.ask("HEAD", f"blobs/{name}").status_code == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("content", [b"", b"{}"], ids=["empty", "empty JSON"])
def test_the_smallest_blobs(client: Client, content: bytes, algorithm: str) -> None:
    name = digest(content, algorithm)

    assert post_and_put(client, content, name).status_code == 201

    assert_there_until_deleted(client, name, content)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mounts(client: Client, algorithm: str) -> None:
    content, other = some("mount", 512), client.at("team/other")
    name = digest(content, algorithm)

    assert client.post(mount=name, **{"from": other.repository}).status_code == 202
    assert post_and_put(other, content, name).status_code == 201
    assert client.post(mount=name, **{"from": other.repository}).status_code == 201
    assert_there_until_deleted(client, name, content)
    assert client.post(mount=name).status_code == 201
    assert_there_until_deleted(client, name, content)


def test_a_session_that_is_cancelled_is_gone(client: Client) -> None:
    location = client.begin()

    assert client.ask("DELETE", location).status_code == 204

    assert client.ask("GET", location).status_code == 404


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("500-1499", (500, 1500)),
        ("500-", (500, 2048)),
        ("-500", (1548, 2048)),
        ("2000-5000", (2000, 2048)),
        ("500-0", None),
        ("5000-10000", None),
    ],
)
def test_ranges(client: Client, asked: str, held: tuple[int, int] | None) -> None:
    content = some("ranges", 2048)
    name = client.push(content)

    answer = client.ask("GET", f"blobs/{name}", headers={"Range": f"bytes={asked}"})

    if held is None:
        assert answer.status_code == 416
        return
    start, stop = held
    assert (answer.status_code, answer.content) == (206, content[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/2048"


@dataclass
class Content:
    """What one walk pushes: blobs, then manifests in order, then tags."""

    algorithm: str = "sha256"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: list[tuple[str, str, str]] = field(default_factory=list)  # subject, digest, type

    def blob(self, media_type: str, content: bytes) -> dict[str, Any]:
        name = digest(content, self.algorithm)
        self.blobs[name] = content
        return {"mediaType": media_type, "digest": name, "size": len(content)}

    def image(self, tag: str = "", layers: int = 2, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        number = len(self.manifests)
        config = json.dumps({"os": "linux", "architecture": "amd64", "number": number}).encode()
        made = [self.blob(OCI.layer, some(f"{number}/{n}", 64)) for n in range(layers)]
        document = {"config": self.blob(OCI.config, config), "layers": made, **fields}
        return self.put(OCI.manifest, document, tag)

    def index(self, *entries: dict[str, Any], tag: str = "", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        return self.put(OCI.index, {"manifests": entries, **fields}, tag)

    def artifact(self, tag: str = "", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
        empty = self.blob("application/vnd.oci.empty.v1+json", b"{}")
        return self.put(OCI.manifest, {"config": empty, "layers": [empty], **fields}, tag)

    def put(self, media_type: str, document: dict[str, Any], tag: str = "") -> dict[str, Any]:
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **document}).encode()
        name = digest(body, self.algorithm)
        self.manifests[name] = body
        if tag:
            self.tags[tag] = name
        if "subject" in document:
            config = document.get("config", {}).get("mediaType", "")
            kind = document.get("artifactType") or config
            self.referrers.append((document["subject"]["digest"], name, kind))
        return {"mediaType": media_type, "digest": name, "size": len(body)}


def walk(make: Callable[[Content], None]) -> Callable[[Content], None]:
    WALKS[make.__name__.replace("_", " ")] = make
    return make


@walk
def an_image(content: Content) -> None:
    content.image("image")


@walk
def a_large_manifest(content: Content) -> None:
    content.image("large", annotations={f"large-{n}": "A" * 10_000 for n in range(390)})


@walk
def an_index(content: Content) -> None:
    content.index(content.image(), content.image(), tag="index")


@walk
def an_index_of_indexes(content: Content) -> None:
    first, second = content.index(content.image()), content.index(content.image())
    content.index(first, second, tag="nested")


@walk
def an_empty_index(content: Content) -> None:
    content.index(tag="empty")


@walk
def an_artifact(content: Content) -> None:
    content.artifact("artifact", artifactType="application/vnd.example.one")


@walk
def an_index_of_artifacts(content: Content) -> None:
    kind = "application/vnd.example.one"
    content.index(content.artifact(artifactType=kind), tag="artifacts", artifactType=kind)


@walk
def artifacts_that_refer_to_an_image(content: Content) -> None:
    subject = content.image("image")
    content.image(subject=subject)
    for number in ("one", "two"):
        kind = f"application/vnd.example.{number}"
        content.artifact(number, artifactType=kind, subject=subject, annotations={"n": number})


@walk
def an_index_that_refers_to_an_index(content: Content) -> None:
    subject = content.index(content.image(), tag="index")
    content.index(artifactType="application/vnd.example.one", subject=subject)


@walk
def a_subject_that_is_missing(content: Content) -> None:
    missing = {"mediaType": OCI.manifest, "digest": digest(b"missing"), "size": 123}
    content.artifact("tagged", artifactType="application/vnd.example.one", subject=missing)


@walk
def data_in_a_descriptor(content: Content) -> None:
    config = {**content.blob(OCI.config, b"{}"), "data": "e30="}
    content.put(OCI.manifest, {"config": config, "layers": []}, "data")


@walk
def layers_that_are_not_to_be_distributed(content: Content) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    urls = ["https://store.example.com/blob"]
    far = {"mediaType": kind, "digest": digest(b"far"), "size": 12345, "urls": urls}
    config = content.blob(OCI.config, b"{}")
    near = content.blob(OCI.layer, some("near", 64))
    content.put(OCI.manifest, {"config": config, "layers": [far, near]}, "far")


@walk
def fields_that_nobody_knows(content: Content) -> None:
    image = content.image(unknown=1)
    content.index(image, tag="custom", unknown=[{"more": None}])


@walk
def an_image_without_layers(content: Content) -> None:
    content.image("bare", layers=0)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", WALKS)
def test_content_is_pushed_found_and_deleted(client: Client, name: str, algorithm: str) -> None:
    content = Content(algorithm)
    WALKS[name](content)
    if algorithm != "sha256":
        content.tags.clear()  # a tag alone does not say which digest is meant

    for one, blob in content.blobs.items():
        assert post_and_put(client, blob, one).status_code == 201
    _push_manifests(client, content)
    _find(client, content)
    _delete(client, content)


def _push_manifests(client: Client, content: Content) -> None:
    subjects = {name: subject for subject, name, _ in content.referrers}
    names = [*((name, name) for name in content.manifests), *content.tags.items()]
    for reference, name in names:
        body = content.manifests[name]
        media_type = json.loads(body)["mediaType"]
        answer = client.push_manifest(reference, body, media_type)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Docker-Content-Digest"] == name
        assert answer.headers.get("OCI-Subject") == subjects.get(name)
        found = client.ask("GET", f"manifests/{reference}")
        assert (found.status_code, found.content) == (200, body)
        assert found.headers["Content-Type"] == media_type
        asked = client.ask("HEAD", f"manifests/{reference}")
        assert asked.headers["Content-Length"] == str(len(body))
        assert asked.headers["Docker-Content-Digest"] == name


def _find(client: Client, content: Content) -> None:
    if content.tags:
        tags = client.tags()
        assert tags == sorted(content.tags)
        assert client.tags(last=tags[0]) == tags[1:]
    for subject, name, kind in content.referrers:
        assert name in _referrers(client, content, subject)
        filtered = _referrers(client, content, subject, artifactType=kind)
        assert filtered[name] == kind
        assert set(filtered.values()) == {kind}


def _referrers(client: Client, content: Content, subject: str, **query: str) -> dict[str, str]:
    """Ask for what refers to a subject, and compare; return the artifact types by digest."""
    answer = client.ask("GET", f"referrers/{subject}", params=query)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == OCI.index
    assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if query else None)
    found = {one["digest"]: one for one in answer.json()["manifests"]}
    for name, one in found.items():
        body = content.manifests[name]
        assert one["size"] == len(body)
        assert one.get("annotations") == json.loads(body).get("annotations")
    return {name: one["artifactType"] for name, one in found.items()}


def _delete(client: Client, content: Content) -> None:
    for tag, name in content.tags.items():
        assert client.ask("DELETE", f"manifests/{tag}").status_code == 202
        assert client.ask("HEAD", f"manifests/{tag}").status_code == 404
        assert client.ask("HEAD", f"manifests/{name}").status_code == 200
    for name in reversed(content.manifests):
        assert client.ask("DELETE", f"manifests/{name}").status_code == 202
        assert client.ask("HEAD", f"manifests/{name}").status_code == 404
    for name in content.blobs:
        assert client.ask("DELETE", f"blobs/{name}").status_code == 202
        assert client.ask("HEAD", f"blobs/{name}").status_code == 404


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tags_in_the_query_of_a_push_by_digest(client: Client, algorithm: str) -> None:
    content = Content(algorithm)
    content.index(content.image(layers=0))
    for one, blob in content.blobs.items():
        post_and_put(client, blob, one)
    *children, (name, body) = content.manifests.items()
    for child, manifest in children:
        client.push_manifest(child, manifest)

    answer = client.push_manifest(name, body, OCI.index, tag=["one", "two"])

    assert answer.status_code == 201
    assert {tag.strip() for tag in answer.headers["OCI-Tag"].split(",")} == {"one", "two"}
    for tag in ("one", "two"):
        asked = client.ask("HEAD", f"manifests/{tag}")
        assert asked.headers["Docker-Content-Digest"] == name


def test_what_was_never_pushed(client: Client) -> None:
    nothing = digest(b"nothing")

    assert client.ask("GET", "/v2/").status_code == 200
    assert client.ask("GET", "tags/list").status_code == 404
    referrers = client.ask("GET", f"referrers/{nothing}")
    assert (referrers.status_code, referrers.json()["manifests"]) == (200, [])
    for reference in (nothing, "missing"):
        assert client.ask("GET", f"manifests/{reference}").status_code == 404


def test_digests_that_are_wrong_or_none(client: Client) -> None:
    name, body = client.push_image("image")

    assert client.push_manifest(name, body + b"  ").status_code == 400
    assert client.push_manifest("sha256:baddigeststring", body).status_code == 400
    assert client.ask("GET", "manifests/sha256:baddigeststring").status_code in (400, 404)
