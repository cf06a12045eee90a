"""One image is copied whole or not at all, and nothing that is there is moved."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from concil.content import DOCKER_LIST, Digest, Manifest
from concil.errors import (
    AccessDenied,
    Cancelled,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    SizeMismatch,
)
from concil.progress import State
from concil.store.layout import Layout, LayoutStore
from concil.transfer.image import ImageJob, joined
from tests.lab.images import make_image, make_index
from tests.store.faults import BreaksRead, Corrupts, LosesChunk, RefusesRequests
from tests.store.memory import MemoryStore
from tests.transfer.imaging import (
    Lab,
    assert_same,
    index_document,
    load,
    platforms_of,
    put_document,
)
from tests.transfer.world import ALWAYS

AMD64, ARM64, V7 = "linux/amd64", "linux/arm64", "linux/arm/v7"
IMAGE = make_index([platforms_of(AMD64, ARM64), make_image(9, (2_500,), platform=V7)])
BLOBS = IMAGE.all_blobs()
SIZE = sum(map(len, BLOBS.values()))


class Ordered(MemoryStore):
    """A repository that remembers in which order manifests came."""

    def __init__(self, lab: Lab, name: str) -> None:
        super().__init__(lab.host, name)
        self.put: list[str] = []

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        super().put_manifest(manifest, reference)
        self.put.append(reference)


def test_image_arrives_byte_for_byte_and_each_blob_once(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")

    result = lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert_same(lab.target(), "v1", IMAGE)
    assert (result.state, str(result.digest)) == (State.DONE, IMAGE.digest)
    assert (result.subject, result.target) == ("origin/app:v1", "target/app:v1")
    assert (result.sent, lab.host.received, lab.origin.served) == (SIZE, SIZE, SIZE)
    assert (result.manifests, len(result.blobs)) == (5, len(BLOBS))


def test_manifests_come_after_what_they_list_and_the_tag_last(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    target = Ordered(lab, "app")

    lab.copier.copy(lab.job(lab.source(), target))

    # The store in memory refuses a manifest whose parts it has not.
    assert target.put == [each.digest for each in list(IMAGE.walk())[:-1]] + ["v1"]


def test_image_that_is_there_costs_one_request_on_each_side(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    lab.copier.copy(lab.job(lab.source(), lab.target()))
    lab.forget_requests()

    result = lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert (result.state, str(result.digest), result.sent) == (State.PRESENT, IMAGE.digest, 0)
    assert lab.origin.requests == lab.host.requests == {"HEAD manifest": 1}


def test_newer_image_moves_only_what_is_new(lab: Lab) -> None:
    old = make_index([make_image(1, platform=AMD64), make_image(2, platform=ARM64)])
    new = make_index([make_image(1, platform=AMD64), make_image(3, platform=ARM64)])
    load(lab.source(), old, "v1")
    lab.copier.copy(lab.job(lab.source(), lab.target()))
    load(lab.source(), new, "v1")
    lab.forget_requests()

    result = lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert_same(lab.target(), "v1", new)
    fresh = {k: v for k, v in new.all_blobs().items() if k not in old.all_blobs()}
    assert lab.host.received == result.sent == sum(map(len, fresh.values()))
    assert lab.origin.requests["GET manifest"] == 2  # the index, and the one child that is new


def test_one_platform_is_copied_as_the_image_itself(lab: Lab) -> None:
    image = platforms_of(AMD64, ARM64)
    load(lab.source(), image, "v1")

    result = lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", ARM64))

    assert_same(lab.target(), "v1", image.children[1])
    assert str(result.digest) == image.children[1].digest
    again = lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", ARM64))
    assert again.state is State.PRESENT


def test_some_platforms_are_copied_as_a_smaller_index(lab: Lab) -> None:
    image = platforms_of(AMD64, ARM64, V7)
    load(lab.source(), image, "v1")

    result = lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", AMD64, V7))

    index = lab.target().manifests[lab.target().names["v1"]]
    assert [str(child.digest) for child in index.children()] == [
        image.children[0].digest,
        image.children[2].digest,
    ]
    assert result.digest == index.digest
    assert len(lab.target().manifests) == 3


def test_platform_that_is_not_there_moves_nothing(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")

    with pytest.raises(NotFound):
        lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", "linux/s390x"))

    assert lab.host.received == 0
    assert lab.target().names == {}


def test_index_of_which_the_source_has_only_a_part_is_told_with_a_remedy(lab: Lab) -> None:
    image = platforms_of(AMD64, ARM64)
    load(lab.source(), image, "v1")
    gone = image.children[1].digest
    del lab.source().manifests[Digest.parse(gone)]

    with pytest.raises(NotFound, match=f"app:v1: .* lists {gone} for {ARM64}") as caught:
        lab.copier.copy(lab.job(lab.source(), lab.target()))
    part = lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", AMD64))

    assert "platforms=" in caught.value.remedy
    assert str(part.digest) == image.children[0].digest


def test_image_that_is_not_there_is_an_error_of_the_source(lab: Lab) -> None:
    with pytest.raises(NotFound, match="origin/app"):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert lab.sink.states("origin/app:v1") == [State.FAILED]
    assert lab.host.requests == {}


def test_failed_image_leaves_the_old_tag(lab: Lab) -> None:
    old = make_image(50)
    load(lab.target(), old, "v1")
    load(lab.source(), IMAGE, "v1")
    lab.origin.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))

    with pytest.raises(AccessDenied):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert_same(lab.target(), "v1", old)
    assert lab.host.requests["PUT manifest"] == 0


def test_image_arrives_in_spite_of_losses_on_both_sides(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    lab.origin.faults += [BreaksRead(at=at, times=3) for at in (1, 700, 1_000, 2_000)]
    lab.host.faults += [LosesChunk(at=at, keeping=at // 2, times=2) for at in (0, 999, 1_500)]

    lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert_same(lab.target(), "v1", IMAGE)


def test_wrong_bytes_fail_the_image(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    lab.origin.faults.append(Corrupts(at=1_200, times=ALWAYS))

    with pytest.raises(DigestMismatch):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert lab.target().names == {}
    for digest, blob in dict(lab.target().blobs).items():
        assert Digest.of(blob) == digest


def test_copy_within_a_registry_mounts_and_moves_nothing(lab: Lab) -> None:
    load(lab.target("one"), IMAGE, "v1")

    result = lab.copier.copy(lab.job(lab.target("one"), lab.target("two")))

    assert_same(lab.target("two"), "v1", IMAGE)
    assert {landed.state for landed in result.blobs} == {State.MOUNTED}
    assert (result.sent, lab.host.received, lab.host.served) == (0, 0, 0)


def test_new_tag_in_the_same_repository_moves_nothing(lab: Lab) -> None:
    load(lab.target(), IMAGE, "v1")
    job = ImageJob(lab.target(), "v1", lab.target(), "v2")

    result = lab.copier.copy(job)

    assert_same(lab.target(), "v2", IMAGE)
    assert {landed.state for landed in result.blobs} == {State.PRESENT}
    assert lab.host.requests["POST mount"] == lab.host.received == 0


def test_mount_that_is_refused_is_an_upload(lab: Lab) -> None:
    load(lab.target("one"), IMAGE, "v1")
    lab.host.faults.append(RefusesRequests("POST mount", times=ALWAYS))

    result = lab.copier.copy(lab.job(lab.target("one"), lab.target("two")))

    assert_same(lab.target("two"), "v1", IMAGE)
    assert result.sent == SIZE


def test_blobs_that_are_there_are_not_sent(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    load(lab.target(), make_image(77), "v1")  # of another image: only configs are sent unasked
    digest, blob = max(BLOBS.items(), key=lambda item: len(item[1]))
    lab.target().blobs[Digest.parse(digest)] = blob

    result = lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert result.sent == lab.host.received == SIZE - len(blob)
    assert [b.state for b in result.blobs].count(State.PRESENT) == 1


@pytest.mark.parametrize("platforms", [(), (AMD64,)])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size": 7}, SizeMismatch),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, InvalidManifest),
        ({"mediaType": DOCKER_LIST}, InvalidManifest),
    ],
)
def test_manifest_that_is_not_as_its_index_says_fails_the_image(
    lab: Lab, platforms: tuple[str, ...], changes: dict[str, object], error: type[Exception]
) -> None:
    child = make_image(4)
    load(lab.source(), child)
    put_document(lab.source(), index_document([{**child.descriptor(), **changes}]), "v1")

    with pytest.raises(error):
        lab.copier.copy(lab.job(lab.source(), lab.target(), "v1", *platforms))

    assert lab.host.received == 0
    assert lab.target().names == {}


def test_digest_of_another_algorithm_is_kept(lab: Lab) -> None:
    image = make_image(5)
    load(lab.source(), image)
    digest = Digest("sha512", hashlib.sha512(image.manifest).hexdigest())
    lab.source().manifests[digest] = Manifest.parse(image.manifest)

    result = lab.copier.copy(lab.job(lab.source(), lab.target(), str(digest)))

    assert result.digest == digest
    assert lab.target().manifests[digest].body == image.manifest


def test_image_goes_into_a_layout_and_out_again(lab: Lab, tmp_path: Path) -> None:
    load(lab.source(), IMAGE, "v1")
    layout = LayoutStore(Layout(tmp_path / "layout", create=True))

    into = lab.copier.copy(ImageJob(lab.source(), "v1", layout, "kept"))
    out = lab.copier.copy(ImageJob(layout, "kept", lab.target(), "v1"))

    assert into.digest == out.digest
    assert_same(lab.target(), "v1", IMAGE)
    assert list(layout.tags()) == ["kept"]


def test_layers_listed_in_an_index_are_copied(lab: Lab, tmp_path: Path) -> None:
    child = make_image(6)
    load(lab.source(), child)
    layer = Digest.of(b"a cached layer")
    lab.source().blobs[layer] = b"a cached layer"
    cached = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": str(layer),
        "size": len(b"a cached layer"),
    }
    put_document(lab.source(), index_document([cached, child.descriptor()]), "v1")
    layout = LayoutStore(Layout(tmp_path / "layout", create=True))

    lab.copier.copy(ImageJob(lab.source(), "v1", layout, "v1"))

    assert layout.layout.read_blob(layer, 100) == b"a cached layer"


def test_cancel_ends_a_copy(lab: Lab) -> None:
    load(lab.source(), IMAGE, "v1")
    lab.source().on_read = lambda position: lab.pool.cancel.set()

    with pytest.raises(Cancelled):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert lab.target().names == {}


def test_events_tell_what_becomes_of_an_image_and_its_blobs(lab: Lab) -> None:
    load(lab.source(), make_image(1, (3_000,)), "v1")

    lab.copier.copy(lab.job(lab.source(), lab.target()))

    assert lab.sink.states("origin/app:v1") == [State.STARTED, State.DONE]
    for digest in make_image(1, (3_000,)).blobs:
        states = lab.sink.states(digest)
        assert states[-1] is State.DONE
        assert State.STARTED in states
    blobs = [e for e in lab.sink.events if e.kind == "blob" and e.state is State.DONE]
    assert all(event.position == event.total for event in blobs)


def test_failed_blob_is_told_with_its_reason(lab: Lab) -> None:
    load(lab.source(), make_image(1, (3_000,)), "v1")
    lab.origin.faults.append(RefusesRequests("GET blob", AccessDenied("not yours"), times=ALWAYS))

    with pytest.raises(AccessDenied):
        lab.copier.copy(lab.job(lab.source(), lab.target()))

    failed = [event for event in lab.sink.events if event.state is State.FAILED]
    assert {event.kind for event in failed} == {"blob", "image"}
    assert all("not yours" in event.detail for event in failed)


@pytest.mark.parametrize(
    ("reference", "text"),
    [("", "host/app"), ("v1", "host/app:v1"), ("sha256:12", "host/app@sha256:12")],
)
def test_images_are_named_as_people_write_them(reference: str, text: str) -> None:
    assert joined("host/app", reference) == text
