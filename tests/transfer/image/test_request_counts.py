"""What is known from this run, or from an earlier one, is not asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.progress.events import State
from concil.store.layout.store import LayoutDirectory, LayoutStore
from concil.transfer.context import TransferContext
from concil.transfer.image.copier import ImageJob
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem
from concil.transfer.worker_pool import WorkerPool
from tests.support.images import make_image, make_index, make_layer
from tests.support.memory_store import MemoryHost, MemoryStore
from tests.support.store_faults import RefusesRequests
from tests.transfer.image.test_missing_content import Strict
from tests.transfer.image_copies import TransferHarness, assert_same, load, platforms_of
from tests.transfer.transfer_setup import ALWAYS, CONFIG, WAIT

AMD64, ARM64 = "linux/amd64", "linux/arm64"
SHARED = make_layer(1, 3_000)
FIRST, SECOND = make_image(1, (SHARED, 700)), make_image(2, (SHARED, 500))


class Runs:
    """Runs of one user: each has threads of its own, all have the journal and the hosts."""

    def __init__(self, path: Path, workers: int) -> None:
        self.path = path
        self.origin = MemoryHost("origin")
        self.host = MemoryHost("target", chunk_size=1_000)
        self._config = replace(CONFIG, workers=workers)

    @contextmanager
    def run(self) -> Iterator[TransferHarness]:
        """Run a lab that remembers what the earlier ones did."""
        journal = Journal(self.path)
        pool = WorkerPool(TransferContext(self._config, journal=journal))
        lab = TransferHarness(pool)
        lab.origin, lab.host = self.origin, self.host
        lab.forget_requests()
        try:
            yield lab
        finally:
            pool.cancel.set()
            assert pool.close(WAIT), "a worker has not ended"
            journal.close()


@pytest.fixture
def runs(tmp_path: Path, workers: int) -> Runs:
    return Runs(tmp_path / "journal.sqlite", workers)


def copy(runs: Runs, *job: object, immutable: bool = False) -> TransferHarness:
    """Copy an image in a run of its own; return the lab it was done in."""
    with runs.run() as lab:
        source, target, *rest = job
        assert isinstance(source, str)
        assert isinstance(target, str)
        made = lab.job(lab.source(source), lab.destination(target), *map(str, rest))
        lab.copier.copy(replace(made, immutable=immutable))
    return lab


# Aliases ---------------------------------------------------------------------------


@pytest.mark.parametrize("coordinators", [1, 4])
def test_manifests_of_an_image_with_many_tags_are_fetched_once(
    harness: TransferHarness, coordinators: int
) -> None:
    index = platforms_of(AMD64, ARM64)
    tags = ["1", "1.2", "1.2.3", "latest"]
    for tag in tags:
        load(harness.source(), index, tag)

    report = harness.mirror().run([MirrorItem(f"app:{t}", f"app:{t}") for t in tags], coordinators)

    assert report.failed == []
    assert harness.origin.requests["GET manifest"] == 3  # the index and its two
    assert harness.host.requests["PUT manifest"] == 2 + len(tags)
    # As many small blobs are sent without a question as there are manifests to read back.
    assert harness.host.requests["HEAD blob"] == len(index.all_blobs()) - 3
    for tag in tags:
        assert_same(harness.destination(), tag, index)


def test_tag_of_an_image_that_was_lost_meanwhile_brings_all_of_it(harness: TransferHarness) -> None:
    load(harness.source(), FIRST, "v1")
    load(harness.source(), FIRST, "v2")
    target = Strict(harness.host, "strict")
    harness.copier.copy(harness.job(harness.source(), target, "v1"))
    for held in (target.blobs, target.manifests, target.names):
        held.clear()

    harness.copier.copy(harness.job(harness.source(), target, "v2"))

    assert_same(target, "v2", FIRST)


def test_tag_goes_back_to_an_image_of_an_earlier_run(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
    copy(runs, "app", "app")
    load(lab.source(), FIRST, "stable")

    after = copy(runs, "app", "app", "stable")

    assert after.origin.requests == {"HEAD manifest": 1, "GET manifest": 1}
    # The journal says that the blobs are there: they are asked for all the same.
    blobs = len(FIRST.blobs)
    assert after.host.requests == {"HEAD manifest": 1, "HEAD blob": blobs, "PUT manifest": 1}
    assert_same(after.destination(), "stable", FIRST)


# Mounts ----------------------------------------------------------------------------


def test_blob_of_an_earlier_run_is_mounted_without_being_asked_for(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source("one"), FIRST, "v1")
        load(lab.source("two"), SECOND, "v1")
    copy(runs, "one", "one")

    after = copy(runs, "two", "two")

    assert_same(after.destination("two"), "v1", SECOND)
    assert after.host.requests["POST mount"] == 1
    assert after.host.requests["HEAD blob"] == len(SECOND.blobs) - 2  # nor for its config
    assert after.host.received == sum(map(len, SECOND.blobs.values())) - len(SHARED.blob)


def test_mount_from_where_the_blob_is_gone_is_an_upload(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source("one"), FIRST, "v1")
        load(lab.source("two"), SECOND, "v1")
    copy(runs, "one", "one")
    lab.destination("one").blobs.clear()

    after = copy(runs, "two", "two")

    assert_same(after.destination("two"), "v1", SECOND)
    assert after.host.received == sum(map(len, SECOND.blobs.values()))


def test_registry_that_does_not_mount_is_not_asked_for_ever(runs: Runs) -> None:
    image = make_image(3, (100,) * 30)
    with runs.run() as lab:
        load(lab.source(), image, "v1")
    copy(runs, "app", "one")
    lab.host.faults.append(RefusesRequests("POST mount", times=ALWAYS))

    after = copy(runs, "app", "two")

    assert_same(after.destination("two"), "v1", image)
    assert 3 <= after.host.requests["POST mount"] <= 3 + 4  # as many as were under way


# Up to date ------------------------------------------------------------------------


@pytest.mark.parametrize("platforms", [(AMD64,), (AMD64, ARM64)])
def test_chosen_platforms_that_are_up_to_date_cost_two_heads(
    runs: Runs, platforms: tuple[str, ...]
) -> None:
    with runs.run() as lab:
        load(lab.source(), platforms_of(AMD64, ARM64, "linux/s390x"), "v1")
    copy(runs, "app", "app", "v1", *platforms)

    after = copy(runs, "app", "app", "v1", *platforms)

    assert after.origin.requests == after.host.requests == {"HEAD manifest": 1}
    load(lab.source(), platforms_of(AMD64, ARM64, "linux/s390x", seed=50), "v1")
    assert copy(runs, "app", "app", "v1", *platforms).host.received > 0


def test_other_platforms_than_last_time_are_copied(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), index := platforms_of(AMD64, ARM64, "linux/s390x"), "v1")
    copy(runs, "app", "app", "v1", AMD64)

    after = copy(runs, "app", "app", "v1", ARM64)

    assert str(after.destination().names["v1"]) == index.children[1].digest


class Moves(MemoryStore):
    """A repository whose tag moves between the HEAD and the GET."""

    later: Digest

    def get_manifest(self, reference: str) -> Manifest:
        self.names["v1"] = self.later
        return super().get_manifest(reference)


def test_tag_that_moves_while_it_is_copied_is_not_remembered_as_the_old_one(runs: Runs) -> None:
    old, new = platforms_of(AMD64, ARM64), platforms_of(AMD64, ARM64, seed=50)
    source = Moves(runs.origin, "moving")
    before = load(source, old, "v1")
    source.later = load(source, new)
    job = ImageJob(source, "v1", runs.host.repository("app"), "v1", (Platform.parse(AMD64),))
    with runs.run() as lab:
        lab.copier.copy(job)
    source.names["v1"] = source.later = before

    with runs.run() as lab:
        lab.copier.copy(job)

    assert str(lab.destination().names["v1"]) == old.children[0].digest


def test_children_that_are_there_are_not_fetched(harness: TransferHarness) -> None:
    children = [make_image(n, (300,), platform=p) for n, p in enumerate((AMD64, ARM64))]
    load(harness.source(), make_index(children), "v1")
    harness.copier.copy(harness.job(harness.source(), harness.destination()))
    changed = make_index([children[0], make_image(9, (300,), platform=ARM64)])
    load(harness.source(), changed, "v1")
    harness.forget_requests()

    harness.copier.copy(harness.job(harness.source(), harness.destination()))

    assert_same(harness.destination(), "v1", changed)
    assert harness.origin.requests["GET manifest"] == 2  # the index and the new one
    assert harness.host.requests["HEAD blob"] == 1  # the layer of the new one, not its config


# Immutable tags --------------------------------------------------------------------


def test_nobody_is_asked_about_an_immutable_image_that_was_brought(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
    copy(runs, "app", "app", immutable=True)

    after = copy(runs, "app", "app", immutable=True)

    assert after.origin.requests == after.host.requests == {}
    [event] = [each for each in after.sink.events if each.kind == "image"]
    assert event.state is State.PRESENT


def test_immutable_image_that_was_there_before_is_known_after_a_look(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
        load(lab.destination(), FIRST, "v1")

    first = copy(runs, "app", "app", immutable=True).host.requests.copy()
    second = copy(runs, "app", "app", immutable=True).host.requests

    assert first == {"HEAD manifest": 1}
    assert second == {}


def test_lost_journal_costs_a_look_at_each_side(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
    copy(runs, "app", "app", immutable=True)
    runs.path.unlink()

    after = copy(runs, "app", "app", immutable=True)

    assert after.origin.requests == after.host.requests == {"HEAD manifest": 1}


def test_immutable_image_of_another_target_is_copied(runs: Runs) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
    copy(runs, "app", "one", immutable=True)

    after = copy(runs, "app", "two", immutable=True)

    assert_same(after.destination("two"), "v1", FIRST)


def test_layout_is_looked_at_even_for_an_immutable_image(runs: Runs, tmp_path: Path) -> None:
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
        layout = LayoutStore(LayoutDirectory(tmp_path / "layout", create=True))
        job = ImageJob(lab.source(), "v1", layout, "v1", immutable=True)
        lab.copier.copy(job)
        layout.delete_manifest("v1")
        assert lab.copier.copy(job).state is State.DONE
        lab.forget_requests()
        assert lab.copier.copy(job).state is State.PRESENT

    assert layout.find_manifest("v1") is not None
    assert lab.origin.requests == {}


# Repositories that the destination does not know -----------------------------------------


class WasEmpty(MemoryStore):
    """A repository that is known to have had no images."""

    was_empty = True


def test_blobs_of_an_unknown_repository_are_not_looked_up(harness: TransferHarness) -> None:
    load(harness.source(), FIRST, "v1")
    destination = WasEmpty(harness.host, "app")

    harness.copier.copy(harness.job(harness.source(), destination))

    assert_same(destination, "v1", FIRST)
    assert harness.host.requests["HEAD blob"] == 0


def test_blobs_that_an_earlier_run_has_sent_are_looked_up_in_any_repository(runs: Runs) -> None:
    """That run was killed before it put a manifest."""
    with runs.run() as lab:
        load(lab.source(), FIRST, "v1")
    before = copy(runs, "app", "app")
    destination = WasEmpty(runs.host, "app")
    destination.blobs = before.destination().blobs

    with runs.run() as lab:
        lab.copier.copy(lab.job(lab.source(), destination))

    assert_same(destination, "v1", FIRST)
    assert lab.host.requests["HEAD blob"] == len(FIRST.blobs)
    assert lab.host.received == before.host.received
