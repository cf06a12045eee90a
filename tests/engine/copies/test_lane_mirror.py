"""Mirrors of many images to several destinations: each blob is read from the source once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import MIB
from concil.engine.engine import Engine
from concil.errors import AccessDenied, Cancelled, UsageError
from concil.progress.events import Event, State
from concil.server import ErrorResponse, RegistryBehavior
from concil.server.http import Request
from concil.transfer.fan_out import fan_out
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome
from tests.engine.copies.sites import Denying, Site, Sites
from tests.engine.engine_setup import CHUNK, QUICK, WAIT, blob_path, engine_of
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import (
    Image,
    assert_same_image,
    make_image,
    make_layer,
    put_blob,
    put_image,
)
from tests.support.quick_retries import PERSISTENT

COUNT = 6  # images, more than a lane copies at the same time with FEW
FEW = replace(QUICK, concurrent_images=4, workers=2)
BASE = make_layer(1, CHUNK + 7)  # shared by all images
IMAGES: list[Image] = [
    make_image(number, (BASE, make_layer(100 + number, 40_000 + number))) for number in range(COUNT)
]
BLOBS = {digest: blob for image in IMAGES for digest, blob in image.blobs.items()}
MANIFEST_BYTES = sum(len(image.manifest) for image in IMAGES)
# What a single destination needs, 2 % more, and the heads of the answers to small requests.
MAX_SOURCE_BYTES = int(1.02 * (sum(map(len, BLOBS.values())) + MANIFEST_BYTES)) + COUNT * 3000


@pytest.fixture
def many(sites: Sites) -> Sites:
    """A source with many images."""
    for number, image in enumerate(IMAGES):
        put_image(sites.source.registry.url, f"team/app{number}", "v1", image)
    sites.source.relay.reset_counters()
    return sites


def items_for(sites: Sites, places: list[Site]) -> list[MirrorItem]:
    return [
        MirrorItem(
            f"{sites.source.relay.url}/team/app{number}:v1",
            f"{places[0].relay.url}/copy/app{number}:v1",
            more_destinations=tuple(
                f"{place.relay.url}/copy/app{number}:v1" for place in places[1:]
            ),
        )
        for number in range(COUNT)
    ]


def assert_has_all(place: Site) -> None:
    for number, image in enumerate(IMAGES):
        assert_same_image(place.registry.url, f"copy/app{number}", "v1", image)


def failed_hosts(report: MirrorReport) -> set[str]:
    return {outcome.item.destination.split("/")[2] for outcome in report.failed}


@pytest.mark.parametrize("workers", [4, 0])
def test_every_blob_of_a_mirror_is_read_once(many: Sites, workers: int) -> None:
    places = [many.add(), many.add(), many.add()]
    put_blob(places[0].registry.url, "copy/app0", BASE.blob)
    put_image(places[1].registry.url, "copy/app3", "v1", IMAGES[3])

    with engine_of(replace(QUICK, workers=workers)) as engine:
        report = engine.mirror(items_for(many, places))

    assert not report.failed
    assert (report.image_count, report.up_to_date_count) == (3 * COUNT, 1)
    for place in places:
        assert_has_all(place)
    assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_a_second_run_reads_no_blob(engine: Engine, many: Sites) -> None:
    places = [many.add(), many.add()]
    engine.mirror(items_for(many, places))
    many.source.log.clear()

    report = engine.mirror(items_for(many, places))

    assert report.up_to_date_count == 2 * COUNT
    assert many.source.log.count("GET", "/blobs/") == 0


class BlockedUntilAllArrived:
    """Stalls the uploads to one site until another one has all images."""

    def __init__(self, blocked: Site, fast: Site) -> None:
        self._fast = fast.relay.host
        self._relay = blocked.relay
        self._relay.add_fault(Fault(action="stall", after=1000, direction="up", times=None))
        self._lock = threading.Lock()
        self.count = 0  # images that the fast one has

    def __call__(self, event: Event) -> None:
        if event.kind == "image" and self._fast in event.target and event.state is State.DONE:
            with self._lock:
                self.count += 1
                if self.count == COUNT:
                    self._relay.clear_faults()


def test_a_blocked_destination_occupies_no_job_of_the_others(many: Sites) -> None:
    blocked, fast = many.add(), many.add()
    progress = BlockedUntilAllArrived(blocked, fast)

    with engine_of(FEW, progress=progress) as engine:
        report = engine.mirror(items_for(many, [blocked, fast]))

    assert progress.count == COUNT
    assert not report.failed
    for place in (blocked, fast):
        assert_has_all(place)
    assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES


class Busy(RegistryBehavior):
    """Answers 429 until it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.is_free = threading.Event()

    def before_request(self, _request: Request) -> None:
        if not self.is_free.is_set():
            raise ErrorResponse("TOOMANYREQUESTS", "slow down", status=429)


