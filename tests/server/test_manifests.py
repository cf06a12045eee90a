"""Manifests: what is taken, what is refused, and what deleting them means."""

from __future__ import annotations

import hashlib
import json

import pytest

from concil.oci.media_types import DOCKER_MANIFEST
from tests.server.client import Client, code_of, descriptor, index, manifest
from tests.support.images import OCI, digest_of

LAYER = b"layer"
LIMIT = 4 * 1024 * 1024


def child(body: bytes) -> dict[str, object]:
    return descriptor(body, OCI.manifest)


def test_the_location_of_a_pushed_manifest_serves_it(client: Client) -> None:
    client.push(b"{}")
    body = manifest()

    answer = client.push_manifest("v1", body)

    assert answer.status_code == 201
    assert answer.headers["Docker-Content-Digest"] == digest_of(body)
    served = client.ask("GET", answer.headers["Location"])
    assert served.content == body
    assert served.headers["Content-Type"] == OCI.manifest


@pytest.mark.parametrize(
    "fields",
    [
        {"artifactType": "application/x.test", "layers": [descriptor(b"{}", "application/x.e")]},
        {"unknown": {"field": [1, 2]}},
        {"layers": [{**descriptor(b"{}", OCI.layer), "data": "e30="}]},
        {"subject": descriptor(b"never pushed", OCI.manifest)},
    ],
    ids=["artifact", "custom-fields", "data-field", "missing-subject"],
)
def test_manifests_of_every_kind_keep_their_bytes(
    client: Client, fields: dict[str, object]
) -> None:
    digest, body = client.push_image("v1", fields=fields)

    assert client.ask("GET", f"manifests/{digest}").content == body


def test_indexes_nest_and_may_be_empty(client: Client) -> None:
    _, first = client.push_image("a", "first")
    _, second = client.push_image("b", "second")
    inner = index(child(first), child(second))
    outer = index(descriptor(inner, OCI.index))

    for tag, body in (("inner", inner), ("outer", outer), ("empty", index())):
        assert client.push_manifest(tag, body, OCI.index).status_code == 201
        assert client.ask("GET", f"manifests/{tag}").content == body


def test_layers_that_are_not_distributed_may_be_missing(client: Client) -> None:
    foreign = descriptor(
        b"elsewhere", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    )

    client.push_image("v1", fields={"layers": [foreign]})


def test_a_docker_manifest_keeps_its_media_type_without_a_tag(client: Client) -> None:
    client.push(b"{}")
    body = manifest(mediaType=DOCKER_MANIFEST)

    assert client.push_manifest(digest_of(body), body, DOCKER_MANIFEST).status_code == 201

    answer = client.ask("HEAD", f"manifests/{digest_of(body)}")
    assert answer.headers["Content-Type"] == DOCKER_MANIFEST
    assert client.tags() == []


def test_a_large_manifest_is_taken(client: Client) -> None:
    notes = {f"note-{i}": "A" * 10000 for i in range(390)}

    digest, body = client.push_image("large", fields={"annotations": notes})

    assert len(body) > 3_900_000
    assert client.ask("GET", f"manifests/{digest}").content == body


@pytest.mark.parametrize("chunked", [False, True])
def test_a_manifest_over_the_limit_is_413(client: Client, chunked: bool) -> None:
    body = manifest() + b" " * LIMIT
    sent = iter([body]) if chunked else body

    answer = client.ask("PUT", "manifests/v1", data=sent, headers={"Content-Type": OCI.manifest})

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"not json", OCI.manifest),
        (b"[]", OCI.manifest),
        (b"{}", OCI.manifest),
        (b'{"manifests": [], "layers": []}', OCI.index),
        (b'{"schemaVersion": 1, "fsLayers": []}', OCI.manifest),
        (manifest(), OCI.index),
        (manifest(layers=[{"mediaType": OCI.layer, "size": 1, "digest": "sha256:../x"}]), ""),
        (manifest(), "bad type"),
        (b"[" * 100_000, OCI.manifest),
    ],
)
def test_what_is_no_manifest_is_400(client: Client, body: bytes, media_type: str) -> None:
    client.push(b"{}")

    answer = client.push_manifest("v1", body, media_type)

    assert answer.status_code == 400
    assert code_of(answer) == "MANIFEST_INVALID"
    assert client.ask("HEAD", "manifests/v1").status_code == 404


@pytest.mark.parametrize("missing", ["config", "layer", "child"])
def test_a_manifest_that_names_what_is_missing_is_refused(client: Client, missing: str) -> None:
    body, media_type = manifest(), OCI.manifest
    if missing != "config":
        client.push(b"{}")
        body = manifest(layers=[descriptor(LAYER, OCI.layer)])
    if missing == "child":
        body, media_type = index(child(manifest())), OCI.index

    answer = client.push_manifest("v1", body, media_type)

    assert answer.status_code == 400
    assert code_of(answer) == "MANIFEST_BLOB_UNKNOWN"


