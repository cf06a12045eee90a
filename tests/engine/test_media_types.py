"""Everything that registries hold goes through unchanged, whatever its types say it is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import InvalidManifest
from concil.server import EmbeddedRegistry
from tests.engine.image_stores import ImageStore
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    DOCKER,
    OCI,
    Image,
    MediaTypes,
    assert_same_image,
    digest_of,
    get_manifest,
    make_image,
    make_index,
    put_image,
)
from tests.support.referrers import EMPTY, EMPTY_TYPE, make_cosign_artifact, make_referrer
from tests.support.scripted_server import ScriptedServer, reply


def artifact(config: tuple[str, bytes], layers: list[tuple[str, bytes]], **fields: object) -> Image:
    """Build a manifest of any types, written as nobody else writes it."""

    def described(kind: str, content: bytes) -> dict[str, object]:
        return {"digest": digest_of(content), "mediaType": kind, "size": len(content)}

    document = {
        **fields,
        "layers": [described(*layer) for layer in layers],
        "config": described(*config),
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
    }
    body = json.dumps(document, indent=5).encode() + b"\n\n"
    return Image(OCI.manifest, body, {digest_of(c): c for _, c in (config, *layers)})


pytestmark = pytest.mark.threads_only

PARTS = [make_image(n, platform=f"linux/{p}") for n, p in enumerate(("amd64", "arm64"))]
DOCKER_PARTS = [make_image(n, types=DOCKER) for n in (7, 8)]
HELM = artifact(
    ("application/vnd.cncf.helm.config.v1+json", b'{"name":"chart","version":"1.0.0"}'),
    [
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"a chart"),
        ("application/vnd.cncf.helm.chart.provenance.v1.prov", b"its provenance"),
    ],
    annotations={"org.opencontainers.image.title": "chart"},
)
WASM = artifact(
    ("application/vnd.wasm.config.v0+json", b'{"architecture":"wasm","os":"wasip1"}'),
    [("application/wasm", b"\0asm\1\0\0\0")],
)
BARE = artifact(
    (EMPTY_TYPE, EMPTY), [(EMPTY_TYPE, EMPTY)], artifactType="application/vnd.example.note"
)
UNKNOWN = artifact(
    ("application/x-odd", b"1"),
    [("application/x-other", b"2")],
    **{"org.example.field": {"kept": [None, 1.5, "\u00e9"]}},
)
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":null,"history":null}'


def written(document: dict[str, object], types: MediaTypes = OCI, *children: Image) -> Image:
    """Build a manifest with a config and no layers, or an index, of just these fields."""
    is_index = bool(children) or "manifests" in document or document.get("mediaType") == types.index
    config: dict[str, object] = {"mediaType": types.config, "digest": digest_of(CONFIG)}
    first = {} if is_index else {"config": {**config, "size": len(CONFIG)}}
    body = json.dumps({"schemaVersion": 2, **first, **document}).encode()
    blobs = {} if is_index else {digest_of(CONFIG): CONFIG}
    return Image(types.index if is_index else types.manifest, body, blobs, children)


def listed_as(image: Image, media_type: str) -> dict[str, object]:
    """Return an entry that calls an image by the other family's name."""
    return {**image.descriptor(), "mediaType": media_type}


NULLS: dict[str, object] = {
    "annotations": None,
    "subject": None,
    "artifactType": None,
    "mediaType": None,
}
NESTED = {t: make_index(p, types=t) for t, p in ((OCI, PARTS), (DOCKER, DOCKER_PARTS))}
NOTHING = {
    "layers null": written({"mediaType": OCI.manifest, "layers": None}),
    "no layers": written({"mediaType": OCI.manifest}),
    "layers empty": written({"mediaType": OCI.manifest, "layers": []}),
    "nulls": written({**NULLS, "layers": None}),
    "docker, layers null": written({"mediaType": DOCKER.manifest, "layers": None}, DOCKER),
    "docker, no layers": written({"mediaType": DOCKER.manifest}, DOCKER),
    "manifests null": written({"mediaType": OCI.index, "manifests": None}),
    "no manifests": written({"mediaType": OCI.index}),
    "nulls of an index": written(
        {**NULLS, "mediaType": OCI.index, "manifests": None, "layers": None, "config": None}
    ),
    "docker list, null": written({"mediaType": DOCKER.index, "manifests": None}, DOCKER),
    "docker list, none": written({"mediaType": DOCKER.index}, DOCKER),
    "nulls of an entry": written(
        {
            "mediaType": OCI.index,
            "manifests": [
                {**PARTS[0].descriptor(), "platform": None, "urls": None, "annotations": None}
            ],
        },
        OCI,
        PARTS[0],
    ),
}
MIXED = {
    "docker listed as oci": written(
        {"mediaType": OCI.index, "manifests": [listed_as(DOCKER_PARTS[0], OCI.manifest)]},
        OCI,
        DOCKER_PARTS[0],
    ),
    "oci listed as docker": written(
        {"mediaType": DOCKER.index, "manifests": [listed_as(PARTS[0], DOCKER.manifest)]},
        DOCKER,
        PARTS[0],
    ),
    "docker list listed as oci": written(
        {"mediaType": OCI.index, "manifests": [listed_as(NESTED[DOCKER], OCI.index)]},
        OCI,
        NESTED[DOCKER],
    ),
    "oci index listed as docker": written(
        {"mediaType": OCI.index, "manifests": [listed_as(NESTED[OCI], DOCKER.index)]},
        OCI,
        NESTED[OCI],
    ),
}
SHAPES = {
    **NOTHING,
    **MIXED,
    "artifact": BARE,
    "helm chart": HELM,
    "wasm": WASM,
    "unknown types and fields": UNKNOWN,
    "cosign": make_cosign_artifact(),
    "docker": DOCKER_PARTS[0],
    "docker list": make_index(DOCKER_PARTS, types=DOCKER),
    "nested indexes": make_index([make_index([make_index(PARTS)]), PARTS[0]]),
    "both families": make_index([PARTS[0], DOCKER_PARTS[0], HELM]),
    "index of a type": make_index(
        PARTS,
        subject=HELM,
        fields={"artifactType": "application/vnd.example.set", "annotations": {"a": "b"}},
    ),
    "empty index": make_index([], fields={"artifactType": "application/vnd.example.nothing"}),
    "referrer": make_referrer(HELM),
}


