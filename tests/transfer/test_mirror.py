"""Many images are mirrored together: each blob once, and one failure is one entry."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from concil.content import Digest
from concil.errors import AccessDenied, DigestMismatch, UsageError
from concil.progress import State
from concil.transfer.image import ImageJob
from concil.transfer.mirror import Manner, Mirror, MirrorItem
from tests.lab.images import Image, Layer, make_image, make_index, make_layer
from tests.store.faults import Corrupts, RefusesRequests
from tests.transfer.imaging import CHUNK, Lab, assert_same, lab_of, load
from tests.transfer.world import ALWAYS, WAIT

SHARED = [make_layer(n, 900 * n) for n in (1, 2, 3)]


def images_of(count: int) -> list[Image]:
    """Return images that share layers with each other."""
    made: list[Image] = []
    for number in range(count):
        layers: list[Layer | int] = [SHARED[number % 3], SHARED[(number + 1) % 3], 100 + number]
        made.append(make_image(100 + number, layers))
    return made


def load_all(lab: Lab, images: list[Image]) -> list[MirrorItem]:
    """Put each image into a repository of its own; return what mirrors them."""
    for number, image in enumerate(images):
        load(lab.source(f"app{number}"), image, "v1")
    return [MirrorItem(f"app{n}:v1", f"app{n}:v1") for n in range(len(images))]


def unique(images: list[Image]) -> int:
    """Bytes of the blobs of all images, each counted once."""
    blobs = {digest: blob for image in images for digest, blob in image.all_blobs().items()}
    return sum(map(len, blobs.values()))


@pytest.mark.parametrize("coordinators", [1, 4, 16])
def test_each_blob_is_sent_once_over_all_images(lab: Lab, coordinators: int) -> None:
    images = images_of(30)
    items = load_all(lab, images)

    report = lab.mirror().run(items, coordinators)

    assert [outcome.error for outcome in report.outcomes] == [None] * 30
    for number, image in enumerate(images):
        assert_same(lab.target(f"app{number}"), "v1", image)
    assert lab.host.received == report.sent == unique(images)
    assert len(report.copied) == 30


def test_second_run_moves_nothing_and_asks_twice_an_image(lab: Lab) -> None:
    items = load_all(lab, images_of(10))
    lab.mirror().run(items, 4)
    lab.forget_requests()

    report = lab.mirror().run(items, 4)

    assert (len(report.present), len(report.copied), report.sent) == (10, 0, 0)
    assert lab.origin.requests == lab.host.requests == {"HEAD manifest": 10}


def test_many_tags_of_one_repository_share_their_blobs(lab: Lab) -> None:
    images = images_of(12)
    for number, image in enumerate(images):
        load(lab.source("app"), image, f"v{number}")
    items = [MirrorItem(f"app:v{n}", f"app:v{n}") for n in range(12)]

    lab.mirror().run(items, 6)

    assert lab.host.received == unique(images)
    assert lab.host.requests["POST mount"] == 0
    assert lab.host.requests["POST upload"] == len({d for i in images for d in i.all_blobs()})


def test_same_image_twice_is_fine(lab: Lab) -> None:
    [image] = images_of(1)
    items = load_all(lab, [image]) * 5

    report = lab.mirror().run(items, 5)

    assert report.failed == []
    assert lab.host.received == unique([image])


@pytest.mark.parametrize("coordinators", [1, 8])
def test_registry_that_mounts_nothing_gets_a_blob_once_a_repository(
    lab: Lab, coordinators: int
) -> None:
    images = images_of(8)
    lab.host.faults.append(RefusesRequests("POST mount", times=ALWAYS))
    for number, image in enumerate(images):
        load(lab.source("app"), image, f"v{number}")
    items = [MirrorItem(f"app:v{n}", f"{'even' if n % 2 else 'odd'}:v{n}") for n in range(8)]

    report = lab.mirror().run(items, coordinators)

    assert report.failed == []
    assert lab.host.received == unique(images[::2]) + unique(images[1::2])


def test_failing_blob_fails_only_the_images_that_need_it(lab: Lab) -> None:
    images = images_of(6)
    items = load_all(lab, images)
    broken = next(iter(set(images[2].blobs) - set(images[5].blobs) - set(images[0].blobs)))
    own = [digest for digest in images[2].blobs if digest == broken]
    del lab.source("app2").blobs[Digest.parse(own[0])]

    report = lab.mirror().run(items, 3)

    [failed] = report.failed
    assert failed.item == items[2]
    assert failed.result is None
    assert "app2" not in {name for name in lab.host.repositories if lab.target(name).names}
    for number in (0, 1, 3, 4, 5):
        assert_same(lab.target(f"app{number}"), "v1", images[number])


@pytest.mark.parametrize("coordinators", [1, 2, 5])
def test_blob_that_one_source_lacks_is_brought_from_another(lab: Lab, coordinators: int) -> None:
    images = images_of(5)
    items = load_all(lab, images)
    shared = Digest.parse(next(iter(set(images[0].blobs) & set(images[3].blobs))))
    del lab.source("app0").blobs[shared]

    report = lab.mirror().run(items, coordinators)

    assert {outcome.item for outcome in report.failed} <= {items[0]}
    for number in range(1, 5):
        assert_same(lab.target(f"app{number}"), "v1", images[number])


def test_failed_image_leaves_its_old_tag(lab: Lab) -> None:
    images = images_of(2)
    items = load_all(lab, images)
    old = make_image(77)
    load(lab.target("app1"), old, "v1")
    lab.source("app1").blobs.clear()

    report = lab.mirror().run(items, 2)

    assert len(report.failed) == 1
    assert_same(lab.target("app1"), "v1", old)


def test_item_that_cannot_be_read_is_an_entry_of_the_report(lab: Lab) -> None:
    items = load_all(lab, images_of(2))

    def prepare(item: MirrorItem) -> ImageJob:
        if item.source == "nonsense":
            raise UsageError("not a reference")
        return lab.prepare(item)

    report = Mirror(lab.copier, prepare, lab.pool.cancel).run(
        [items[0], MirrorItem("nonsense", "x"), items[1]], 2
    )

    [failed] = report.failed
    assert isinstance(failed.error, UsageError)
    assert len(report.copied) == 2


def test_items_are_taken_as_they_are_needed(lab: Lab) -> None:
    items = load_all(lab, images_of(6))
    taken = 0

    def lazily() -> Iterator[MirrorItem]:
        nonlocal taken
        for item in items:
            # With two at work, never more than two are taken and not finished.
            finished = sum(e.kind == "image" and e.state is State.DONE for e in lab.sink.events)
            assert taken - finished <= 2
            taken += 1
            yield item

    report = lab.mirror().run(lazily(), 2)

    assert (taken, len(report.copied)) == (6, 6)


def test_a_report_that_keeps_little_counts_as_one_that_keeps_all(lab: Lab) -> None:
    items = [*load_all(lab, images_of(8)), MirrorItem("none:v1", "none:v1")]
    lab.mirror().run(items[:3], 2)

    whole = lab.mirror().run(items[:6], 4)
    small = Mirror(lab.copier, lab.prepare, lab.pool.cancel, Manner(keep=False)).run(items[3:], 4)

    assert len(whole.outcomes) == 6
    assert (whole.brought, whole.up_to_date) == (len(whole.copied), len(whole.present)) == (3, 3)
    assert whole.sent == sum(result.sent for result in whole.copied) > 0
    assert [outcome.item.source for outcome in small.outcomes] == ["none:v1"]
    assert (small.images, small.brought, small.up_to_date) == (6, 2, 3)
    # Two images with a layer and a config of their own; the layers they share are there.
    assert small.arrivals.count()[State.DONE] == 4


def test_no_items_are_an_empty_report(lab: Lab) -> None:
    report = lab.mirror().run([], 4)

    assert (report.outcomes, report.sent) == ([], 0)


def test_wrong_bytes_never_get_a_name(lab: Lab) -> None:
    images = images_of(9)
    items = load_all(lab, images)
    lab.origin.faults.append(Corrupts(at=500, times=ALWAYS))

    report = lab.mirror().run(items, 4)

    assert all(isinstance(each.error, DigestMismatch) for each in report.failed)
    assert report.failed
    for store in list(lab.host.repositories.values()):
        for digest, blob in dict(store.blobs).items():
            assert Digest.of(blob) == digest


def test_large_blob_goes_before_small_ones_and_does_not_hold_them_up() -> None:
    with lab_of(2) as lab:
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
        assert_same(lab.target("app1"), "v1", small)


def test_denied_blob_is_told_once_an_image(lab: Lab) -> None:
    items = load_all(lab, images_of(4))
    lab.origin.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))

    report = lab.mirror().run(items, 2)

    assert len(report.failed) == 4
    assert all(isinstance(outcome.error, AccessDenied) for outcome in report.failed)
