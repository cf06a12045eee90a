"""A mirror with several processes comes to what one process comes to."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine.processes import child_process
from concil.errors import Cancelled, RegistryNotFound, UsageError
from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.engine.engine_setup import QUICK, engine_of
from tests.engine.processes.conftest import IMAGES, SHARED, Destination, Source
from tests.support.child_pids import child_pids, command_line, environment
from tests.support.images import assert_same_image, digest_of, make_image, put_image
from tests.support.referrers import digest_tag, list_tag_referrers, make_referrer, put_referrer

pytestmark = [pytest.mark.real, pytest.mark.process]
SHARED_DIGEST = digest_of(SHARED.blob)


def uploads(destination: Destination) -> Counter[str]:
    """How often each blob was sent, in whichever way."""
    finished = re.compile(r"/blobs/uploads/.*[?&]digest=([a-z0-9]+)(?:%3A|:)([0-9a-f]+)")
    matches = [finished.search(each.path) for each in destination.log.matching("PUT")]
    return Counter(f"{match[1]}:{match[2]}" for match in matches if match)


def test_every_image_is_there_and_every_blob_was_sent_once(
    source: Source, destination: Destination
) -> None:
    told: list[Outcome] = []
    items = source.items(destination.relay.url)
    with engine_of() as engine:
        report = engine.mirror(items, processes=3, on_image=told.append)
        again = engine.mirror(items, processes=2)

    assert report.failed == []
    assert sorted(outcome.item.source for outcome in told) == sorted(i.source for i in items)
    assert all(any(outcome.item is item for item in items) for outcome in told)
    assert (len(report.copied), again.up_to_date_count) == (IMAGES, IMAGES)
    source.assert_copied(destination.registry.url)
    sent = uploads(destination)
    blobs = {digest for image in source.images.values() for digest in image.blobs}
    assert dict(sent) == dict.fromkeys(blobs, 1)
    assert report.bytes_sent == sum(
        len(content)
        for content in {k: v for i in source.images.values() for k, v in i.blobs.items()}.values()
    )


def test_requests_are_those_of_one_process_and_a_few_for_each_more(
    source: Source, destination: Destination
) -> None:
    with engine_of() as engine:
        engine.mirror(source.items(f"{destination.relay.url}/one"))
    alone = len(destination.log.requests)
    destination.log.clear()

    with engine_of() as engine:
        engine.mirror(source.items(f"{destination.relay.url}/two"), processes=2)

    # A mount is tried where a process does not know yet how the registry answers.
    assert len(destination.log.requests) <= alone + IMAGES


def test_events_of_all_processes_arrive(source: Source, destination: Destination) -> None:
    events: list[Event] = []
    with engine_of(progress=events.append) as engine:
        engine.mirror(source.items(destination.relay.url), processes=2)

    done = {e.subject for e in events if e.kind == "image" and e.state is State.DONE}
    assert len(done) == IMAGES
    shared = [event for event in events if event.subject == SHARED_DIGEST]
    assert {event.total for event in shared} == {len(SHARED.blob)}
    assert {event.worker.rpartition(" ")[0] for event in events} == {"process 1", "process 2"}


def test_there_are_no_more_processes_than_images(
    source: Source, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    items = source.items(destination.relay.url)
    with engine_of(progress=events.append) as engine:
        engine.mirror(items[:2], processes=8)
        monkeypatch.setattr(child_process.ChildProcess, "start", None)
        report = engine.mirror(items[2:3], processes=8)
        nothing = engine.mirror([], processes=8)

    assert {e.worker.rpartition(" ")[0] for e in events} == {"process 1", "process 2", ""}
    assert (len(report.copied), nothing.image_count) == (1, 0)


def test_an_image_that_fails_is_an_outcome(source: Source, destination: Destination) -> None:
    wrong = MirrorItem(f"{source.url}/none:v1", f"{destination.relay.url}/none:v1")
    invalid = MirrorItem("UPPER CASE", f"{destination.relay.url}/x:v1")
    right = source.items(destination.relay.url)[0]

    with engine_of() as engine:
        report = engine.mirror([wrong, right, invalid], processes=2)

    errors = {outcome.item: outcome.error for outcome in report.failed}
    assert set(errors) == {wrong, invalid}
    missing = errors[wrong]
    assert isinstance(missing, RegistryNotFound)
    assert missing.status == 404
    assert isinstance(errors[invalid], UsageError)
    assert len(report.copied) == 1


def test_after_a_failure_no_more_images_are_started(
    source: Source, destination: Destination
) -> None:
    wrong = MirrorItem(f"{source.url}/none:v1", f"{destination.relay.url}/none")
    taken = 0

    def endless() -> Iterator[MirrorItem]:
        nonlocal taken
        while True:
            taken += 1
            yield replace(wrong, destination=f"{wrong.destination}:v{taken}")

    with engine_of() as engine:
        report = engine.mirror(endless(), processes=2, fail_fast=True)

    assert report.failed
    assert report.image_count == taken


def test_a_layout_has_all_images(source: Source, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    items = [
        MirrorItem(f"{source.url}/{name}", f"oci:{layout}:{name.replace(':', '-')}")
        for name in source.images
    ]

    with engine_of() as engine:
        report = engine.mirror(items, processes=2)
        again = engine.mirror(items, processes=2)

    assert (report.failed, len(report.copied), again.up_to_date_count) == ([], IMAGES, IMAGES)
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    assert {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
        for entry in entries
    } == {name.replace(":", "-"): image.digest for name, image in source.images.items()}
    blobs = {
        f"sha256:{path.name}": path.read_bytes() for path in (layout / "blobs/sha256").iterdir()
    }
    assert all(digest_of(content) == digest for digest, content in blobs.items())
    assert set(blobs) == {
        digest for image in source.images.values() for digest in (image.digest, *image.blobs)
    }
    assert report.bytes_sent == sum(
        len(content)
        for digest, content in blobs.items()
        if digest not in {image.digest for image in source.images.values()}
    )


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_an_archive_has_only_one_writer(
    source: Source, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process.ChildProcess, "start", None)
    items = [
        MirrorItem(f"{source.url}/{name}", f"{scheme}:{tmp_path}/all.tar:{name}")
        for name in source.images
    ]

    with engine_of() as engine, pytest.raises(UsageError, match="only one process can write"):
        engine.mirror(items, processes=2)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("processes", "error"), [(0, UsageError), (-1, UsageError), ("2", TypeError)]
)
def test_what_is_no_number_of_processes_is_an_error(processes: int, error: type[Exception]) -> None:
    with engine_of() as engine, pytest.raises(error, match="processes"):
        engine.mirror([], processes=processes)


def test_a_dry_run_starts_no_process(
    source: Source, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process.ChildProcess, "start", None)
    with engine_of() as engine:
        report = engine.mirror(source.items(destination.relay.url), processes=2, dry_run=True)

    assert len(report.pending) == IMAGES
    assert destination.log.count("PUT") == 0


def test_one_more_mirror_resumes_a_cancelled_one(
    source: Source, destination: Destination, tmp_path: Path
) -> None:
    items, cancel = source.items(destination.relay.url), threading.Event()
    journal = Journal(tmp_path / "journal")
    with engine_of(journal=journal) as engine:
        with pytest.raises(Cancelled):
            engine.mirror(items, processes=2, cancel=cancel, on_image=lambda _: cancel.set())
        assert child_pids(os.getpid()) == []
        report = engine.mirror(items, processes=2)
    journal.close()

    assert report.failed == []
    assert report.up_to_date_count >= 1
    source.assert_copied(destination.registry.url)


@pytest.mark.parametrize("callback", ["on_image", "progress", "items"])
def test_what_a_callback_raises_ends_the_mirror(
    source: Source, destination: Destination, callback: str
) -> None:
    calls = Counter[str]()

    def fail(where: str) -> None:
        calls[where] += 1
        if where == callback:
            raise ZeroDivisionError(where)

    def items() -> Iterator[MirrorItem]:
        yield from source.items(destination.relay.url)[:4]
        fail("items")

    with (
        engine_of(progress=lambda _: fail("progress")) as engine,
        pytest.raises(ZeroDivisionError, match=callback),
    ):
        engine.mirror(items(), processes=2, on_image=lambda _: fail("on_image"))

    assert child_pids(os.getpid()) == []
    assert callback != "on_image" or calls["on_image"] == 1


def test_signatures_of_one_image_in_two_processes_are_all_listed(
    source: Source, destination: Destination
) -> None:
    image = make_image(40, [1_000])
    for number in range(2):
        put_image(source.url, f"processes/signed{number}", "v1", image)
    signatures = [make_referrer(image, f"{n}".encode()) for n in range(8)]
    for number, signature in enumerate(signatures):
        put_referrer(source.url, f"processes/signed{number % 2}", signature)
    items = [
        MirrorItem(
            f"{source.url}/processes/signed{number}:v1",
            f"{destination.relay.url}/m/signed:v{number}",
            referrers=True,
        )
        for number in range(2)
    ]

    with engine_of() as engine:
        report = engine.mirror(items, processes=2)

    assert report.failed == []
    listed = list_tag_referrers(destination.registry.url, "m/signed", digest_tag(image))
    assert {entry["digest"] for entry in listed} == {each.digest for each in signatures}


def test_passwords_are_neither_arguments_nor_in_the_environment(
    source: Source, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "concil")
    host = destination.relay.host
    wrong = MirrorItem(f"http://alice:pa55word@{host}/none:v1", f"http://bob:s3cret@{host}/m:v1")
    seen: list[str] = []

    def look(_: Outcome) -> None:
        for pid in child_pids(os.getpid()):
            seen.extend((command_line(pid), environment(pid)))

    with engine_of() as engine:
        items = [wrong, *source.items(destination.relay.url)]
        report = engine.mirror(items, processes=2, on_image=look)

    assert len(report.failed) == 1
    assert seen
    text = "".join([*seen, caplog.text, str(report.failed[0].error)])
    assert "pa55word" not in text
    assert "s3cret" not in text


class Deprecated(RegistryBehavior):
    """Warns in each answer."""

    def after_response(self, request: Request, reply: Response) -> Response:
        reply.headers["Warning"] = '299 - "the end is near"'
        return reply


def test_a_warning_of_a_registry_is_logged_once(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedRegistry(tmp_path / "r", behavior=Deprecated()) as registry, engine_of() as engine:
        report = engine.mirror(source.items(registry.url), processes=3)

        assert report.failed == []
        assert [warning.text for warning in engine.warnings] == ["the end is near"]
        source.assert_copied(registry.url)
    assert caplog.text.count("the end is near") == 1


def test_images_of_one_repository_are_mounted_once(
    source: Source, destination: Destination
) -> None:
    items = [
        MirrorItem(f"{source.url}/{name}", f"{destination.relay.url}/all:t{number}")
        for number, name in enumerate(source.images)
    ]
    with engine_of(replace(QUICK, workers=2)) as engine:
        report = engine.mirror(items, processes=2)

    assert report.failed == []
    assert uploads(destination)[SHARED_DIGEST] == 1
    for number, image in enumerate(source.images.values()):
        assert_same_image(destination.registry.url, "all", f"t{number}", image)


def test_one_job_is_one_process(
    source: Source, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process.ChildProcess, "start", None)
    for workers in (0, 1):
        with engine_of(TransferConfig(workers=workers)) as engine:
            report = engine.mirror(source.items(f"{destination.relay.url}/{workers}"), processes=2)
        assert len(report.copied) == IMAGES