def test_a_blob_of_another_repository_does_not_count(client: Client) -> None:
    client.at("team/other").push(b"{}")

    assert code_of(client.push_manifest("v1", manifest())) == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize("reference", [digest_of(b"other"), "sha256:baddigeststring"])
def test_a_manifest_under_a_wrong_digest_is_400(client: Client, reference: str) -> None:
    client.push(b"{}")

    answer = client.push_manifest(reference, manifest())

    assert answer.status_code == 400
    assert code_of(answer) == "DIGEST_INVALID"


@pytest.mark.parametrize("tag", [".hidden", "a" * 129, "-x", "sp%20ace"])
def test_a_tag_that_is_none_is_400(client: Client, tag: str) -> None:
    client.push(b"{}")

    answer = client.push_manifest(tag, manifest())

    assert answer.status_code == 400
    assert code_of(answer) == "TAG_INVALID"


def test_a_manifest_under_its_sha512_takes_tags_from_the_query(client: Client) -> None:
    client.push(b"{}")
    body = manifest()
    digest = f"sha512:{hashlib.sha512(body).hexdigest()}"

    answer = client.push_manifest(digest, body, tag=["one", "two"])

    assert answer.status_code == 201
    assert answer.headers["OCI-Tag"] == "one, two"
    for reference in (digest, "one", "two"):
        served = client.ask("HEAD", f"manifests/{reference}")
        assert served.headers["Docker-Content-Digest"] == digest


def test_a_tag_moves_and_what_it_meant_stays(client: Client) -> None:
    first, _ = client.push_image("v1", "first")
    second, _ = client.push_image("v1", "second")

    assert client.ask("HEAD", "manifests/v1").headers["Docker-Content-Digest"] == second
    assert client.ask("HEAD", f"manifests/{first}").status_code == 200
    assert client.tags() == ["v1"]


def test_a_deleted_tag_is_gone_at_once_and_its_manifest_stays(client: Client) -> None:
    digest, _ = client.push_image("v1")
    client.push_image("v2")

    assert client.ask("DELETE", "manifests/v1").status_code == 202

    assert client.ask("HEAD", "manifests/v1").status_code == 404
    assert client.ask("HEAD", f"manifests/{digest}").status_code == 200
    assert client.tags() == ["v2"]
    assert client.ask("DELETE", "manifests/v1").status_code == 404


def test_deleting_a_manifest_deletes_its_tags(client: Client) -> None:
    digest, body = client.push_image("v1")
    other = client.at("team/other")
    other.push_image("v1")
    client.push_manifest("v2", body)
    kept, _ = client.push_image("v3", "another")

    assert client.ask("DELETE", f"manifests/{digest}").status_code == 202

    assert client.ask("HEAD", f"manifests/{digest}").status_code == 404
    assert client.tags() == ["v3"]
    assert client.ask("HEAD", f"manifests/{kept}").status_code == 200
    assert other.tags() == ["v1"]
    assert other.ask("HEAD", f"manifests/{digest}").status_code == 200


def test_a_deleted_blob_is_gone_from_its_repository_only(client: Client) -> None:
    digest = client.push(LAYER)
    other = client.at("team/other")
    other.push(LAYER)

    answer = client.ask("DELETE", f"blobs/{digest}")

    assert answer.status_code == 202
    assert client.ask("HEAD", f"blobs/{digest}").status_code == 404
    assert client.ask("DELETE", f"blobs/{digest}").status_code == 404
    assert other.ask("GET", f"blobs/{digest}").content == LAYER


def test_everything_can_be_deleted_in_the_order_of_the_conformance_suite(client: Client) -> None:
    client.push(LAYER)
    digest, body = client.push_image("v1", fields={"layers": [descriptor(LAYER, OCI.layer)]})
    whole = index(child(body))
    client.push_manifest("whole", whole, OCI.index)

    gone = ["manifests/v1", "manifests/whole", f"manifests/{digest_of(whole)}"]
    gone += [f"manifests/{digest}", f"blobs/{digest_of(LAYER)}", f"blobs/{digest_of(b'{}')}"]
    for path in gone:
        assert client.ask("DELETE", path).status_code == 202
        assert client.ask("HEAD", path).status_code == 404
    assert client.tags() == []


def test_what_was_deleted_can_be_pushed_again(client: Client) -> None:
    digest, body = client.push_image("v1")
    client.ask("DELETE", f"manifests/{digest}")
    client.ask("DELETE", f"blobs/{digest_of(b'{}')}")
    assert code_of(client.push_manifest("v1", body)) == "MANIFEST_BLOB_UNKNOWN"

    client.push_image("v1")

    assert json.loads(client.ask("GET", "manifests/v1").content) == json.loads(body)
