"""A mirror on a cluster comes to what one machine comes to, whoever dies on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.cluster.driver import DaskCluster
from concil.cluster.worker import EngineSettings
from concil.config import MIB, RetryPolicy, TransferConfig
from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import (
    Cancelled,
    ConnectionLost,
    RegistryNotFound,
    Unreachable,
    UntrustedImage,
    UsageError,
)
from concil.progress.events import Event, State
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome
from concil.trust.policy import TrustPolicy
from tests.cluster.conftest import IMAGES, LARGE, DestinationRegistry, SourceRegistry
from tests.support.dask import DaskProcesses
from tests.support.images import assert_same_image, digest_of, make_image, put_image
from tests.support.referrers import digest_tag, list_tag_referrers, make_referrer, put_referrer
from tests.support.relay import Relay
from tests.support.signatures import make_key, make_simple_signature, write_public_key

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

QUICK = TransferConfig(
    workers=4, chunk_size=2 * MIB, retry=RetryPolicy(backoff_base=0.01, max_backoff=0.1)
)


@contextmanager
def cluster_of(dask: DaskProcesses, **more: object) -> Iterator[DaskCluster]:
    with DaskCluster(dask.address, EngineSettings(QUICK), **more) as cluster:  # type: ignore[arg-type]
        yield cluster


def told(report: MirrorReport, prefix: str) -> dict[str, tuple[str, str]]:
    """What a report says of each image, whatever it was put below."""
    return {
        o.result.destination.partition(f"/{prefix}/")[2]: (
            o.result.state.value,
            str(o.result.digest),
        )
        for o in report.outcomes
        if o.result is not None
    }


def assert_all_arrived(origin: SourceRegistry, target: DestinationRegistry, prefix: str) -> None:
    for name, image in origin.images.items():
        repository, _, tag = name.partition(":")
        assert_same_image(target.registry.url, f"{prefix}/{repository}", tag, image)


def test_three_workers_come_to_what_one_machine_comes_to(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    with Engine(QUICK, journal=Journal(None)) as engine:
        alone = engine.mirror(source.items(destination.registry.host, "alone"))
    host = destination.relay.host

    with cluster_of(dask) as cluster:
        first = cluster.mirror(source.items(host, "many"))
        again = cluster.mirror(source.items(host, "many"))

    assert first.failed == []
    assert told(first, "many") == told(alone, "alone")
    assert_all_arrived(source, destination, "many")
    assert again.up_to_date_count == IMAGES


def test_a_large_blob_is_sent_once(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    with cluster_of(dask) as cluster:
        report = cluster.mirror(source.items(destination.relay.host, "m"))

    assert report.failed == []
    assert destination.log.body_bytes("PATCH") == len(LARGE.blob)


def test_a_worker_that_dies_in_the_middle_of_a_blob_costs_time_only(
    source: SourceRegistry, destination: DestinationRegistry, tmp_path: Path
) -> None:
    destination.relay.rate = 6 * MIB  # a second: the large layer takes two
    reports: list[MirrorReport] = []
    with DaskProcesses(tmp_path / "dask", workers=1) as dask, cluster_of(dask) as cluster:
        run = threading.Thread(
            target=lambda: reports.append(cluster.mirror(source.items(destination.relay.host, "m")))
        )
        run.start()
        dask.add_worker()
        destination.relay.wait_for(lambda relay: relay.bytes_up > 3 * MIB, 60)

        dask.workers[0].kill()
        run.join(120)

        assert reports, dask.log()[-3000:]
    assert reports[0].failed == []
    assert_all_arrived(source, destination, "m")


def test_workers_verify_signatures(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry, tmp_path: Path
) -> None:
    key = make_key()
    policy = TrustPolicy.from_keys([write_public_key(tmp_path / "cosign.pub", key)])
    name, image = next(iter(source.images.items()))
    repository = name.partition(":")[0]
    signature = make_simple_signature(key, image)
    put_image(source.registry.url, repository, digest_tag(image, ".sig"), signature)
    items = [
        replace(item, verifier=policy) for item in source.items(destination.relay.host, "verified")
    ][:2]

    with cluster_of(dask) as cluster:
        report = cluster.mirror(items)

    assert told(report, "verified") == {name: ("done", image.digest)}
    (failed,) = report.failed
    assert isinstance(failed.error, UntrustedImage)
    assert failed.error.reason == "no signature was found"


def test_a_worker_that_joins_late_gets_images_for_all_of_its_threads(
    source: SourceRegistry, destination: DestinationRegistry, tmp_path: Path
) -> None:
    destination.relay.latency = 0.05  # seconds: so that images overlap
    in_flight: set[str] = set()
    most = 0

    def record(event: Event) -> None:
        nonlocal most
        if event.kind == "image":
            (in_flight.discard if event.state.is_final else in_flight.add)(event.subject)
            most = max(most, len(in_flight))

    with DaskProcesses(tmp_path / "dask", workers=1, threads=1) as dask:

        def add_worker(_outcome: Outcome) -> None:
            if len(dask.workers) == 1:
                dask.add_worker(threads=4)

        with cluster_of(dask, progress=record) as cluster:
            report = cluster.mirror(source.items(destination.relay.host, "m"), on_image=add_worker)

    assert report.failed == []
    assert most > 2  # without it, two: one under way, and one that waits
    assert_all_arrived(source, destination, "m")


def test_images_with_several_destinations_are_read_once_by_their_worker(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    with Relay(source.registry.host) as relay, cluster_of(dask) as cluster:
        items = [
            MirrorItem(
                f"http://{relay.host}/{name}",
                f"http://{destination.registry.host}/a/{name}",
                more_destinations=(f"http://{destination.relay.host}/b/{name}",),
            )
            for name in source.images
        ]
        first = cluster.mirror(items[:1])
        read = relay.bytes_down
        rest = cluster.mirror(items[1:])

    assert first.failed == rest.failed == []
    assert len(rest.outcomes) == rest.image_count == 2 * (IMAGES - 1)
    assert_all_arrived(source, destination, "a")
    assert_all_arrived(source, destination, "b")
    assert read < len(LARGE.blob) * 1.02


def test_progress_comes_back(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    events: list[Event] = []
    with cluster_of(dask, progress=events.append) as cluster:
        cluster.mirror(source.items(destination.relay.host, "m"))

    ended = {event.subject for event in events if event.kind == "image" and event.state.is_final}
    assert len(ended) == IMAGES
    large = [event for event in events if event.subject == digest_of(LARGE.blob)]
    assert State.DONE in {event.state for event in large}
    assert {event.total for event in large} == {len(LARGE.blob)}
    # Which worker, and which of its threads: a timeline has a lane for each.
    assert all(event.worker.startswith("tcp://127.0.0.1:") for event in events)
    assert len({event.worker for event in events}) > 3


def test_signatures_are_copied(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    image = make_image(40, [1_000])
    signature = make_referrer(image)
    put_image(source.registry.url, "signed", "v1", image)
    put_referrer(source.registry.url, "signed", signature)
    address, there = f"{source.registry.url}/signed:v1", f"{destination.relay.url}/m/signed:v1"

    with cluster_of(dask) as cluster:
        report = cluster.mirror([MirrorItem(address, there, referrers=True)])

    assert report.failed == []
    listed = list_tag_referrers(destination.registry.url, "m/signed", digest_tag(image))
    assert [entry["digest"] for entry in listed] == [signature.digest]
    assert_same_image(destination.registry.url, "m/signed", signature.digest, signature)


def test_an_image_that_fails_is_an_outcome(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    wrong = MirrorItem(f"{source.registry.url}/none:v1", f"{destination.relay.url}/m/none:v1")
    right = source.items(destination.relay.host, "m")[0]
    seen: list[Outcome] = []

    with cluster_of(dask) as cluster:
        report = cluster.mirror([wrong, right], on_image=seen.append)

    [failed] = report.failed
    assert failed.item is wrong
    assert isinstance(failed.error, RegistryNotFound)
    assert failed.error.status == 404
    assert len(report.copied) == 1
    assert len(seen) == 2


def test_after_a_failure_no_more_images_are_handed_out(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    wrong = MirrorItem(f"{source.registry.url}/none:v1", f"{destination.relay.url}/m/none:v1")
    taken = 0

    def endless() -> Iterator[MirrorItem]:
        nonlocal taken
        while True:
            taken += 1
            yield replace(wrong, destination=f"{wrong.destination}{taken}")

    with cluster_of(dask) as cluster:
        report = cluster.mirror(endless(), fail_fast=True)

    assert report.failed
    assert report.image_count == taken


def test_cancelled_mirror_resumes_when_it_is_run_again(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    items = source.items(destination.relay.host, "m")
    with cluster_of(dask) as cluster:

        def stop(_: Outcome) -> None:
            cluster.cancel()

        with pytest.raises(Cancelled):
            cluster.mirror(items, on_image=stop)
    with cluster_of(dask) as again:
        report = again.mirror(items)

    assert report.failed == []
    assert report.up_to_date_count >= 1
    assert_all_arrived(source, destination, "m")


def test_no_worker_log_shows_a_password(
    dask: DaskProcesses, source: SourceRegistry, destination: DestinationRegistry
) -> None:
    host = destination.relay.host
    item = MirrorItem(f"http://alice:pa55word@{host}/none:v1", f"http://bob:s3cret@{host}/m:v1")

    with cluster_of(dask) as cluster:
        report = cluster.mirror([item])

    assert len(report.failed) == 1
    assert "pa55word" not in dask.log()
    assert "s3cret" not in dask.log()


def test_a_cluster_without_workers_is_given_up(tmp_path: Path) -> None:
    with (
        DaskProcesses(tmp_path / "dask", workers=0) as dask,
        cluster_of(dask, worker_timeout=1) as cluster,
        pytest.raises(ConnectionLost, match="no worker"),
    ):
        cluster.mirror([MirrorItem("http://127.0.0.1:1/a:v1", "http://127.0.0.1:1/b:v1")])


def test_a_scheduler_that_is_gone_is_an_error(
    source: SourceRegistry, destination: DestinationRegistry, tmp_path: Path
) -> None:
    with DaskProcesses(tmp_path / "dask", workers=1) as dask, cluster_of(dask) as cluster:

        def end(_: Outcome) -> None:
            dask.close()

        with pytest.raises(ConnectionLost, match="scheduler"):
            cluster.mirror(source.items(destination.relay.host, "m"), on_image=end)


def test_unreachable_scheduler_is_an_error() -> None:
    with pytest.raises(Unreachable, match=r"no Dask scheduler responds at 'tcp://127\.0\.0\.1:1'"):
        DaskCluster("tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    "address", ["nonsense", "nonsense://x:1", "tcp://", "tcp://host:port", "tcp://u:p@h:1"]
)
def test_what_is_no_address_is_an_error(address: str) -> None:
    with pytest.raises(UsageError, match="not an address of a scheduler"):
        DaskCluster(address)


def test_an_archive_has_only_one_writer(
    dask: DaskProcesses, source: SourceRegistry, tmp_path: Path
) -> None:
    item = MirrorItem(f"{source.registry.url}/app0:v0", f"oci-archive:{tmp_path}/all.tar:app0:v0")

    with cluster_of(dask) as cluster, pytest.raises(UsageError, match="a separate archive"):
        cluster.mirror([item])

    assert list(tmp_path.iterdir()) == []


def test_passwords_do_not_travel_in_the_clear() -> None:
    access = EndpointOptions(credentials=Credentials("alice", "pa55word"))
    settings = EngineSettings(QUICK, Endpoints(access, EndpointOptions()))

    with pytest.raises(UsageError, match="unencrypted") as excinfo:
        DaskCluster("tcp://192.0.2.1:8786", settings)

    assert "pa55word" not in str(excinfo.value)