def test_a_destination_that_pauses_holds_up_no_other_one(many: Sites) -> None:
    behavior = Busy()
    busy, fast = many.add(behavior=behavior), many.add()
    count = 0

    def note(outcome: Outcome) -> None:
        nonlocal count
        count += fast.relay.host in outcome.item.destination
        if count == 2:
            behavior.is_free.set()

    config = replace(FEW, retry=replace(QUICK.retry, max_attempts=1000))
    with engine_of(config) as engine:
        report = engine.mirror(items_for(many, [busy, fast])[:2], on_image=note)

    assert not report.failed
    assert report.copied_count == 4


def test_a_small_spool_costs_bytes_and_blocks_nobody(
    many: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "_STALL_TIME", 0.1)
    blocked, fast = many.add(), many.add()
    progress = BlockedUntilAllArrived(blocked, fast)

    with engine_of(replace(QUICK, spool_size=MIB), progress=progress) as engine:
        report = engine.mirror(items_for(many, [blocked, fast]))

    assert not report.failed
    for place in (blocked, fast):
        assert_has_all(place)
    assert many.source.relay.bytes_down <= 2 * MAX_SOURCE_BYTES


def test_a_destination_that_refuses_fails_alone(engine: Engine, many: Sites) -> None:
    denied, place = many.add(behavior=Denying()), many.add()

    report = engine.mirror(items_for(many, [denied, place]))

    assert failed_hosts(report) == {denied.relay.host}
    assert len(report.failed) == COUNT
    assert isinstance(report.failed[0].error, AccessDenied)
    assert_has_all(place)
    assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_a_destination_that_is_down_fails_alone(engine: Engine, many: Sites) -> None:
    gone, place = many.add(), many.add()
    gone.relay.stop_accepting()

    report = engine.mirror(items_for(many, [gone, place]))

    assert failed_hosts(report) == {gone.relay.host}
    assert report.copied_count == COUNT
    assert_has_all(place)

    gone.relay.resume_accepting()
    again = engine.mirror([outcome.item for outcome in report.failed])

    assert not again.failed
    assert_has_all(gone)


def test_images_with_one_destination_are_copied_with_the_others(
    engine: Engine, many: Sites, tmp_path: Path
) -> None:
    """In any order, in registries that other images share, and in ones of their own."""
    places, alone = [many.add(), many.add()], many.add()
    items = items_for(many, places)
    for number in (0, 4, 5):
        items[number] = replace(
            items[number],
            destination=f"{alone.relay.url}/copy/app{number}:v1",
            more_destinations=(),
        )
    items[3] = replace(items[3], more_destinations=(f"oci:{tmp_path}/layout:app3",))

    report = engine.mirror(items)

    assert not report.failed
    assert report.image_count == 2 * COUNT - 3
    for number in (0, 4, 5):
        assert_same_image(alone.registry.url, f"copy/app{number}", "v1", IMAGES[number])
    for number in {*range(COUNT)} - {0, 4, 5}:
        assert_same_image(places[0].registry.url, f"copy/app{number}", "v1", IMAGES[number])
    assert blob_path(tmp_path / "layout", next(iter(IMAGES[3].blobs))).exists()


def test_an_archive_that_cannot_be_written_fails_alone(
    engine: Engine, many: Sites, tmp_path: Path
) -> None:
    place = many.add()
    archive = tmp_path / "missing" / "a.tar"
    items = [
        replace(item, more_destinations=(f"oci-archive:{archive}:app{number}",))
        for number, item in enumerate(items_for(many, [place]))
    ]

    report = engine.mirror(items)

    assert len(report.failed) == COUNT
    assert all("a.tar" in outcome.item.destination for outcome in report.failed)
    assert_has_all(place)


def test_outcomes_come_one_at_a_time(engine: Engine, many: Sites) -> None:
    places = [many.add(), many.add()]
    seen: list[Outcome] = []
    busy = threading.Lock()

    def note(outcome: Outcome) -> None:
        assert busy.acquire(blocking=False)
        seen.append(outcome)
        busy.release()

    engine.mirror(items_for(many, places), on_image=note)

    assert {outcome.item for outcome in seen} == {
        single for item in items_for(many, places) for single in item.split()
    }
    assert len(seen) == 2 * COUNT


