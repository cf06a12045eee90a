"""Manifests of artifacts are those that oras writes, byte for byte."""

from __future__ import annotations

import json

import pytest

from concil.errors import UsageError
from concil.oci.artifact import CREATED, build_manifest, layer_descriptor
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest

TIME = {CREATED: "2026-01-01T00:00:00Z"}


def blob(content: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.from_bytes(content), len(content))


def test_manifest_has_the_digest_that_oras_gives_it() -> None:
    # oras push REF hi.txt c.json:application/json --artifact-type application/vnd.example+type
    layers = [
        layer_descriptor(blob(b"hello\n"), "hi.txt"),
        layer_descriptor(blob(b"{}\n"), "c.json", "application/json"),
    ]
    manifest = build_manifest(
        layers,
        artifact_type="application/vnd.example+type",
        annotations={**TIME, "note": 'a<b & "ü"'},
    )

    assert str(manifest.digest) == (
        "sha256:d59adc17136793b983667e4b637e8d56316782e3e8be24618a125cfff8ab591b"
    )


def test_attached_manifest_has_the_digest_that_oras_gives_it() -> None:
    # oras attach REF hi.txt --artifact-type application/vnd.example+sig
    subject = Descriptor(
        "application/vnd.oci.image.manifest.v1+json",
        Digest.parse("sha256:d59adc17136793b983667e4b637e8d56316782e3e8be24618a125cfff8ab591b"),
        792,
    )
    manifest = build_manifest(
        [layer_descriptor(blob(b"hello\n"), "hi.txt")],
        artifact_type="application/vnd.example+sig",
        annotations=TIME,
        subject=subject,
    )

    assert str(manifest.digest) == (
        "sha256:7d1d727f2b84eb58ac40e390b3bd78845c186ee1c0ec80bc54f42cdb4fcabfa2"
    )


def test_artifact_without_files_has_an_empty_layer() -> None:
    document = json.loads(build_manifest([], annotations={"a": "b"}).body)

    assert document["layers"] == [document["config"]]
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert document["artifactType"] == "application/vnd.unknown.artifact.v1"
    assert set(document["annotations"]) == {"a", CREATED}


@pytest.mark.parametrize("artifact_type", ["x", "a b/c", "a/b;c=d", "a/b/c", "/x", "a/"])
def test_invalid_artifact_type_is_refused(artifact_type: str) -> None:
    with pytest.raises(UsageError, match="artifact type"):
        build_manifest([], artifact_type=artifact_type)


@pytest.mark.parametrize(
    "annotations",
    [
        {"": "x"},
        {"a": "\udc80"},
        {CREATED: "yesterday"},
        {CREATED: "2026-01-01"},
        {CREATED: "2026-01-01T00:00:00"},
    ],
)
def test_invalid_annotation_is_refused(annotations: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        build_manifest([], annotations=annotations)
