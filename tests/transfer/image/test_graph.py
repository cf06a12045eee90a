"""Which manifests belong to an image, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from concil.errors import InvalidManifest, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_MANIFEST
from concil.oci.platform import Platform
from concil.transfer.image.graph import (
    MAX_BLOBS,
    MAX_DEPTH,
    MAX_MANIFEST_BYTES,
    MAX_MANIFESTS,
    GraphReader,
    Node,
    select_platforms,
)
from concil.transfer.image.job import ForeignLayers, ImagePlan
from tests.support.images import Image, make_image, make_index
from tests.transfer.image_copies import index_document, platforms_of

AMD64, ARM64, V7 = "linux/amd64", "linux/arm64", "linux/arm/v7"
INDEX = platforms_of(AMD64, ARM64, V7)
ROOT = Manifest.parse(INDEX.manifest)


def wanted(*names: str) -> list[Platform]:
    """Read platforms."""
    return [Platform.parse(name) for name in names]


def manifest_of(document: object) -> Manifest:
    """Return a manifest of any content."""
    return Manifest.parse(json.dumps(document).encode())


def fetcher(image: Image) -> Callable[[Sequence[Descriptor]], list[Manifest | None]]:
    """Return what fetches manifests below an image."""
    held = {each.digest: Manifest.parse(each.manifest) for each in image.walk()}
    return lambda level: [held[str(each.digest)] for each in level]


def blobs_of(node: Node) -> dict[Digest, Descriptor]:
    """The blobs of an image whose foreign layers stay where they are."""
    return ImagePlan(node).blobs(ForeignLayers.SKIP)


def test_without_a_wish_everything_is_copied() -> None:
    assert select_platforms(ROOT, [], "x") is ROOT


def test_manifest_for_one_platform_is_what_it_is() -> None:
    single = Manifest.parse(INDEX.children[0].manifest)

    assert select_platforms(single, wanted("windows/amd64"), "x") is single


def test_one_platform_is_the_image_itself() -> None:
    pick = select_platforms(ROOT, wanted(ARM64), "x")

    assert isinstance(pick, Descriptor)
    assert str(pick.digest) == INDEX.children[1].digest


def test_some_platforms_are_an_index_in_its_own_order() -> None:
    pick = select_platforms(ROOT, wanted(V7, AMD64), "x")

    assert isinstance(pick, Manifest)
    assert [str(c.digest) for c in pick.children()] == [
        INDEX.children[0].digest,
        INDEX.children[2].digest,
    ]
    assert pick.media_type == ROOT.media_type


def test_all_platforms_leave_the_index_as_it_is() -> None:
    assert select_platforms(ROOT, wanted(V7, AMD64, ARM64, AMD64), "x") is ROOT


def test_variant_counts_only_if_it_was_asked_for() -> None:
    pick = select_platforms(ROOT, wanted("linux/arm"), "x")

    assert isinstance(pick, Descriptor)
    assert str(pick.digest) == INDEX.children[2].digest
    with pytest.raises(NotFound):
        select_platforms(ROOT, wanted("linux/arm/v6"), "x")


def test_platform_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(NotFound, match="the image: no image for linux/s390x") as raised:
        select_platforms(ROOT, wanted(AMD64, "linux/s390x"), "the image")

    assert raised.value.remedy == "it is for linux/amd64, linux/arm/v7, linux/arm64"


def test_index_without_platforms_says_so() -> None:
    children = [Manifest.parse(INDEX.children[0].manifest).descriptor.to_json()]

    with pytest.raises(NotFound) as raised:
        select_platforms(manifest_of(index_document(children)), wanted(AMD64), "x")

    assert raised.value.remedy == "it is for no platform"


def attested() -> Manifest:
    """Return the index with an attestation for each platform, as BuildKit writes it."""
    entries = [dict(c.to_json()) for c in ROOT.children()]
    for number, child in enumerate(ROOT.children()):
        about = {
            "vnd.docker.reference.digest": str(child.digest),
            "vnd.docker.reference.type": "attestation-manifest",
        }
        entries.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(Digest.from_bytes(b"attestation %d" % number)),
                "size": 99,
                "annotations": about,
                "platform": {"os": "unknown", "architecture": "unknown"},
            }
        )
    return manifest_of(index_document(entries))


def test_attestations_go_with_their_platforms() -> None:
    root = attested()

    pick = select_platforms(root, wanted(AMD64, V7), "x")

    assert isinstance(pick, Manifest)
    assert [str(c.digest) for c in pick.children()] == [
        str(root.children()[n].digest) for n in (0, 2, 3, 5)
    ]


def test_all_platforms_with_their_attestations_are_everything() -> None:
    root = attested()

    assert select_platforms(root, wanted(AMD64, ARM64, V7), "x") is root


def test_children_are_put_before_their_parents() -> None:
    inner = make_index([make_image(8), make_image(9)])
    image = make_index([make_image(7), inner])
    root = Manifest.parse(image.manifest)

    node = GraphReader(fetcher(image), "x").read(root, root.digest)

    assert [str(each.digest) for each in node.walk()] == [each.digest for each in image.walk()]
    assert {str(digest) for digest in blobs_of(node)} == set(image.all_blobs())


def test_manifests_that_are_not_needed_are_left_out() -> None:
    node = GraphReader(lambda level: [None for _ in level], "x").read(ROOT, ROOT.digest)

    assert node == Node(ROOT, ROOT.digest)
    assert blobs_of(node) == {}


def test_layers_listed_in_an_index_are_blobs() -> None:
    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.from_bytes(b"layer"), 5)
    foreign = Descriptor(
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Digest.from_bytes(b"elsewhere"),
        9,
    )
    child = make_image(3)
    document = index_document([layer.to_json(), foreign.to_json(), child.descriptor()])

    node = GraphReader(fetcher(child), "x").read(manifest_of(document), Digest.from_bytes(b""))

    assert set(blobs_of(node)) == {layer.digest, *map(Digest.parse, child.all_blobs())}
    assert len(list(node.walk())) == 2


def nested(depth: int) -> Image:
    """Return an image below so many indexes."""
    image = make_image(5)
    for _ in range(depth):
        image = make_index([image])
    return image


def test_indexes_nest_as_deep_as_any_image_does_and_no_deeper() -> None:
    reader = GraphReader(fetcher(nested(MAX_DEPTH)), "x")
    root = Manifest.parse(nested(MAX_DEPTH).manifest)
    assert len(list(reader.read(root, root.digest).walk())) == MAX_DEPTH + 1

    deeper = nested(MAX_DEPTH + 1)
    root = Manifest.parse(deeper.manifest)
    with pytest.raises(InvalidManifest, match="are nested more than"):
        GraphReader(fetcher(deeper), "x").read(root, root.digest)


def test_index_that_lists_itself_over_and_over_is_refused_before_it_is_fetched() -> None:
    fetched = 0

    def fetch(level: Sequence[Descriptor]) -> list[Manifest | None]:
        nonlocal fetched
        fetched += len(level)
        return [endless for _ in level]

    entry = {"mediaType": ROOT.media_type, "digest": str(ROOT.digest), "size": 1}
    endless = manifest_of(index_document([entry] * 10))
    entry["size"] = len(endless.body)
    for _ in range(3):  # the size has digits too
        endless = manifest_of(index_document([entry] * 10))
        entry["size"] = len(endless.body)

    with pytest.raises(InvalidManifest, match="are nested more than"):
        GraphReader(fetch, "x").read(endless, endless.digest)

    assert fetched <= MAX_MANIFESTS


def layers(first: int, count: int) -> dict[str, object]:
    """A manifest of layers that are numbered."""
    digests = (f"sha256:{number:064x}" for number in range(first, first + count))
    return {"layers": [{"mediaType": "a/b", "digest": one, "size": 1} for one in digests]}


@pytest.mark.parametrize(("first", "fits"), [(0, True), (1, False)])
def test_an_image_of_more_blobs_than_any_is_refused(first: int, fits: bool) -> None:
    """What several platforms have in common counts once."""
    children = [manifest_of(layers(0, MAX_BLOBS)), manifest_of(layers(first, MAX_BLOBS))]
    entries = [
        {"mediaType": c.media_type, "digest": str(c.digest), "size": len(c.body)} for c in children
    ]
    root = manifest_of(index_document(entries))

    def fetch(level: Sequence[Descriptor]) -> list[Manifest | None]:
        return [*children] if level else []

    reader = GraphReader(fetch, "x")
    if fits:
        node = reader.read(root, root.digest)
        assert len(ImagePlan(node).blobs(ForeignLayers.SKIP)) == MAX_BLOBS
        return
    with pytest.raises(InvalidManifest, match=f"more than {MAX_BLOBS} different blobs"):
        reader.read(root, root.digest)


def test_manifests_that_would_fill_the_memory_are_not_fetched() -> None:
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": f"sha256:{'0' * 64}",
        "size": MAX_MANIFEST_BYTES // 2 + 1,
    }
    root = manifest_of(index_document([entry, entry]))

    def fetch(_level: Sequence[Descriptor]) -> list[Manifest | None]:
        raise AssertionError("fetched")

    with pytest.raises(InvalidManifest, match=str(MAX_MANIFEST_BYTES)):
        GraphReader(fetch, "x").read(root, root.digest)