def test_an_exception_of_a_callback_ends_all_lanes(engine: Engine, many: Sites) -> None:
    places = [many.add(), many.add()]

    def fail(_outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.mirror(items_for(many, places), on_image=fail)

    assert not engine.mirror(items_for(many, places)).failed


def test_an_exception_of_the_items_ends_all_lanes(engine: Engine, many: Sites) -> None:
    def broken() -> Iterator[MirrorItem]:
        yield from items_for(many, [many.add(), many.add()])[:3]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        engine.mirror(broken())


def test_fail_fast_ends_all_lanes(many: Sites) -> None:
    denied, place = many.add(behavior=Denying()), many.add()
    with engine_of(replace(QUICK, concurrent_images=2, workers=2)) as engine:
        report = engine.mirror(items_for(many, [denied, place]), fail_fast=True)

    assert report.failed
    assert report.image_count < 2 * COUNT


def test_cancelling_ends_all_lanes(engine: Engine, many: Sites) -> None:
    cancel = threading.Event()

    with pytest.raises(Cancelled):
        engine.mirror(
            items_for(many, [many.add(), many.add()]),
            on_image=lambda _outcome: cancel.set(),
            cancel=cancel,
        )


def test_a_dry_run_plans_every_destination(engine: Engine, many: Sites) -> None:
    places = [many.add(), many.add()]

    report = engine.mirror(items_for(many, places), dry_run=True)

    assert (report.image_count, len(report.pending)) == (2 * COUNT, 2 * COUNT)
    assert all(place.log.count("POST") == 0 for place in places)


def test_processes_are_refused(many: Sites) -> None:
    with (
        engine_of(replace(QUICK, workers=2)) as engine,
        pytest.raises(UsageError, match="several destinations"),
    ):
        engine.mirror(items_for(many, [many.add(), many.add()]), processes=2)


def test_a_destination_that_comes_later_is_fed_from_the_cache(many: Sites, tmp_path: Path) -> None:
    early, late = [many.add(), many.add()], many.add()
    config = replace(QUICK, cache=f"oci:{tmp_path / 'cache'}")
    with engine_of(config) as engine:
        assert not engine.mirror(items_for(many, early)).failed
    assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES
    many.source.log.clear()

    with engine_of(config) as engine:
        assert not engine.mirror(items_for(many, [late])).failed

    assert_has_all(late)
    assert many.source.log.count("GET", "/blobs/") == 0


@pytest.mark.parametrize("keeper", ["cache", "spool"])
def test_what_a_run_has_read_is_not_read_by_the_next_one(
    many: Sites, tmp_path: Path, keeper: str
) -> None:
    """The first run ends with a blob half read, and less at the slow destination."""
    places = [many.add(), many.add(rate=4 * MIB)]
    config = replace(QUICK, cache=f"oci:{tmp_path / 'cache'}", spool_size=0)
    if keeper == "spool":
        config = replace(QUICK, spool_directory=tmp_path)
    cancel = threading.Event()
    with (
        engine_of(config, progress=lambda event: stop_at_half(event, cancel)) as engine,
        pytest.raises(Cancelled),
    ):
        engine.mirror(items_for(many, places), cancel=cancel)

    with engine_of(config) as engine:
        assert not engine.mirror(items_for(many, places)).failed

    for place in places:
        assert_has_all(place)
    assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES + MANIFEST_BYTES + COUNT * 3000
    if keeper == "spool":
        assert not [path for path in tmp_path.glob("concil-spool/*/**/*") if path.is_file()]


def test_what_a_destination_has_missed_is_kept_with_the_spool(many: Sites, tmp_path: Path) -> None:
    gone, place = many.add(), many.add()
    config = replace(QUICK, spool_directory=tmp_path)
    gone.relay.stop_accepting()
    with engine_of(config) as engine:
        report = engine.mirror(items_for(many, [gone, place]))
    assert failed_hosts(report) == {gone.relay.host}
    gone.relay.resume_accepting()
    many.source.log.clear()

    with engine_of(config) as engine:
        assert not engine.mirror([outcome.item for outcome in report.failed]).failed

    assert_has_all(gone)
    assert many.source.log.count("GET", "/blobs/") == 0


def stop_at_half(event: Event, cancel: threading.Event) -> None:
    if event.kind == "blob" and event.position > CHUNK // 2:
        cancel.set()


@pytest.mark.real
def test_one_is_slow_and_one_is_killed_and_started_again(many: Sites, tmp_path: Path) -> None:
    """Each of the three is right in the end, and the source was read once."""
    has_begun = threading.Event()
    with (
        DockerRegistry(tmp_path / "killed") as docker,
        DockerRegistry(tmp_path / "slow") as slow,
        DockerRegistry(tmp_path / "fast") as fast,
    ):
        killed = many.add(docker, rate=20 * MIB)
        places = [killed, many.add(slow, rate=2 * MIB), many.add(fast, rate=20 * MIB)]

        def watch(event: Event) -> None:
            if killed.relay.host in event.target and event.state is State.DONE:
                has_begun.set()

        config = replace(QUICK, retry=PERSISTENT)
        with engine_of(config, progress=watch) as engine, ThreadPoolExecutor(1) as executor:
            mirror = executor.submit(engine.mirror, items_for(many, places))
            assert has_begun.wait(WAIT)
            # By this thread: the registry ends with the thread that has started it.
            docker.restart()
            report = mirror.result(WAIT)

        assert not report.failed
        for place in places:
            assert_has_all(place)
        assert many.source.relay.bytes_down <= MAX_SOURCE_BYTES