@pytest.mark.real
@pytest.mark.parametrize("image", SHAPES.values(), ids=SHAPES.keys())
def test_image_is_copied_through_registries_and_a_layout_byte_for_byte(
    engine: Engine,
    docker_registry: DockerRegistry,
    repository: str,
    image: Image,
    tmp_path: Path,
) -> None:
    with EmbeddedRegistry(tmp_path / "served") as embedded:
        put_image(docker_registry.url, repository, "v1", image)
        stations = [
            f"{docker_registry.url}/{repository}:v1",
            f"{embedded.url}/app:v1",
            f"oci:{tmp_path}/layout:v1",
            f"{docker_registry.url}/{repository}/back:v1",
        ]
        digests = {
            str(engine.copy(source, target).digest)
            for source, target in itertools.pairwise(stations)
        }

        assert digests == {image.digest}
        assert_same_image(embedded.url, "app", "v1", image)
    ImageStore("", layout=tmp_path / "layout").assert_same(image, "v1")
    assert_same_image(docker_registry.url, f"{repository}/back", "v1", image)


def test_smaller_index_keeps_all_but_the_entries(
    engine: Engine, embedded: EmbeddedRegistry
) -> None:
    parts = [*PARTS, make_image(3, platform="linux/s390x")]
    fields = {"artifactType": "application/x-set", "annotations": {"a": "b"}, "odd": [1]}
    notes = {"annotations": {"of": "the entry"}, "odd": {"x": 1}}
    image = make_index(parts, subject=HELM, fields=fields, entries={parts[0].digest: notes})
    put_image(embedded.url, "from", "v1", image)

    result = engine.copy(
        f"{embedded.url}/from:v1",
        f"{embedded.url}/to:v1",
        platforms=["linux/amd64", "linux/s390x"],
    )

    document = json.loads(image.manifest)
    document["manifests"] = [document["manifests"][0], document["manifests"][2]]
    assert json.loads(get_manifest(embedded.url, "to", str(result.digest))) == document


@pytest.mark.real
def test_registry_that_wants_all_an_index_lists_takes_a_smaller_one(
    engine: Engine, docker_registry: DockerRegistry, repository: str
) -> None:
    child, other = PARTS
    attestations = [make_image(n, platform="unknown/unknown") for n in (21, 22)]
    about = {
        each.digest: {"annotations": {"vnd.docker.reference.digest": part.digest}}
        for each, part in zip(attestations, PARTS, strict=True)
    }
    third, fourth = make_image(31, platform="linux/arm/v6"), make_image(32, platform="linux/arm/v7")
    image = make_index([child, other, third, fourth, *attestations], entries=about)
    source = f"{docker_registry.url}/{repository}"
    put_image(docker_registry.url, repository, "v1", image)

    result = engine.copy(
        f"{source}:v1", f"{source}/to:v1", platforms=["linux/amd64", "linux/arm/v7"]
    )

    (note,) = result.notes
    assert note.startswith("the index is rewritten for linux/amd64, linux/arm/v7: sha256:")
    index = json.loads(get_manifest(docker_registry.url, f"{repository}/to", "v1"))
    listed = json.loads(image.manifest)["manifests"]
    assert index["manifests"] == [listed[0], listed[3], listed[4]]
    for each in (child, fourth, attestations[0]):
        assert_same_image(docker_registry.url, f"{repository}/to", each.digest, each)


def test_schema_1_is_refused_by_name(engine: Engine, embedded: EmbeddedRegistry) -> None:
    document = {
        "schemaVersion": 1,
        "name": "old",
        "tag": "v1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": digest_of(EMPTY)}],
        "history": [{"v1Compatibility": "{}"}],
    }
    signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with ScriptedServer() as registry:
        answer = reply(body=json.dumps(document, indent=3), Content_Type=signed)
        registry.respond("HEAD", "/v2/old/manifests/v1", answer)
        registry.respond("GET", "/v2/old/manifests/v1", answer)

        with pytest.raises(InvalidManifest, match=r"old: manifest v1: .* schema 1 ") as excinfo:
            engine.copy(f"{registry.url}/old:v1", f"{embedded.url}/old:v1")

    assert "push the image again" in excinfo.value.remedy
