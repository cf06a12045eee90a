"""One image is copied whole or not at all, and nothing that is there is moved."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from concil.errors import (
    AccessDenied,
    Cancelled,
    DigestMismatch,
    InvalidManifest,
    NotFound,
    SizeMismatch,
)
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import DOCKER_MANIFEST_LIST
from concil.progress.events import State
from concil.store.layout.store import LayoutDirectory, LayoutStore
from concil.transfer.image.copier import ImageJob, image_name
from tests.support.images import make_image, make_index
from tests.support.store_faults import BreaksRead, Corrupts, LosesChunk, RefusesRequests
from tests.transfer.image_copies import (
    OrderedStore,
    TransferHarness,
    assert_same,
    index_document,
    load,
    platforms_of,
    put_document,
)
from tests.transfer.transfer_setup import ALWAYS

AMD64, ARM64, V7 = "linux/amd64", "linux/arm64", "linux/arm/v7"
IMAGE = make_index([platforms_of(AMD64, ARM64), make_image(9, (2_500,), platform=V7)])
BLOBS = IMAGE.all_blobs()
SIZE = sum(map(len, BLOBS.values()))


def test_image_arrives_byte_for_byte_and_each_blob_once(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")

    result = harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", IMAGE)
    assert (result.state, str(result.digest)) == (State.DONE, IMAGE.digest)
    assert (result.source, result.destination) == ("origin/app:v1", "target/app:v1")
    assert (result.bytes_sent, harness.host.received, harness.origin.served) == (SIZE, SIZE, SIZE)
    assert (result.manifests, len(result.blobs)) == (5, len(BLOBS))


def test_manifests_come_after_what_they_list_and_the_tag_last(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    target = OrderedStore(harness.host, "app")

    harness.copier.copy(harness.job(harness.source(), target))

    # The store in memory refuses a manifest whose parts it has not.
    assert target.put == [each.digest for each in list(IMAGE.walk())[:-1]] + ["v1"]


def test_image_that_is_there_costs_one_request_on_each_side(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    harness.copier.copy(harness.job(harness.source(), harness.destination()))
    harness.forget_requests()

    result = harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert (result.state, str(result.digest), result.bytes_sent) == (State.PRESENT, IMAGE.digest, 0)
    assert harness.origin.requests == harness.host.requests == {"HEAD manifest": 1}


def test_newer_image_moves_only_what_is_new(harness: TransferHarness) -> None:
    old = make_index([make_image(1, platform=AMD64), make_image(2, platform=ARM64)])
    new = make_index([make_image(1, platform=AMD64), make_image(3, platform=ARM64)])
    load(harness.source(), old, "v1")
    harness.copier.copy(harness.job(harness.source(), harness.destination()))
    load(harness.source(), new, "v1")
    harness.forget_requests()

    result = harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", new)
    fresh = {k: v for k, v in new.all_blobs().items() if k not in old.all_blobs()}
    assert harness.host.received == result.bytes_sent == sum(map(len, fresh.values()))
    assert harness.origin.requests["GET manifest"] == 2  # the index, and the one child that is new


def test_one_platform_is_copied_as_the_image_itself(harness: TransferHarness) -> None:
    image = platforms_of(AMD64, ARM64)
    load(harness.source(), image, "v1")

    result = harness.copier.copy(harness.job(harness.source(), harness.destination(), "v1", ARM64))

    assert_same(harness.destination(), "v1", image.children[1])
    assert str(result.digest) == image.children[1].digest
    again = harness.copier.copy(harness.job(harness.source(), harness.destination(), "v1", ARM64))
    assert again.state is State.PRESENT


def test_some_platforms_are_copied_as_a_smaller_index(harness: TransferHarness) -> None:
    image = platforms_of(AMD64, ARM64, V7)
    load(harness.source(), image, "v1")

    result = harness.copier.copy(
        harness.job(harness.source(), harness.destination(), "v1", AMD64, V7)
    )

    index = harness.destination().manifests[harness.destination().names["v1"]]
    assert [str(child.digest) for child in index.children()] == [
        image.children[0].digest,
        image.children[2].digest,
    ]
    assert result.digest == index.digest
    assert len(harness.destination().manifests) == 3


def test_platform_that_is_not_there_moves_nothing(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")

    with pytest.raises(NotFound):
        harness.copier.copy(
            harness.job(harness.source(), harness.destination(), "v1", "linux/s390x")
        )

    assert harness.host.received == 0
    assert harness.destination().names == {}


def test_index_of_which_the_source_has_only_a_part_is_told_with_a_remedy(
    harness: TransferHarness,
) -> None:
    image = platforms_of(AMD64, ARM64)
    load(harness.source(), image, "v1")
    gone = image.children[1].digest
    del harness.source().manifests[Digest.parse(gone)]

    with pytest.raises(NotFound, match=f"app:v1: .* lists {gone} for {ARM64}") as caught:
        harness.copier.copy(harness.job(harness.source(), harness.destination()))
    part = harness.copier.copy(harness.job(harness.source(), harness.destination(), "v1", AMD64))

    assert "platforms=" in caught.value.remedy
    assert str(part.digest) == image.children[0].digest


def test_image_that_is_not_there_is_an_error_of_the_source(harness: TransferHarness) -> None:
    with pytest.raises(NotFound, match="origin/app"):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert harness.sink.states("origin/app:v1") == [State.FAILED]
    assert harness.host.requests == {"HEAD manifest": 1}


def test_failed_image_leaves_the_old_tag(harness: TransferHarness) -> None:
    old = make_image(50)
    load(harness.destination(), old, "v1")
    load(harness.source(), IMAGE, "v1")
    harness.origin.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))

    with pytest.raises(AccessDenied):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", old)
    assert harness.host.requests["PUT manifest"] == 0


def test_image_arrives_in_spite_of_losses_on_both_sides(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    harness.origin.faults += [BreaksRead(at=at, times=3) for at in (1, 700, 1_000, 2_000)]
    harness.host.faults += [LosesChunk(at=at, keeping=at // 2, times=2) for at in (0, 999, 1_500)]

    harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", IMAGE)


def test_wrong_bytes_fail_the_image(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    harness.origin.faults.append(Corrupts(at=1_200, times=ALWAYS))

    with pytest.raises(DigestMismatch):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert harness.destination().names == {}
    for digest, blob in dict(harness.destination().blobs).items():
        assert Digest.from_bytes(blob) == digest


def test_copy_within_a_registry_mounts_and_moves_nothing(harness: TransferHarness) -> None:
    load(harness.destination("one"), IMAGE, "v1")

    result = harness.copier.copy(
        harness.job(harness.destination("one"), harness.destination("two"))
    )

    assert_same(harness.destination("two"), "v1", IMAGE)
    assert {landed.state for landed in result.blobs} == {State.MOUNTED}
    assert (result.bytes_sent, harness.host.received, harness.host.served) == (0, 0, 0)


def test_new_tag_in_the_same_repository_moves_nothing(harness: TransferHarness) -> None:
    load(harness.destination(), IMAGE, "v1")
    job = ImageJob(harness.destination(), "v1", harness.destination(), "v2")

    result = harness.copier.copy(job)

    assert_same(harness.destination(), "v2", IMAGE)
    assert {landed.state for landed in result.blobs} == {State.PRESENT}
    assert harness.host.requests["POST mount"] == harness.host.received == 0


def test_mount_that_is_refused_is_an_upload(harness: TransferHarness) -> None:
    load(harness.destination("one"), IMAGE, "v1")
    harness.host.faults.append(RefusesRequests("POST mount", times=ALWAYS))

    result = harness.copier.copy(
        harness.job(harness.destination("one"), harness.destination("two"))
    )

    assert_same(harness.destination("two"), "v1", IMAGE)
    assert result.bytes_sent == SIZE


def test_blobs_that_are_there_are_not_sent(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    load(
        harness.destination(), make_image(77), "v1"
    )  # of another image: only configs are sent unasked
    digest, blob = max(BLOBS.items(), key=lambda item: len(item[1]))
    harness.destination().blobs[Digest.parse(digest)] = blob

    result = harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert result.bytes_sent == harness.host.received == SIZE - len(blob)
    assert [b.state for b in result.blobs].count(State.PRESENT) == 1


@pytest.mark.parametrize("platforms", [(), (AMD64,)])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"size": 7}, SizeMismatch),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, InvalidManifest),
        ({"mediaType": DOCKER_MANIFEST_LIST}, InvalidManifest),
    ],
)
def test_manifest_that_is_not_as_its_index_says_fails_the_image(
    harness: TransferHarness,
    platforms: tuple[str, ...],
    changes: dict[str, object],
    error: type[Exception],
) -> None:
    child = make_image(4)
    load(harness.source(), child)
    put_document(harness.source(), index_document([{**child.descriptor(), **changes}]), "v1")

    with pytest.raises(error):
        harness.copier.copy(harness.job(harness.source(), harness.destination(), "v1", *platforms))

    assert harness.host.received == 0
    assert harness.destination().names == {}


def test_digest_of_another_algorithm_is_kept(harness: TransferHarness) -> None:
    image = make_image(5)
    load(harness.source(), image)
    digest = Digest("sha512", hashlib.sha512(image.manifest).hexdigest())
    harness.source().manifests[digest] = Manifest.parse(image.manifest)

    result = harness.copier.copy(harness.job(harness.source(), harness.destination(), str(digest)))

    assert result.digest == digest
    assert harness.destination().manifests[digest].body == image.manifest


def test_image_goes_into_a_layout_and_out_again(harness: TransferHarness, tmp_path: Path) -> None:
    load(harness.source(), IMAGE, "v1")
    layout = LayoutStore(LayoutDirectory(tmp_path / "layout", create=True))

    into = harness.copier.copy(ImageJob(harness.source(), "v1", layout, "kept"))
    out = harness.copier.copy(ImageJob(layout, "kept", harness.destination(), "v1"))

    assert into.digest == out.digest
    assert_same(harness.destination(), "v1", IMAGE)
    assert list(layout.tags()) == ["kept"]


def test_layers_listed_in_an_index_are_copied(harness: TransferHarness, tmp_path: Path) -> None:
    child = make_image(6)
    load(harness.source(), child)
    layer = Digest.from_bytes(b"a cached layer")
    harness.source().blobs[layer] = b"a cached layer"
    cached = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": str(layer),
        "size": len(b"a cached layer"),
    }
    put_document(harness.source(), index_document([cached, child.descriptor()]), "v1")
    layout = LayoutStore(LayoutDirectory(tmp_path / "layout", create=True))

    harness.copier.copy(ImageJob(harness.source(), "v1", layout, "v1"))

    assert layout.backend.read_blob(layer, 100) == b"a cached layer"


def test_cancel_ends_a_copy(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    harness.source().on_read = lambda position: harness.pool.cancel.set()

    with pytest.raises(Cancelled):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert harness.destination().names == {}
    assert harness.sink.states("origin/app:v1")[-1] is State.CANCELLED
    assert State.FAILED not in {event.state for event in harness.sink.events}


def test_events_tell_what_becomes_of_an_image_and_its_blobs(harness: TransferHarness) -> None:
    load(harness.source(), make_image(1, (3_000,)), "v1")

    harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert harness.sink.states("origin/app:v1") == [State.STARTED, State.DONE]
    [planned] = [e for e in harness.sink.events if e.kind == "image" and e.state is State.MOVING]
    assert planned.total == sum(map(len, make_image(1, (3_000,)).blobs.values()))
    assert {e.image for e in harness.sink.events if e.kind == "blob"} == {"origin/app:v1"}
    for digest in make_image(1, (3_000,)).blobs:
        states = harness.sink.states(digest)
        assert states[-1] is State.DONE
        assert State.STARTED in states
    blobs = [e for e in harness.sink.events if e.kind == "blob" and e.state is State.DONE]
    assert all(event.position == event.total for event in blobs)


def test_failed_blob_is_told_with_its_reason(harness: TransferHarness) -> None:
    load(harness.source(), make_image(1, (3_000,)), "v1")
    harness.origin.faults.append(
        RefusesRequests("GET blob", AccessDenied("not yours"), times=ALWAYS)
    )

    with pytest.raises(AccessDenied):
        harness.copier.copy(harness.job(harness.source(), harness.destination()))

    failed = [event for event in harness.sink.events if event.state is State.FAILED]
    assert {event.kind for event in failed} == {"blob", "image"}
    assert all("not yours" in event.detail for event in failed)


@pytest.mark.parametrize(
    ("reference", "text"),
    [("", "host/app"), ("v1", "host/app:v1"), ("sha256:12", "host/app@sha256:12")],
)
def test_images_are_named_as_people_write_them(reference: str, text: str) -> None:
    assert image_name("host/app", reference) == text
