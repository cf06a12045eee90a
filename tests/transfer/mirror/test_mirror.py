"""Many images are mirrored together: each blob once, and one failure is one entry."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from concil.errors import AccessDenied, DigestMismatch, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.progress.events import State
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.copier import ImageJob
from concil.transfer.mirror import report
from concil.transfer.mirror.mirror import Mirror, MirrorOptions
from concil.transfer.mirror.report import BlobTotals, MirrorItem
from tests.support.images import Image, Layer, make_image, make_index, make_layer
from tests.support.store_faults import Corrupts, RefusesRequests
from tests.transfer.image_copies import CHUNK, TransferHarness, assert_same, create_harness, load
from tests.transfer.transfer_setup import ALWAYS, WAIT

SHARED = [make_layer(n, 900 * n) for n in (1, 2, 3)]


def images_of(count: int) -> list[Image]:
    """Return images that share layers with each other."""
    made: list[Image] = []
    for number in range(count):
        layers: list[Layer | int] = [SHARED[number % 3], SHARED[(number + 1) % 3], 100 + number]
        made.append(make_image(100 + number, layers))
    return made


def load_all(lab: TransferHarness, images: list[Image]) -> list[MirrorItem]:
    """Put each image into a repository of its own; return what mirrors them."""
    for number, image in enumerate(images):
        load(lab.source(f"app{number}"), image, "v1")
    return [MirrorItem(f"app{n}:v1", f"app{n}:v1") for n in range(len(images))]


def unique(images: list[Image]) -> int:
    """Bytes of the blobs of all images, each counted once."""
    blobs = {digest: blob for image in images for digest, blob in image.all_blobs().items()}
    return sum(map(len, blobs.values()))


@pytest.mark.parametrize("coordinators", [1, 4, 16])
def test_each_blob_is_sent_once_over_all_images(
    harness: TransferHarness, coordinators: int
) -> None:
    images = images_of(30)
    items = load_all(harness, images)

    report = harness.mirror().run(items, coordinators)

    assert [outcome.error for outcome in report.outcomes] == [None] * 30
    for number, image in enumerate(images):
        assert_same(harness.destination(f"app{number}"), "v1", image)
    assert harness.host.received == report.bytes_sent == unique(images)
    assert len(report.copied) == 30


def test_second_run_moves_nothing_and_asks_twice_an_image(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(10))
    harness.mirror().run(items, 4)
    harness.forget_requests()

    report = harness.mirror().run(items, 4)

    assert (len(report.present), len(report.copied), report.bytes_sent) == (10, 0, 0)
    assert harness.origin.requests == harness.host.requests == {"HEAD manifest": 10}


def test_many_tags_of_one_repository_share_their_blobs(harness: TransferHarness) -> None:
    images = images_of(12)
    for number, image in enumerate(images):
        load(harness.source("app"), image, f"v{number}")
    items = [MirrorItem(f"app:v{n}", f"app:v{n}") for n in range(12)]

    harness.mirror().run(items, 6)

    assert harness.host.received == unique(images)
    assert harness.host.requests["POST mount"] == 0
    assert harness.host.requests["POST upload"] == len({d for i in images for d in i.all_blobs()})


def test_same_image_twice_is_fine(harness: TransferHarness) -> None:
    [image] = images_of(1)
    items = load_all(harness, [image]) * 5

    report = harness.mirror().run(items, 5)

    assert report.failed == []
    assert harness.host.received == unique([image])


@pytest.mark.parametrize("coordinators", [1, 8])
def test_registry_that_mounts_nothing_gets_a_blob_once_a_repository(
    harness: TransferHarness, coordinators: int
) -> None:
    images = images_of(8)
    harness.host.faults.append(RefusesRequests("POST mount", times=ALWAYS))
    for number, image in enumerate(images):
        load(harness.source("app"), image, f"v{number}")
    items = [MirrorItem(f"app:v{n}", f"{'even' if n % 2 else 'odd'}:v{n}") for n in range(8)]

    report = harness.mirror().run(items, coordinators)

    assert report.failed == []
    assert harness.host.received == unique(images[::2]) + unique(images[1::2])


def test_failing_blob_fails_only_the_images_that_need_it(harness: TransferHarness) -> None:
    images = images_of(6)
    items = load_all(harness, images)
    broken = next(iter(set(images[2].blobs) - set(images[5].blobs) - set(images[0].blobs)))
    own = [digest for digest in images[2].blobs if digest == broken]
    del harness.source("app2").blobs[Digest.parse(own[0])]

    report = harness.mirror().run(items, 3)

    [failed] = report.failed
    assert failed.item == items[2]
    assert failed.result is None
    assert "app2" not in {
        name for name in harness.host.repositories if harness.destination(name).names
    }
    for number in (0, 1, 3, 4, 5):
        assert_same(harness.destination(f"app{number}"), "v1", images[number])


@pytest.mark.parametrize("coordinators", [1, 2, 5])
def test_blob_that_one_source_lacks_is_brought_from_another(
    harness: TransferHarness, coordinators: int
) -> None:
    images = images_of(5)
    items = load_all(harness, images)
    shared = Digest.parse(next(iter(set(images[0].blobs) & set(images[3].blobs))))
    del harness.source("app0").blobs[shared]

    report = harness.mirror().run(items, coordinators)

    assert {outcome.item for outcome in report.failed} <= {items[0]}
    for number in range(1, 5):
        assert_same(harness.destination(f"app{number}"), "v1", images[number])


def test_failed_image_leaves_its_old_tag(harness: TransferHarness) -> None:
    images = images_of(2)
    items = load_all(harness, images)
    old = make_image(77)
    load(harness.destination("app1"), old, "v1")
    harness.source("app1").blobs.clear()

    report = harness.mirror().run(items, 2)

    assert len(report.failed) == 1
    assert_same(harness.destination("app1"), "v1", old)


def test_item_that_cannot_be_read_is_an_entry_of_the_report(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(2))

    def prepare(item: MirrorItem) -> ImageJob:
        if item.source == "nonsense":
            raise UsageError("not a reference")
        return harness.prepare(item)

    report = Mirror(harness.copier, prepare, harness.pool.cancel).run(
        [items[0], MirrorItem("nonsense", "x"), items[1]], 2
    )

    [failed] = report.failed
    assert isinstance(failed.error, UsageError)
    assert len(report.copied) == 2


def test_items_are_taken_as_they_are_needed(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(6))
    taken = 0

    def lazily() -> Iterator[MirrorItem]:
        nonlocal taken
        for item in items:
            # With two at work, never more than two are taken and not finished.
            finished = sum(e.kind == "image" and e.state is State.DONE for e in harness.sink.events)
            assert taken - finished <= 2
            taken += 1
            yield item

    report = harness.mirror().run(lazily(), 2)

    assert (taken, len(report.copied)) == (6, 6)


def test_a_report_that_keeps_little_counts_as_one_that_keeps_all(harness: TransferHarness) -> None:
    items = [*load_all(harness, images_of(8)), MirrorItem("none:v1", "none:v1")]
    harness.mirror().run(items[:3], 2)

    whole = harness.mirror().run(items[:6], 4)
    small = Mirror(
        harness.copier, harness.prepare, harness.pool.cancel, MirrorOptions(keep_outcomes=False)
    ).run(items[3:], 4)

    assert len(whole.outcomes) == 6
    assert (
        (whole.copied_count, whole.up_to_date_count)
        == (len(whole.copied), len(whole.present))
        == (3, 3)
    )
    assert whole.bytes_sent == sum(result.bytes_sent for result in whole.copied) > 0
    assert [outcome.item.source for outcome in small.outcomes] == ["none:v1"]
    assert (small.image_count, small.copied_count, small.up_to_date_count) == (6, 2, 3)
    # Two images with a layer and a config of their own; the layers they share are there.
    assert small.blob_totals.count_by_state()[State.DONE] == 4


def test_no_items_are_an_empty_report(harness: TransferHarness) -> None:
    report = harness.mirror().run([], 4)

    assert (report.outcomes, report.bytes_sent) == ([], 0)


def test_wrong_bytes_never_get_a_name(harness: TransferHarness) -> None:
    images = images_of(9)
    items = load_all(harness, images)
    harness.origin.faults.append(Corrupts(at=500, times=ALWAYS))

    report = harness.mirror().run(items, 4)

    assert all(isinstance(each.error, DigestMismatch) for each in report.failed)
    assert report.failed
    for store in list(harness.host.repositories.values()):
        for digest, blob in dict(store.blobs).items():
            assert Digest.from_bytes(blob) == digest


def test_large_blob_goes_before_small_ones_and_does_not_hold_them_up() -> None:
    with create_harness(2) as lab:
        large = make_image(1, (50 * CHUNK,))
        small = make_image(2, (10,))
        items = load_all(lab, [make_index([large, small]), small])
        gate = threading.Event()
        # Of the three blobs only the large one has a byte there.
        lab.source("app0").on_read = lambda position: position < 20 * CHUNK or gate.wait(WAIT)

        mirror = lab.mirror()
        done = threading.Thread(target=mirror.run, args=(items, 2))

        def let_go() -> None:
            last = lab.sink.events[-1]
            if last.state is State.DONE and "app1" in last.subject:
                gate.set()

        lab.sink.on_event = let_go
        done.start()
        done.join(WAIT)

        assert not done.is_alive()
        assert_same(lab.destination("app1"), "v1", small)


def test_denied_blob_is_told_once_an_image(harness: TransferHarness) -> None:
    items = load_all(harness, images_of(4))
    harness.origin.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))

    report = harness.mirror().run(items, 2)

    assert len(report.failed) == 4
    assert all(isinstance(outcome.error, AccessDenied) for outcome in report.failed)


def test_blob_totals_count_blobs_that_they_no_longer_remember(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "_MAX_BLOBS", 2)
    blobs = [Descriptor("a/b", Digest.from_bytes(bytes([n])), 10 + n) for n in range(4)]

    totals = BlobTotals(BlobResult(blob, "h/a:1", "a", State.DONE) for blob in blobs)
    totals.add([BlobResult(blobs[3], "h/a:2", "a", State.PRESENT)])
    totals.add([BlobResult(blobs[3], "h/a:1", "a", State.PRESENT)])

    assert totals.count_by_state() == {State.DONE: 4, State.PRESENT: 1}
    assert totals.bytes_sent == 10 + 11 + 12 + 13
