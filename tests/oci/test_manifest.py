"""Digests, descriptors and manifests: what is taken for content, and what is not."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.errors import ConcilError, DigestMismatch, InvalidDigest, InvalidManifest, SizeMismatch
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest, Verifier
from concil.oci.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_ARTIFACT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from concil.oci.platform import Platform

UNTIMED = settings(deadline=None, database=None)
HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"


def descriptor(**fields: object) -> dict[str, object]:
    return {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 7, **fields}


def manifest(**fields: object) -> dict[str, object]:
    return {"schemaVersion": 2, "config": descriptor(), "layers": [descriptor()], **fields}


def index(*entries: object, **fields: object) -> dict[str, object]:
    return {"schemaVersion": 2, "manifests": list(entries), **fields}


def parse(document: object, media_type: str = "") -> Manifest:
    return Manifest.parse(json.dumps(document).encode(), media_type)


# Digests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [DIGEST, "sha256:" + "0123456789abcdef" * 4, "sha512:" + "0" * 128]
)
def test_digests_of_the_registered_algorithms(text: str) -> None:
    digest = Digest.parse(text)

    assert str(digest) == text
    assert (digest.algorithm, digest.hex) == tuple(text.split(":"))
    assert digest.short_hex == digest.hex[:12]


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        "sha256:",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f"sha256:{HEX.upper()}",
        f" {DIGEST}",
        f"sha512:{HEX}",
        f"sha256:{'0' * 128}",
        f"sha1:{'0' * 40}",
        f"md5:{'0' * 32}",
        "sha256:../../../../etc/passwd" + "0" * 38,
        f"sha256:{HEX[:-2]}\u0660\u0661",
        f"SHA256:{HEX}",
        f"sha256:{HEX}/../x",
        None,
        5,
        ["sha256"],
    ],
)
def test_what_is_no_digest(text: object) -> None:
    with pytest.raises(InvalidDigest) as excinfo:
        Digest.parse(text)  # type: ignore[arg-type]

    assert str(excinfo.value).isprintable()
    assert "64 lower-case hex digits" in excinfo.value.remedy
    assert isinstance(excinfo.value, ValueError)


@UNTIMED
@given(st.text() | st.text("sha256:0af/.", max_size=100))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InvalidDigest):
        assert str(Digest.parse(text)) == text


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_of_bytes(algorithm: str) -> None:
    assert Digest.from_bytes(b"abc", algorithm).hex == hashlib.new(algorithm, b"abc").hexdigest()


# Verifying ---------------------------------------------------------------------------------


@UNTIMED
@given(st.lists(st.binary(max_size=20)), st.sampled_from(["sha256", "sha512"]))
def test_pieces_hash_as_the_whole(pieces: list[bytes], algorithm: str) -> None:
    verifier = Verifier(algorithm)
    for piece in pieces:
        verifier.update(piece)
    whole = b"".join(pieces)

    verifier.verify(Digest.from_bytes(whole, algorithm), len(whole), "blob")
    assert verifier.position == len(whole)


@UNTIMED
@given(st.binary(min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=10))
def test_a_stretch_that_is_offered_again_is_passed_over(content: bytes, starts: list[int]) -> None:
    verifier = Verifier()
    for start in starts:
        if start <= verifier.position:
            verifier.update(memoryview(content)[start : start + 7], start)
    verifier.update(bytearray(content[verifier.position :]))

    verifier.verify(Digest.from_bytes(content), len(content), "blob")


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_hashing_resumes_in_another_process(size: int) -> None:
    content = bytes(range(256)) * 8
    first = Verifier.create_resumable()
    first.update(content[:size])

    second = Verifier.create_resumable(first.hash_state)
    second.update(content[second.position :])

    assert second.position == len(content)
    assert second.digest() == Digest.from_bytes(content)
    if size and first.hash_state:  # where OpenSSL allows it, nothing is hashed twice
        assert Verifier(hash_state=first.hash_state).position == size


@pytest.mark.parametrize(
    "saved", ["", "nonsense", "5", "5:", "5:zz", "x:00", "5:00", ":", "-1:" + "00" * 200]
)
def test_invalid_state_restarts_from_the_beginning(saved: str) -> None:
    verifier = Verifier(hash_state=saved)

    assert verifier.position == 0
    assert verifier.digest() == Digest.from_bytes(b"")


def test_a_hash_that_cannot_be_saved_says_so() -> None:
    assert Verifier("sha512").hash_state == ""


def test_a_gap_is_never_hashed_over() -> None:
    verifier = Verifier()
    verifier.update(b"12345")

    with pytest.raises(ValueError, match="bytes 5 to 6 were skipped"):
        verifier.update(b"7", 6)

    assert verifier.position == 5


def test_size_and_digest_mismatches_are_different_errors() -> None:
    verifier = Verifier()
    verifier.update(b"12345")

    verifier.verify(None, None, "blob")
    with pytest.raises(SizeMismatch, match="blob: 5 bytes instead of 6"):
        verifier.verify(Digest.from_bytes(b"12345"), 6, "blob")
    with pytest.raises(DigestMismatch, match=f"blob: .*{DIGEST}"):
        verifier.verify(Digest.parse(DIGEST), 5, "blob")
    with pytest.raises(DigestMismatch):
        verifier.verify(Digest.from_bytes(b"12345", "sha512"), 5, "blob")


# Descriptors -------------------------------------------------------------------------------


def test_a_descriptor_is_read_and_written() -> None:
    entry = descriptor(
        urls=["https://elsewhere.example/layer"],
        annotations={"a": "b"},
        platform={"architecture": "arm", "os": "linux", "variant": "v7"},
        artifactType="application/x",
    )

    read = Descriptor.from_json(entry)

    assert read.to_json() == entry
    assert Descriptor.from_json(read.to_json()) == read
    assert read.platform == Platform("linux", "arm", "v7")
    assert hash(read) == hash(Descriptor.from_json(entry))


def test_a_bare_descriptor_stays_bare() -> None:
    assert Descriptor.from_json(descriptor()).to_json() == descriptor()


@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({"annotations": {"a": 5, "b": "c"}}, {"annotations": {"b": "c"}}),
        ({"annotations": ["a"]}, {}),
        ({"annotations": None, "platform": None, "urls": None, "artifactType": None}, {}),
        ({"platform": "linux/amd64"}, {}),
        ({"platform": {"os": 5}}, {"platform": {"architecture": "", "os": "5"}}),
        ({"unknown": {"deep": [1]}, "data": "aGk="}, {}),
        ({"artifactType": 5}, {"artifactType": "5"}),
    ],
)
def test_unused_invalid_fields_are_ignored(
    fields: dict[str, object], left_out: dict[str, object]
) -> None:
    read = Descriptor.from_json(descriptor(**fields))

    assert read.to_json() == descriptor(**left_out)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "text",
        {},
        descriptor(mediaType=None),
        descriptor(mediaType=""),
        descriptor(mediaType="no-slash"),
        descriptor(mediaType="a/b\r\nX: y"),
        descriptor(mediaType="a/b; c=d"),
        descriptor(mediaType=["a/b"]),
        descriptor(size=-1),
        descriptor(size=1.5),
        descriptor(size="7"),
        descriptor(size=True),
        descriptor(size=None),
        descriptor(digest=None),
        descriptor(digest="sha256:../x"),
        descriptor(digest={"a": 1}),
        descriptor(urls=5),
        descriptor(urls="https://x"),
        descriptor(urls=[5]),
    ],
)
def test_a_descriptor_that_cannot_be_used(entry: object) -> None:
    with pytest.raises((InvalidManifest, InvalidDigest)):
        Descriptor.from_json(entry)


@pytest.mark.parametrize(
    ("media_type", "is_manifest", "is_foreign"),
    [
        (OCI_MANIFEST, True, False),
        (DOCKER_MANIFEST_LIST, True, False),
        (OCI_CONFIG, False, False),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", False, True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", False, True),
    ],
)
def test_kinds_of_content(media_type: str, is_manifest: bool, is_foreign: bool) -> None:
    read = Descriptor.from_json(descriptor(mediaType=media_type))

    assert (read.is_manifest, read.is_foreign) == (is_manifest, is_foreign)


# Platforms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7"])
def test_platforms(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidManifest, match="not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("offered", "wanted", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm", "linux/arm/v7", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/arm64", "linux/amd64", False),
    ],
)
def test_a_variant_counts_only_if_it_was_asked_for(offered: str, wanted: str, fits: bool) -> None:
    assert Platform.parse(offered).matches(Platform.parse(wanted)) is fits


# Manifests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest(media_type: str) -> None:
    document = manifest(
        mediaType=media_type,
        subject=descriptor(size=9),
        annotations={"a": "b", "c": 5},
        artifactType="application/x",
    )
    body = json.dumps(document, indent=3).encode()

    read = Manifest.parse(body, f"{media_type}; charset=utf-8")

    assert read.body == body
    assert read.media_type == media_type
    assert read.digest == Digest.from_bytes(body)
    assert read.descriptor == Descriptor(media_type, Digest.from_bytes(body), len(body))
    assert [blob.size for blob in read.blobs()] == [7, 7]
    assert read.children() == ()
    assert not read.is_index
    assert read.subject is not None
    assert read.subject.size == 9
    assert read.annotations == {"a": "b"}
    assert read.artifact_type == "application/x"


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_MANIFEST_LIST])
def test_an_index(media_type: str) -> None:
    child = descriptor(mediaType=OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})

    read = parse(index(child, mediaType=media_type), media_type)

    assert read.is_index
    assert [str(each.platform) for each in read.children()] == ["linux/amd64"]
    assert read.blobs() == ()
    assert read.subject is None
    assert read.artifact_type == ""


@pytest.mark.parametrize(
    ("document", "served", "kind"),
    [
        (manifest(), "", OCI_MANIFEST),
        (index(), "", OCI_INDEX),
        (manifest(), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (index(), DOCKER_MANIFEST_LIST, DOCKER_MANIFEST_LIST),
        (manifest(mediaType=DOCKER_MANIFEST), "", DOCKER_MANIFEST),
        # Servers that call everything JSON or bytes are not asked.
        (manifest(mediaType=OCI_MANIFEST), "application/json", OCI_MANIFEST),
        (index(), "application/octet-stream", OCI_INDEX),
    ],
)
def test_the_kind_of_a_document(document: object, served: str, kind: str) -> None:
    assert parse(document, served).media_type == kind


@pytest.mark.parametrize(
    ("document", "served"),
    [
        pytest.param(index(layers=[]), "", id="an index with layers"),
        pytest.param(index(config=descriptor()), OCI_INDEX, id="an index with a config"),
        pytest.param(manifest(manifests=[]), OCI_MANIFEST, id="a manifest with manifests"),
        pytest.param(manifest(mediaType=OCI_MANIFEST), OCI_INDEX, id="served as an index"),
        pytest.param(index(mediaType=OCI_INDEX), OCI_MANIFEST, id="served as a manifest"),
        pytest.param(index(), OCI_MANIFEST, id="no list of layers"),
        pytest.param(manifest(), OCI_INDEX, id="no list of manifests"),
        pytest.param(
            manifest(mediaType=OCI_MANIFEST), DOCKER_MANIFEST_LIST, id="of the other class"
        ),
        pytest.param(manifest(layers=None), OCI_INDEX, id="a manifest without layers as index"),
        pytest.param({"config": descriptor()}, DOCKER_MANIFEST_LIST, id="a config, as a list"),
        pytest.param({"manifests": []}, DOCKER_MANIFEST, id="a list, as a manifest"),
        pytest.param(manifest(mediaType=OCI_ARTIFACT), "", id="an artifact with layers"),
        pytest.param(index(mediaType=OCI_ARTIFACT), "", id="an artifact with manifests"),
        pytest.param({"schemaVersion": 2}, "", id="of no kind"),
        pytest.param({"schemaVersion": 2}, "application/json", id="of no kind, as JSON"),
        pytest.param({"errors": [{"code": "X"}]}, OCI_MANIFEST, id="an error"),
        pytest.param({"layers": {}}, OCI_MANIFEST, id="layers that are an object"),
        pytest.param({"layers": 0}, OCI_MANIFEST, id="layers that are a number"),
        pytest.param({"manifests": False}, OCI_INDEX, id="manifests that are false"),
        pytest.param({"mediaType": OCI_ARTIFACT, "blobs": {}}, "", id="blobs that are no list"),
        pytest.param(manifest(mediaType="application/x"), "", id="an unknown kind"),
        pytest.param(manifest(mediaType=5), "", id="a mediaType that is a number"),
        pytest.param(manifest(mediaType=["a"]), OCI_MANIFEST, id="a mediaType that is a list"),
        pytest.param({"layers": "abc"}, "", id="layers that are no list"),
        pytest.param({"manifests": {"a": 1}}, "", id="manifests that are no list"),
        pytest.param({}, "", id="nothing"),
        pytest.param({"schemaVersion": 1, "fsLayers": []}, "", id="schema 1"),
        pytest.param([], "", id="a list"),
        pytest.param(None, "", id="null"),
        pytest.param("text", "", id="text"),
    ],
)
def test_a_document_that_could_be_taken_for_two_things_is_refused(
    document: object, served: str
) -> None:
    """CVE-2021-41190: what one client takes for an index another must not take for a manifest."""
    with pytest.raises(InvalidManifest) as excinfo:
        parse(document, served)

    assert str(excinfo.value).isprintable()


@pytest.mark.parametrize(
    "media_type", [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_MANIFEST_LIST]
)
@pytest.mark.parametrize("told", ["in it", "by others"])
@pytest.mark.parametrize(
    "fields", [{}, {"manifests": None}, {"layers": None, "config": None, "manifests": None}]
)
def test_a_list_that_is_null_or_missing_is_empty(
    media_type: str, told: str, fields: dict[str, object]
) -> None:
    """Go writes null for a list without entries, and leaves out what is marked so."""
    document = {"schemaVersion": 2, "subject": None, "annotations": None, **fields}
    if told == "in it":
        document["mediaType"] = media_type

    read = parse(document, "" if told == "in it" else media_type)

    assert read.media_type == media_type
    assert (read.blobs(), read.children()) == ((), ())
    assert (read.subject, read.annotations, read.artifact_type) == (None, {}, "")


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"manifests": None}, OCI_INDEX),
        ({"layers": None}, OCI_MANIFEST),
        ({"config": descriptor()}, OCI_MANIFEST),
    ],
)
def test_null_field_still_determines_the_type(document: object, kind: str) -> None:
    assert parse(document).media_type == kind


def test_a_config_without_layers_is_a_blob() -> None:
    read = parse({"schemaVersion": 2, "config": descriptor(), "layers": None}, OCI_MANIFEST)

    assert [blob.media_type for blob in read.blobs()] == [OCI_CONFIG]


@pytest.mark.parametrize(
    ("document", "served"),
    [
        (manifest(mediaType=OCI_MANIFEST), DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), f"{OCI_MANIFEST}; charset=utf-8"),
        (manifest(mediaType=OCI_MANIFEST), OCI_MANIFEST.upper()),
        (index(mediaType=OCI_INDEX), DOCKER_MANIFEST_LIST),
        (index(mediaType=DOCKER_MANIFEST_LIST), OCI_INDEX),
    ],
)
def test_a_name_of_the_other_family_is_no_contradiction(
    document: dict[str, object], served: str
) -> None:
    """What it calls itself counts: registries look at that when it is put."""
    assert parse(document, served).media_type == document["mediaType"]


def test_an_artifact_manifest_has_blobs() -> None:
    """They were in drafts of the image specification 1.1."""
    document = {
        "mediaType": OCI_ARTIFACT,
        "artifactType": "application/x",
        "blobs": [descriptor()],
        "subject": descriptor(size=9),
    }

    read = parse(document, OCI_ARTIFACT)

    assert [blob.size for blob in read.blobs()] == [7]
    assert (read.is_index, read.artifact_type) == (False, "application/x")
    assert read.descriptor.is_manifest
    assert parse({"mediaType": OCI_ARTIFACT, "blobs": None}).blobs() == ()


@pytest.mark.parametrize("name", ["Manifests", "LAYERS", "Config", "mediatype"])
def test_a_field_that_go_reads_as_another_one_is_refused(name: str) -> None:
    for document in (manifest(), index()):
        with pytest.raises(InvalidManifest, match=name):
            parse({**document, name: []})


def test_a_size_beyond_all_disks_is_refused() -> None:
    for size in (2**63, 10**4000):
        with pytest.raises(InvalidManifest, match="size"):
            Descriptor.from_json(descriptor(size=size))


def test_schema_1_says_what_to_do() -> None:
    with pytest.raises(InvalidManifest, match="schema 1") as excinfo:
        parse({"schemaVersion": 1, "fsLayers": []})

    assert "push the image again" in excinfo.value.remedy


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"layers": ' + b"9" * 5000 + b"}",
        b"{} {}",
        b'{"layers": [], "layers": []}',
        json.dumps(manifest()).encode("utf-16"),
    ],
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.parse(body)


@pytest.mark.parametrize(
    "document",
    [
        manifest(layers=[5]),
        manifest(config="text"),
        manifest(layers=[descriptor(urls=5)]),
        index("text"),
        index(descriptor(digest="sha256:x")),
    ],
)
def test_invalid_entry_is_an_error_when_it_is_accessed(document: object) -> None:
    read = parse(document)

    with pytest.raises((InvalidManifest, InvalidDigest)):
        read.children() or read.blobs()


def test_a_manifest_without_a_config_has_its_layers() -> None:
    read = parse({"layers": [descriptor()]})

    assert len(read.blobs()) == 1
    assert read.artifact_type == ""


def test_invalid_subject_is_refused() -> None:
    with pytest.raises(InvalidManifest):
        _ = parse(manifest(subject=5)).subject


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, OCI_CONFIG),
        ({"artifactType": ""}, OCI_CONFIG),
        ({"artifactType": 5}, OCI_CONFIG),
        ({"config": "x"}, ""),
        ({"config": {"mediaType": 5}}, ""),
    ],
)
def test_an_artifacts_type_may_be_its_configs(fields: dict[str, object], kind: str) -> None:
    assert parse(manifest(**fields)).artifact_type == kind


def test_an_index_that_keeps_some_of_its_children() -> None:
    entries = [descriptor(mediaType=OCI_MANIFEST, digest=f"sha256:{n * 64}") for n in "abc"]
    whole = parse(index(*entries, annotations={"kept": "yes"}), OCI_INDEX)

    some = whole.with_children(whole.children()[1:])

    assert [child.digest.hex[0] for child in some.children()] == ["b", "c"]
    assert some.annotations == {"kept": "yes"}
    assert some.digest != whole.digest
    assert len(whole.children()) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["mediaType", "config", "layers", "manifests", "digest", "size", "urls"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@UNTIMED
@given(JSON, st.sampled_from(["", OCI_INDEX, OCI_MANIFEST, "x"]))
def test_no_document_raises_anything_but_ours(document: object, served: str) -> None:
    with contextlib.suppress(ConcilError):
        read = parse(document, served)
        read.children()
        read.blobs()
        _ = read.subject


@UNTIMED
@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_ours(body: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.parse(body)
