"""What refers to an image goes along with it, and nobody sees the image before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from concil.errors import AccessDenied, InvalidManifest, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.progress.events import State
from concil.store.base_store import BaseStore
from concil.transfer.image.job import ImageJob
from concil.transfer.mirror.report import MirrorItem
from tests.support.images import Image, make_image, make_index
from tests.support.memory_store import MemoryStore
from tests.support.referrers import SBOM, digest_tag, make_cosign_artifact, make_referrer
from tests.support.store_faults import RefusesRequests
from tests.transfer.image_copies import OrderedStore, TransferHarness, load, platforms_of
from tests.transfer.transfer_setup import ALWAYS

AMD64, ARM64, V7 = "linux/amd64", "linux/arm64", "linux/arm/v7"
IMAGE = make_index([platforms_of(AMD64, ARM64), make_image(9, (2_500,), platform=V7)])
SIGNED = make_referrer(IMAGE)
CHILD_SBOM = make_referrer(IMAGE.children[0].children[1], b"parts", SBOM)
SBOM_SIGNED = make_referrer(CHILD_SBOM, b"signed parts")
ALL = (SIGNED, CHILD_SBOM, SBOM_SIGNED)


@pytest.fixture
def source(harness: TransferHarness) -> MemoryStore:
    """Return a repository that has the image and what refers to it."""
    store = harness.source()
    load(store, IMAGE, "v1")
    for each in ALL:
        load(store, each)
    return store


def copy(
    lab: TransferHarness, source: MemoryStore, target: MemoryStore, *platforms: str
) -> ImageJob:
    return lab.job(source, target, "v1", *platforms, referrers=True)


def assert_there(store: MemoryStore, *images: Image) -> None:
    for image in images:
        assert store.manifests[Digest.parse(image.digest)].body == image.manifest
        for digest, blob in image.blobs.items():
            assert store.blobs[Digest.parse(digest)] == blob


def entry_of(image: Image) -> Descriptor:
    return Manifest.parse(image.manifest).descriptor


def test_what_refers_to_any_manifest_of_an_image_goes_along(
    harness: TransferHarness, source: MemoryStore
) -> None:
    result = harness.copier.copy(copy(harness, source, harness.destination()))

    assert_there(harness.destination(), *IMAGE.walk(), *ALL)
    assert (result.referrers, result.manifests, result.notes) == (3, 8, ())


def test_without_being_asked_nothing_goes_along(
    harness: TransferHarness, source: MemoryStore
) -> None:
    result = harness.copier.copy(harness.job(source, harness.destination()))

    assert len(harness.destination().manifests) == len(list(IMAGE.walk()))
    assert result.referrers == harness.origin.requests["GET referrers"] == 0


def test_nothing_is_seen_before_what_refers_to_it(
    harness: TransferHarness, source: MemoryStore
) -> None:
    target = OrderedStore(harness.host, "app")

    harness.copier.copy(copy(harness, source, target))

    assert target.put[-1] == "v1"
    for referrer, subject in (
        (CHILD_SBOM, IMAGE.children[0].children[1]),
        (SBOM_SIGNED, CHILD_SBOM),
    ):
        assert target.put.index(referrer.digest) < target.put.index(subject.digest)
    assert SIGNED.digest in target.put


def test_registry_that_wants_subjects_first_has_the_tag_last(
    harness: TransferHarness, source: MemoryStore
) -> None:
    target = OrderedStore(harness.host, "app")
    target.subjects_first = True

    harness.copier.copy(copy(harness, source, target))

    assert_there(target, *IMAGE.walk(), *ALL)
    assert target.put[-1] == "v1"
    assert target.put.index(IMAGE.digest) < target.put.index(SIGNED.digest)


def test_image_that_is_there_with_all_costs_one_request_for_a_manifest(
    harness: TransferHarness, source: MemoryStore
) -> None:
    harness.copier.copy(copy(harness, source, harness.destination()))
    harness.forget_requests()

    result = harness.copier.copy(copy(harness, source, harness.destination()))

    assert (result.state, result.referrers, result.manifests) == (State.PRESENT, 0, 0)
    # Five manifests and two referrers that are referred to or not: each is asked about.
    assert harness.origin.requests == {"HEAD manifest": 1, "GET referrers": 8}
    # The indexes are read here: it costs nothing of the source's quota.
    assert harness.host.requests == {"HEAD manifest": 1, "GET manifest": 2, "GET referrers": 3}


def test_new_signature_comes_to_an_old_image(harness: TransferHarness, source: MemoryStore) -> None:
    harness.copier.copy(copy(harness, source, harness.destination()))
    new = make_referrer(IMAGE.children[1], b"signed later")
    load(harness.source(), new)
    harness.forget_requests()

    result = harness.copier.copy(copy(harness, source, harness.destination()))

    assert_there(harness.destination(), new)
    assert (result.state, result.referrers, result.manifests) == (State.DONE, 1, 1)
    assert harness.origin.requests["GET manifest"] == harness.host.requests["PUT manifest"] == 1


def test_signatures_come_to_an_image_that_was_copied_without(
    harness: TransferHarness, source: MemoryStore
) -> None:
    harness.copier.copy(harness.job(source, harness.destination()))

    result = harness.copier.copy(copy(harness, source, harness.destination()))

    assert_there(harness.destination(), *ALL)
    assert result.referrers == 3


def test_tags_named_by_a_digest_go_along_and_follow_their_source(
    harness: TransferHarness, source: MemoryStore
) -> None:
    first, second = make_cosign_artifact(b"one"), make_cosign_artifact(b"two")
    tag = digest_tag(IMAGE.children[1], ".sig")
    load(source, first, tag)
    load(source, make_cosign_artifact(b"attested"), digest_tag(first, ".att"))

    harness.copier.copy(copy(harness, source, harness.destination()))
    names = set(harness.destination().names)
    load(source, second, tag)
    result = harness.copier.copy(copy(harness, source, harness.destination()))
    again = harness.copier.copy(copy(harness, source, harness.destination()))

    assert names == {"v1", tag, digest_tag(first, ".att")}
    assert str(harness.destination().names[tag]) == second.digest
    assert_there(harness.destination(), first, second)
    assert (result.referrers, again.state) == (1, State.PRESENT)


def test_index_may_refer_to_an_image(harness: TransferHarness, source: MemoryStore) -> None:
    inner = make_image(77)
    index = make_index([inner], subject=IMAGE)
    load(source, index)

    harness.copier.copy(copy(harness, source, harness.destination()))

    assert_there(harness.destination(), index, inner)


def test_manifest_that_is_part_of_the_image_and_refers_to_it_is_put_once_listed(
    harness: TransferHarness,
) -> None:
    child = make_image(1, platform=AMD64)
    attestation = make_referrer(child, b"attested")
    image = make_index([child, attestation])
    load(harness.source(), image, "v1")

    harness.copier.copy(copy(harness, harness.source(), harness.destination()))
    again = harness.copier.copy(copy(harness, harness.source(), harness.destination()))

    assert_there(harness.destination(), child, attestation, image)
    assert again.state is State.PRESENT


def test_referrers_of_a_smaller_index_are_those_of_its_parts(harness: TransferHarness) -> None:
    image = platforms_of(AMD64, ARM64, V7)
    parts = [make_referrer(child, b"part") for child in image.children]
    load(harness.source(), image, "v1")
    load(harness.source(), make_cosign_artifact(), digest_tag(image, ".sig"))
    for each in (*parts, make_referrer(image)):
        load(harness.source(), each)

    result = harness.copier.copy(copy(harness, harness.source(), harness.destination(), AMD64, V7))

    found = {str(digest) for digest in harness.destination().manifests}
    assert {each.digest for each in parts} & found == {parts[0].digest, parts[2].digest}
    rewritten, left = result.notes
    assert rewritten == (
        f"the index is rewritten for {AMD64}, {V7}: {result.digest} instead of {image.digest}"
    )
    assert left == f"2 referrers are skipped, because the index {image.digest} is not copied"
    again = harness.copier.copy(copy(harness, harness.source(), harness.destination(), AMD64, V7))
    assert again.state is State.PRESENT


def test_one_platform_has_its_own_referrers(harness: TransferHarness, source: MemoryStore) -> None:
    image = platforms_of(AMD64, ARM64)
    part = make_referrer(image.children[1], b"part")
    load(harness.source("two"), image, "v1")
    load(harness.source("two"), part)

    result = harness.copier.copy(copy(harness, harness.source("two"), harness.destination(), ARM64))

    assert_there(harness.destination(), image.children[1], part)
    assert (str(result.digest), result.notes) == (image.children[1].digest, ())


def test_attestations_that_stay_in_the_index_are_told(harness: TransferHarness) -> None:
    child = make_image(1, platform=AMD64)
    attestation = make_image(2, platform="unknown/unknown")
    about = {"annotations": {"vnd.docker.reference.digest": child.digest}}
    other = make_image(3, platform=ARM64)
    index = make_index([child, other, attestation], entries={attestation.digest: about})
    load(harness.source(), index, "v1")

    one = harness.copier.copy(
        harness.job(harness.source(), harness.destination("one"), "v1", AMD64)
    )
    both = harness.copier.copy(
        harness.job(harness.source(), harness.destination("both"), "v1", AMD64, ARM64)
    )

    assert one.notes == ("1 attestation is not copied with the index",)
    assert (both.notes, str(both.digest)) == ((), index.digest)


def left_out(lab: TransferHarness, source: MemoryStore, *entries: Descriptor) -> tuple[str, ...]:
    source.listed[Digest.parse(IMAGE.digest)] = list(entries)
    result = lab.copier.copy(copy(lab, source, lab.destination()))
    assert_there(lab.destination(), *IMAGE.walk(), *ALL)
    return result.notes


def test_what_is_listed_and_does_not_go_along_is_told(
    harness: TransferHarness, source: MemoryStore
) -> None:
    gone = entry_of(make_referrer(IMAGE, b"gone"))
    stranger = make_referrer(make_image(55), b"of another")
    plain = make_image(56)
    for each in (stranger, plain):
        load(source, each)
    odd = Descriptor("application/vnd.example.manifest+json", Digest.from_bytes(b"x"), 1)

    notes = left_out(harness, source, gone, entry_of(stranger), entry_of(plain), odd)

    assert notes == (
        f"{gone.digest} is listed as a referrer, but does not exist",
        f"{stranger.digest} is listed as a referrer, but is not one",
        f"{plain.digest} is listed as a referrer, but is not one",
        f"{odd.digest} is skipped, a referrer of type {odd.media_type}",
    )


def test_referrer_that_is_listed_twice_goes_along_once(
    harness: TransferHarness, source: MemoryStore
) -> None:
    twice = OrderedStore(harness.host, "app")
    source.listed[Digest.parse(IMAGE.digest)] = [entry_of(SIGNED)]

    harness.copier.copy(copy(harness, source, twice))

    assert twice.put.count(SIGNED.digest) == 1


def of_itself(store: MemoryStore) -> str:
    load(store, IMAGE, digest_tag(IMAGE, ".sig"))
    return IMAGE.digest


def circle(store: MemoryStore) -> str:
    first, second = make_cosign_artifact(b"one"), make_cosign_artifact(b"two")
    load(store, first, digest_tag(IMAGE, ".sig"))
    load(store, second, digest_tag(first, ".sig"))
    load(store, first, digest_tag(second, ".sig"))
    return first.digest


def deep(store: MemoryStore) -> str:
    last = IMAGE
    for _ in range(30):
        last = make_referrer(last)
        load(store, last)
    return IMAGE.digest


@pytest.mark.parametrize("odd", [of_itself, circle, deep])
def test_what_refers_in_a_circle_or_without_end_fails_the_image_and_is_named(
    harness: TransferHarness, source: MemoryStore, odd: Callable[[MemoryStore], str]
) -> None:
    named = odd(source)

    with pytest.raises(InvalidManifest, match=named) as caught:
        harness.copier.copy(copy(harness, source, harness.destination()))

    assert "origin/app:v1" in str(caught.value)
    assert "without referrers" in caught.value.remedy
    assert harness.destination().names == {}
    assert harness.origin.requests["GET referrers"] < 30


def test_more_referrers_than_any_image_has_fail_it(
    harness: TransferHarness, source: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.transfer.image.referrers.MAX_MANIFESTS", 20)
    for number in range(3):
        parts = [make_image(100 * number + n, (10,)) for n in range(9)]
        load(source, make_index(parts, subject=IMAGE))

    with pytest.raises(InvalidManifest, match="more than 20 manifests refer to it"):
        harness.copier.copy(copy(harness, source, harness.destination()))

    assert harness.destination().names == {}


def test_signature_that_cannot_be_copied_fails_the_image(
    harness: TransferHarness, source: MemoryStore
) -> None:
    lost = Digest.parse(next(d for d in SIGNED.blobs if d not in CHILD_SBOM.blobs))
    del source.blobs[lost]

    with pytest.raises(Exception, match=lost.hex):
        harness.copier.copy(copy(harness, source, harness.destination()))

    assert harness.destination().names == {}


def test_list_that_cannot_be_had_fails_the_image(
    harness: TransferHarness, source: MemoryStore
) -> None:
    harness.origin.faults.append(RefusesRequests("GET referrers", AccessDenied("no"), times=ALWAYS))

    with pytest.raises(AccessDenied):
        harness.copier.copy(copy(harness, source, harness.destination()))

    assert harness.destination().names == {}


def test_tag_that_lists_referrers_is_no_image(
    harness: TransferHarness, source: MemoryStore
) -> None:
    load(source, make_index([SIGNED]), digest_tag(IMAGE))
    load(source, CHILD_SBOM, digest_tag(CHILD_SBOM))

    with pytest.raises(UsageError, match=r"origin/app:sha256-.* is a list of referrers"):
        harness.copier.copy(
            harness.job(source, harness.destination(), digest_tag(IMAGE), referrers=True)
        )
    tags = ("v1", digest_tag(IMAGE))
    items = [MirrorItem(f"app:{tag}", f"app:{tag}", referrers=True) for tag in tags]
    report = harness.mirror().run(items, 1)
    image = harness.copier.copy(
        harness.job(source, harness.destination(), digest_tag(CHILD_SBOM), referrers=True)
    )

    assert (report.image_count, report.up_to_date_count, report.failed) == (2, 1, [])
    assert image.state is State.DONE
    assert set(harness.destination().names) == {"v1", digest_tag(CHILD_SBOM)}
    assert_there(harness.destination(), *ALL)


class Plain(BaseStore):
    """A destination that cannot tell what refers to what."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.name, self.host, self.mount_scope = store.name, store.host, store.mount_scope
        self.find_manifest, self.put_manifest = store.find_manifest, store.put_manifest
        self.has_blob, self.begin_blob = store.has_blob, store.begin_blob


def test_place_that_cannot_hold_referrers_is_told(
    harness: TransferHarness, source: MemoryStore
) -> None:
    job = ImageJob(source, "v1", Plain(harness.destination()), "v1", referrers=True)

    result = harness.copier.copy(job)

    assert result.notes == ("referrers are skipped: target/app does not support them",)
    assert_there(harness.destination(), *IMAGE.walk())
