"""Copies to several destinations at the same time: each blob is read from the source once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import MIB, HostLimits
from concil.engine.engine import Engine
from concil.errors import AccessDenied, ConcilError, DigestMismatch, UsageError
from concil.progress.events import Event, State
from concil.ratelimit.bandwidth import BandwidthLimiter
from concil.transfer.fan_out import fan_out
from concil.transfer.mirror.report import Outcome
from tests.engine.copies.sites import (
    BLOB_BYTES,
    IMAGE,
    LARGEST,
    LAYERS,
    MAX_SOURCE_BYTES,
    Denying,
    Site,
    Sites,
    StalledUntil,
)
from tests.engine.engine_setup import CHUNK, QUICK, WAIT, blob_path, engine_of
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import assert_same_image, put_blob, put_image
from tests.support.quick_retries import PERSISTENT


def copy_all(engine: Engine, sites: Sites, places: Sequence[Site]) -> list[Outcome]:
    return list(engine.copy_to(sites.image, [place.address for place in places]))


@pytest.mark.parametrize("count", [2, 3])
def test_each_blob_is_read_once(engine: Engine, sites: Sites, count: int) -> None:
    places = [sites.add() for _ in range(count)]

    outcomes = copy_all(engine, sites, places)

    assert [outcome.error for outcome in outcomes] == count * [None]
    for place in places:
        place.assert_has_image()
        assert place.blob_bytes() == BLOB_BYTES
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_without_workers_one_destination_follows_the_other(sites: Sites) -> None:
    places = [sites.add(), sites.add()]

    with engine_of(replace(QUICK, workers=0)) as engine:
        copy_all(engine, sites, places)

    for place in places:
        place.assert_has_image()
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_each_destination_gets_what_it_lacks(engine: Engine, sites: Sites) -> None:
    """A destination that has a blob costs nothing."""
    first, second, complete = sites.add(), sites.add(), sites.add()
    put_blob(first.registry.url, "copy", LAYERS[0].blob)
    put_blob(second.registry.url, "copy", LAYERS[1].blob)
    put_image(complete.registry.url, "copy", "v1", IMAGE)

    copy_all(engine, sites, [first, second, complete])

    for place, present in ((first, LAYERS[0]), (second, LAYERS[1])):
        place.assert_has_image()
        assert place.blob_bytes() == BLOB_BYTES - len(present.blob)
    assert complete.log.count("POST") + complete.log.count("PUT") == 0
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_what_all_have_is_not_read(engine: Engine, sites: Sites) -> None:
    places = [sites.add(), sites.add()]
    for place in places:
        put_blob(place.registry.url, "copy", LAYERS[0].blob)

    copy_all(engine, sites, places)

    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES - LARGEST


def test_repositories_of_one_registry_mount_from_one_another(engine: Engine, sites: Sites) -> None:
    place, other = sites.add(), sites.add()
    targets = [f"{place.relay.url}/{name}:v1" for name in ("copy", "second", "third")]

    outcomes = engine.copy_to(sites.image, [*targets, other.address])

    assert all(outcome.error is None for outcome in outcomes)
    for name in ("copy", "second", "third"):
        assert_same_image(place.registry.url, name, "v1", IMAGE)
    other.assert_has_image()
    assert place.blob_bytes() == BLOB_BYTES
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_the_source_itself_may_be_among_the_registries(engine: Engine, sites: Sites) -> None:
    place = sites.add()

    engine.copy_to(sites.image, [f"{sites.source.relay.url}/second:v1", place.address])

    assert_same_image(sites.source.registry.url, "second", "v1", IMAGE)
    place.assert_has_image()
    assert sites.source.blob_bytes() == 0
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_layouts_and_archives_beside_a_registry(
    engine: Engine, sites: Sites, tmp_path: Path
) -> None:
    place = sites.add()
    layout = tmp_path / "layout"

    outcomes = engine.copy_to(
        sites.image,
        [f"oci:{layout}:v1", place.address, f"oci-archive:{tmp_path}/a.tar:v1", f"oci:{layout}:v2"],
    )

    assert [outcome.error for outcome in outcomes] == 4 * [None]
    place.assert_has_image()
    for digest, content in IMAGE.blobs.items():
        assert blob_path(layout, digest).read_bytes() == content
    assert (
        engine.copy(f"oci-archive:{tmp_path}/a.tar:v1", f"oci:{layout}:v1").state is State.PRESENT
    )
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_a_stalled_destination_does_not_hold_back_the_others(sites: Sites) -> None:
    slow, fast = sites.add(), sites.add()
    progress = StalledUntil(slow, fast)

    with engine_of(progress=progress) as engine:
        outcomes = copy_all(engine, sites, [slow, fast])

    assert progress.is_done.is_set()
    assert [outcome.error for outcome in outcomes] == [None, None]
    for place in (slow, fast):
        place.assert_has_image()
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_a_slow_destination_reads_from_the_spool(sites: Sites) -> None:
    places = [sites.add(), sites.add(rate=4 * MIB), sites.add()]

    with engine_of() as engine:
        copy_all(engine, sites, places)

    for place in places:
        place.assert_has_image()
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


@pytest.mark.parametrize("size", [0, 2 * MIB])
def test_a_small_spool_holds_nobody_back_for_ever(sites: Sites, size: int) -> None:
    """A destination that does not move loses its claim: it reads the source again later."""
    slow, fast = sites.add(), sites.add()
    progress = StalledUntil(slow, fast)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "_STALL_TIME", 0.1)
        with engine_of(replace(QUICK, spool_size=size), progress=progress) as engine:
            copy_all(engine, sites, [slow, fast])

    for place in (slow, fast):
        place.assert_has_image()
    assert sites.source.relay.bytes_down <= 2 * MAX_SOURCE_BYTES


def test_a_full_spool_makes_the_fast_one_wait_for_a_slow_one_that_moves(sites: Sites) -> None:
    places = [sites.add(), sites.add(rate=8 * MIB)]

    with engine_of(replace(QUICK, spool_size=2 * MIB)) as engine:
        copy_all(engine, sites, places)

    for place in places:
        place.assert_has_image()


def test_one_that_refuses_leaves_the_others(engine: Engine, sites: Sites) -> None:
    denied, place = sites.add(behavior=Denying()), sites.add()

    first, second = copy_all(engine, sites, [denied, place])

    assert isinstance(first.error, AccessDenied)
    assert denied.relay.host in str(first.item)
    assert second.error is None
    place.assert_has_image()
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_one_that_cannot_be_reached_leaves_the_others(engine: Engine, sites: Sites) -> None:
    gone, place = sites.add(), sites.add()
    gone.relay.stop_accepting()

    first, second = copy_all(engine, sites, [gone, place])

    assert first.error is not None
    assert second.error is None
    place.assert_has_image()


def test_one_whose_connections_break_sends_on_from_the_spool(sites: Sites) -> None:
    broken, place = sites.add(), sites.add()
    for _ in range(3):
        broken.relay.add_fault(Fault(action="rst", after=CHUNK // 2, direction="up"))

    with engine_of(replace(QUICK, retry=replace(QUICK.retry, max_attempts=8))) as engine:
        outcomes = copy_all(engine, sites, [broken, place])

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert broken.relay.fired_count == 3
    for each in (broken, place):
        each.assert_has_image()
    assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES


def test_a_source_that_breaks_off_is_read_on(engine: Engine, sites: Sites) -> None:
    places = [sites.add(), sites.add()]
    sites.source.relay.add_fault(Fault(action="rst", after=4 * CHUNK, direction="down"))

    outcomes = copy_all(engine, sites, places)

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sites.source.relay.fired_count == 1
    for place in places:
        place.assert_has_image()


def test_wrong_bytes_of_the_source_are_committed_nowhere(engine: Engine, sites: Sites) -> None:
    places = [sites.add(), sites.add()]
    digest = next(digest for digest, blob in IMAGE.blobs.items() if blob == LAYERS[0].blob)
    path = blob_path(sites.source.directory, digest)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(damaged)

    outcomes = copy_all(engine, sites, places)

    for place, outcome in zip(places, outcomes, strict=True):
        assert isinstance(outcome.error, DigestMismatch)
        assert not blob_path(place.directory, digest).exists()
        assert list(engine.list_tags(f"{place.relay.url}/copy")) == []


def test_bandwidth_of_the_source_is_counted_once(sites: Sites) -> None:
    """And that of each destination for itself."""
    places = [sites.add(), sites.add()]
    hosts = [sites.source.relay.host, places[0].relay.host]
    limits = {host: HostLimits(bandwidth=1024 * MIB) for host in hosts}
    reserved = dict.fromkeys(hosts, 0)

    with engine_of(replace(QUICK, host_limits=limits)) as engine:
        bandwidth = engine._components.transfer_context.bandwidth
        for host in hosts:
            limiter = bandwidth.limiter_for(host)
            assert limiter is not None
            count_reserved(limiter, host, reserved)
        copy_all(engine, sites, places)

    assert reserved == dict.fromkeys(hosts, BLOB_BYTES)


def count_reserved(limiter: BandwidthLimiter, host: str, reserved: dict[str, int]) -> None:
    """Count the bytes that are reserved, and not released again."""
    reserve, release = limiter.reserve, limiter.release
    lock = threading.Lock()

    def counted(count: int, now: float) -> float:
        with lock:
            reserved[host] += count
        return reserve(count, now)

    def released(count: int) -> None:
        with lock:
            reserved[host] -= count
        release(count)

    limiter.reserve, limiter.release = counted, released  # type: ignore[method-assign]


def test_cancelling_ends_all_destinations(sites: Sites) -> None:
    places = [sites.add(rate=8 * MIB), sites.add(rate=8 * MIB)]
    cancel = threading.Event()

    def stop(event: Event) -> None:
        if event.kind == "blob" and event.state is State.MOVING:
            cancel.set()

    with engine_of(progress=stop) as engine:
        with pytest.raises(ConcilError, match="cancel"):
            engine.copy_to(sites.image, [place.address for place in places], cancel=cancel)
        assert all(place.blob_bytes() < BLOB_BYTES for place in places)

        copy_all(engine, sites, places)

    for place in places:
        place.assert_has_image()


def test_the_directory_of_the_spool_has_to_exist(sites: Sites, tmp_path: Path) -> None:
    places = [sites.add(), sites.add()]
    config = replace(QUICK, spool_directory=tmp_path / "missing")
    with engine_of(config) as engine, pytest.raises(UsageError, match="does not exist"):
        copy_all(engine, sites, places)
    assert all(place.log.requests == () for place in places)


@pytest.mark.real
def test_the_real_registry_is_killed_and_started_again(sites: Sites, tmp_path: Path) -> None:
    is_half = threading.Event()
    with DockerRegistry(tmp_path / "docker") as docker:
        killed, place = sites.add(docker), sites.add()

        def watch(event: Event) -> None:
            if killed.relay.host in event.target and event.position > LARGEST // 2:
                is_half.set()

        config = replace(QUICK, retry=PERSISTENT)
        with engine_of(config, progress=watch) as engine, ThreadPoolExecutor(1) as executor:
            copy = executor.submit(copy_all, engine, sites, [killed, place])
            assert is_half.wait(WAIT)
            # By this thread: the registry ends with the thread that has started it.
            docker.restart()
            outcomes = copy.result(WAIT)

        assert [outcome.error for outcome in outcomes] == [None, None]
        for each in (killed, place):
            each.assert_has_image()
        assert sites.source.relay.bytes_down <= MAX_SOURCE_BYTES
