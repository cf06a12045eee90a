"""Manifests, lists and blobs that are not what they claim to be: REGISTRIES.md 4."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import (
    ConcilError,
    ContentError,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    ProtocolViolation,
    SizeMismatch,
)
from concil.oci.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from concil.transfer.image.graph import MAX_BLOBS
from tests.hostile.hostile_registry import (
    BLOB,
    LAYER,
    HostileRegistry,
    descriptor,
    engine,
    failure,
    image,
    index,
)
from tests.support.images import digest_of
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, reply

LAYER_DIGEST = str(descriptor(BLOB)["digest"])
OTHER = f"sha256:{'1' * 64}"


def copying(
    hostile: HostileRegistry, alice: Engine, target: Path, rest: str = "app:v1"
) -> ConcilError:
    """Copy what must not be copied; return the error. No image is there afterwards."""
    address = f"http://{hostile.registry.host}/{rest}"
    error = failure(lambda: alice.copy(address, f"oci:{target}:v1"))
    place = target / "index.json"
    assert not place.exists() or not json.loads(place.read_text())["manifests"]
    return error


# What kind of document it is (CVE-2021-41190) --------------------------------------


@pytest.mark.parametrize(
    ("document", "served_as"),
    [
        (image(manifests=[]), OCI_MANIFEST),
        (image(manifests=[]), OCI_INDEX),
        (index(layers=[]), OCI_INDEX),
        (index(config={}), OCI_INDEX),
        (image(Manifests=[]), OCI_MANIFEST),
        (image(MEDIATYPE=OCI_INDEX), OCI_MANIFEST),
        (image(), OCI_INDEX),
        (image(), DOCKER_MANIFEST_LIST),
        (index(), OCI_MANIFEST),
        (index(), DOCKER_MANIFEST),
        (image(mediaType=["x"]), OCI_MANIFEST),
        (image(mediaType=OCI_INDEX, layers=None), OCI_INDEX),
        (index(mediaType=OCI_MANIFEST), OCI_MANIFEST),
        ({"errors": [{"code": "UNKNOWN"}]}, OCI_MANIFEST),
        ({}, OCI_INDEX),
        (image(layers={}), OCI_MANIFEST),
        (image(layers=[None]), OCI_MANIFEST),
        (image(layers=[[]]), OCI_MANIFEST),
        (image(config=[]), OCI_MANIFEST),
        (b'{"schemaVersion":2,"layers":[],"manifests":[],"layers":[]}', OCI_MANIFEST),
        (b'{"layers":[],"layers":[]}', OCI_MANIFEST),
        (b'\xef\xbb\xbf{"layers":[]}', OCI_MANIFEST),
        ('{"layers":[]}'.encode("utf-16"), OCI_MANIFEST),
        (b'{"layers":[]}{"manifests":[]}', OCI_MANIFEST),
        (b'{"layers":[],"a":NaN}', OCI_MANIFEST),
        (b"", OCI_MANIFEST),
        (b"null", OCI_MANIFEST),
        (b"<html>", OCI_MANIFEST),
        (b'{"schemaVersion":1,"fsLayers":[]}', "application/json"),
    ],
)
def test_a_document_of_two_kinds_is_none(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    destination: Path,
    document: object,
    served_as: str,
) -> None:
    hostile.serve_manifest(document, served_as)

    assert isinstance(copying(hostile, authenticated_engine, destination), InvalidManifest)


def test_the_index_says_what_its_child_is(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    body = json.dumps(image(mediaType=None)).encode().replace(b'"mediaType": null, ', b"")
    child = descriptor(body, DOCKER_MANIFEST_LIST)
    hostile.serve_manifest(body, OCI_MANIFEST)
    hostile.serve_manifest(index(child), OCI_INDEX)

    assert isinstance(copying(hostile, authenticated_engine, destination), InvalidManifest)


@pytest.mark.parametrize("off", [-1, 1, 4_000_000])
def test_the_index_says_how_large_its_child_is(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, off: int
) -> None:
    body = json.dumps(image()).encode()
    child = descriptor(body, OCI_MANIFEST, size=len(body) + off)
    hostile.serve_manifest(body)
    hostile.serve_manifest(index(child), OCI_INDEX)

    assert isinstance(copying(hostile, authenticated_engine, destination), ContentError)


# Digests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "../../../etc/passwd",
        "/etc/passwd",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63 + "/",
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "0" * 64 + "?x=1",
        "sha256:" + "\uff10" * 64,
        "SHA256:" + "0" * 64,
        "sha1:" + "0" * 40,
        "md5:" + "0" * 32,
        "sha512:" + "0" * 64,
        "sha256+b64:" + "0" * 64,
        "sha256:" + "0" * 4_000_000,
        "",
        None,
        7,
        ["sha256:" + "0" * 64],
    ],
)
@pytest.mark.threads_only
@pytest.mark.parametrize("part", ["layer", "config", "child"])
def test_a_digest_that_is_none_is_never_a_path_or_a_url(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    destination: Path,
    part: str,
    digest: object,
) -> None:
    bad = descriptor(BLOB, LAYER if part != "child" else OCI_MANIFEST, digest=digest)
    if part == "child":
        hostile.serve_manifest(index(bad), OCI_INDEX)
    elif part == "layer":
        hostile.serve_manifest(image(layers=[bad]))
    else:
        hostile.serve_manifest(image(config=bad))

    error = copying(hostile, authenticated_engine, destination)

    assert isinstance(error, (InvalidDigest, InvalidManifest))
    assert not hostile.registry.matching_requests(part="/blobs/")
    assert all(
        seen.path.endswith("/v1") for seen in hostile.registry.matching_requests(part="/manifests/")
    )


def test_other_bytes_than_the_pinned_ones_are_refused(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    hostile.serve("manifests/" + OTHER, reply(200, json.dumps(image()), Content_Type=OCI_MANIFEST))

    assert isinstance(
        copying(hostile, authenticated_engine, destination, f"app@{OTHER}"), DigestMismatch
    )


def test_a_header_cannot_say_that_the_pinned_image_is_there(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    """Who asks for a digest and is told of another would take the old image for the new one."""
    old = hostile.serve_manifest(image())
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)
    authenticated_engine.copy(f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1")
    hostile.serve(
        f"HEAD manifests/{OTHER}",
        ScriptedResponse(
            200,
            b"",
            (("Docker-Content-Digest", old), ("Content-Type", OCI_MANIFEST)),
            length=len(json.dumps(image())),
        ),
    )

    error = failure(
        lambda: authenticated_engine.copy(
            f"http://{hostile.registry.host}/app@{OTHER}", f"oci:{destination}:v1"
        )
    )

    assert isinstance(error, NotFound)


@pytest.mark.parametrize("told", [OTHER, f"sha512:{'1' * 128}", "sha256:../..", "", "x" * 9000])
def test_a_digest_in_a_header_is_only_a_hint(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, told: str
) -> None:
    body = json.dumps(image()).encode()
    answer = reply(200, body, Content_Type=OCI_MANIFEST, Docker_Content_Digest=told)
    hostile.serve("manifests/v1", answer)
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)

    result = authenticated_engine.copy(
        f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1"
    )

    assert result.digest == type(result.digest).from_bytes(body, result.digest.algorithm)


# Sizes and bytes -------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, -(2**63), 2**63, 10**400, 1.5, True, None, "12", [], {}])
def test_a_size_that_is_none_is_refused(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path, size: object
) -> None:
    hostile.serve_manifest(image(layers=[descriptor(BLOB, size=size)]))

    assert isinstance(copying(hostile, authenticated_engine, destination), InvalidManifest)
    assert not hostile.registry.matching_requests(part="/blobs/")


WRONG_BLOBS: dict[str, ScriptedResponse | Callable[[ReceivedRequest], ScriptedResponse]] = {
    "shorter": reply(200, BLOB[:-1]),
    "longer": reply(200, BLOB + b"!"),
    "other": reply(200, bytes(len(BLOB))),
    "shorter than said": ScriptedResponse(200, BLOB[:-1], length=len(BLOB), cut="fin"),
    "longer than said": ScriptedResponse(200, BLOB + b"!" * 100, length=len(BLOB), cut="fin"),
    "other, without a length": ScriptedResponse(200, bytes(len(BLOB)), length=-1),
    "of no length": ScriptedResponse(200, BLOB[:-1], length=-1),
    "of a length with many digits": ScriptedResponse(
        200, BLOB, (("Content-Length", "9" * 5000),), length=-1
    ),
    "of a length in superscript": ScriptedResponse(
        200, BLOB, (("Content-Length", "\xb2"),), length=-1
    ),
    "of a length below zero": ScriptedResponse(
        200, BLOB[:3], (("Content-Length", "-3"),), length=-1
    ),
    "of two lengths": ScriptedResponse(200, BLOB, (("Content-Length", "3"),), length=len(BLOB)),
    "squeezed": reply(200, gzip.compress(BLOB), Content_Encoding="gzip"),
    "a part that nobody asked for": reply(
        206, BLOB[1:], Content_Range=f"bytes 1-{len(BLOB) - 1}/9"
    ),
    "a part without a range": reply(206, BLOB),
    "a part of an odd range": reply(206, BLOB, Content_Range="bytes 0-99999999999999999999/*"),
    "a part that is too long": reply(206, BLOB + b"!!", Content_Range=f"bytes 0-{len(BLOB)}/*"),
    "nothing": reply(204),
    "no answer": ScriptedResponse(0),
}


@pytest.mark.parametrize("name", WRONG_BLOBS)
def test_a_blob_of_other_bytes_never_gets_its_name(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    destination: Path,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hostile.serve_manifest(image())
    hostile.serve_blob(b"{}")
    hostile.serve(f"blobs/{LAYER_DIGEST}", WRONG_BLOBS[name])
    content = destination / "blobs" / "sha256" / LAYER_DIGEST.removeprefix("sha256:")

    with contextlib.suppress(ConcilError):
        authenticated_engine.copy(f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1")

    assert not content.exists() or content.read_bytes() == BLOB
    assert "unexpected error" not in caplog.text


@pytest.mark.parametrize("what", ["manifests/v1", "tags/list"])
@pytest.mark.parametrize("encoding", ["gzip", "x" * 5000, "\x1b[2J"])
def test_nothing_is_unpacked(
    hostile: HostileRegistry,
    authenticated_engine: Engine,
    destination: Path,
    what: str,
    encoding: str,
) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    kind = OCI_MANIFEST if what == "manifests/v1" else "application/json"
    hostile.serve(what, reply(200, bomb, Content_Type=kind, Content_Encoding=encoding))
    host = hostile.registry.host

    error = (
        copying(hostile, authenticated_engine, destination)
        if what == "manifests/v1"
        else failure(lambda: list(authenticated_engine.list_tags(f"http://{host}/app")))
    )

    assert isinstance(error, ProtocolViolation)
    assert "content encoding" in str(error)


def test_a_registry_that_lies_about_a_push_is_found_out(
    hostile: HostileRegistry, authenticated_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    hostile.serve("POST blobs/uploads/", reply(202, Location="/v2/app/blobs/uploads/1"))
    hostile.serve("PUT blobs/uploads/1", reply(201, Docker_Content_Digest=OTHER))

    error = failure(
        lambda: authenticated_engine.push_blob(
            tmp_path / "blob", f"http://{hostile.registry.host}/app"
        )
    )

    assert isinstance(error, DigestMismatch)


# Many ------------------------------------------------------------------------------


def platform(os: str) -> dict[str, object]:
    body = json.dumps(image()).encode()
    return descriptor(body, OCI_MANIFEST, platform={"os": os, "architecture": "x"})


def test_platforms_are_told_in_a_short_line(
    hostile: HostileRegistry, workers: int, destination: Path
) -> None:
    entries = [platform(f"\x1b]0;{number}\x07\u202e") for number in range(500)]
    hostile.serve_manifest(index(*entries), OCI_INDEX)

    with engine(workers) as alice:
        error = failure(
            lambda: alice.copy(
                f"http://{hostile.registry.host}/app:v1",
                f"oci:{destination}:v1",
                platforms=["linux/amd64"],
            )
        )

    assert isinstance(error, NotFound)
    assert error.remedy.isprintable()
    assert len(error.remedy) < 1000


def test_an_image_of_too_many_blobs_is_refused(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    layers = [descriptor(b"%d" % number) for number in range(MAX_BLOBS + 1)]
    hostile.serve_manifest(image(layers=layers))

    error = copying(hostile, authenticated_engine, destination)

    assert isinstance(error, InvalidManifest)
    assert not hostile.registry.matching_requests(part="/blobs/")


def test_children_of_many_megabytes_in_all_are_refused_before_they_are_fetched(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    children = [descriptor(b"%d" % number, OCI_MANIFEST, size=4_000_000) for number in range(100)]
    hostile.serve_manifest(index(*children), OCI_INDEX)

    error = copying(hostile, authenticated_engine, destination)

    assert isinstance(error, InvalidManifest)
    assert not hostile.registry.matching_requests("GET", "/manifests/sha256")


def test_a_child_larger_than_it_is_listed_ends_it_all(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    """Or ten thousand of them would be in memory before the first is looked at."""
    body = json.dumps(image(annotations={"a": "b" * 1_000_000})).encode()
    children = []
    for number in range(40):
        one = body + b" " * number
        hostile.serve_manifest(one, reference="x")
        children.append(descriptor(one, OCI_MANIFEST, size=2))
    hostile.serve_manifest(index(*children), OCI_INDEX)

    error = copying(hostile, authenticated_engine, destination)

    assert isinstance(error, (SizeMismatch, InvalidManifest))
    assert digest_of(body)


def test_an_artifact_without_config_is_no_confusion(
    hostile: HostileRegistry, authenticated_engine: Engine, destination: Path
) -> None:
    hostile.serve_manifest({**image(), "config": descriptor(b"{}", OCI_CONFIG)})
    hostile.serve_blob(b"{}")
    hostile.serve_blob(BLOB)

    assert (
        authenticated_engine.copy(
            f"http://{hostile.registry.host}/app:v1", f"oci:{destination}:v1"
        ).manifests
        == 1
    )
