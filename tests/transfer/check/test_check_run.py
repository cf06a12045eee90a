"""A check finds what is not in order at the destination, and a repair mends it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from concil.errors import Cancelled, ConnectionLost, NotFound, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.progress.events import Event, State
from concil.transfer.check.check_run import CheckOptions, CheckRun
from concil.transfer.check.verified_blobs import MAX_AGE
from concil.transfer.context import TransferContext
from concil.transfer.findings import Condition, Finding
from concil.transfer.image.job import ImageJob
from concil.transfer.image.result import ImageResult
from concil.transfer.journal import Journal
from concil.transfer.worker_pool import WorkerPool
from tests.support.images import Image, make_image, make_index
from tests.support.memory_store import MemoryReader, MemoryStore
from tests.support.store_faults import Fault, RefusesRequests
from tests.transfer.image_copies import (
    TransferHarness,
    assert_same,
    create_harness,
    load,
    platforms_of,
)
from tests.transfer.transfer_setup import ALWAYS, CONFIG, WAIT

IMAGE = make_image(1, (3_000, 500))
INDEX = platforms_of("linux/amd64", "linux/arm64")
DEEP = CheckOptions(deep=True)
DEEP_REPAIR = CheckOptions(deep=True, repair=True)
QUICK_REPAIR = CheckOptions(repair=True)


@pytest.fixture
def lab(workers: int) -> Iterator[TransferHarness]:
    with create_harness(workers) as lab:
        yield lab


class StubbornStore(MemoryStore):
    """A registry that takes uploads of a blob that it has, and keeps its own bytes."""

    deletes_blobs = True
    deletes_files = True

    def delete_blob(self, digest: Digest, /) -> None:
        self.registry.asked("DELETE blob")
        if not self.deletes_blobs:
            raise UsageError(f"{digest} cannot be deleted")
        if self.deletes_files:
            del self.blobs[digest]

    def keep(self, damaged: dict[Digest, bytes]) -> None:
        self.blobs = _KeptBlobs({**self.blobs, **damaged})


class _KeptBlobs(dict[Digest, bytes]):
    def __setitem__(self, digest: Digest, content: bytes) -> None:
        self.setdefault(digest, content)


def prepared(lab: TransferHarness, image: Image) -> ImageJob:
    """Load an image on both sides."""
    load(lab.source(), image, "v1")
    load(lab.destination(), image, "v1")
    return lab.job(lab.source(), lab.destination())


def check(lab: TransferHarness, job: ImageJob, options: CheckOptions | None = None) -> ImageResult:
    return CheckRun(lab.pool, lab.sink, options or CheckOptions()).copy(job)


def parts(findings: Sequence[Finding]) -> list[tuple[Condition, str, str]]:
    return sorted((f.condition, f.kind, str(f.digest)) for f in findings)


def flip(store: MemoryStore, digest: str) -> bytes:
    """Change one byte of a blob."""
    key = Digest.parse(digest)
    content = bytearray(store.blobs[key])
    content[len(content) // 2] ^= 1
    store.blobs[key] = bytes(content)
    return bytes(content)


def lose(store: MemoryStore, digest: str) -> None:
    del store.blobs[Digest.parse(digest)]


def layer_of(image: Image) -> str:
    """The largest blob."""
    return max(image.all_blobs(), key=lambda digest: len(image.all_blobs()[digest]))


# What is found -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [CheckOptions(), DEEP, QUICK_REPAIR, DEEP_REPAIR])
@pytest.mark.parametrize("image", [IMAGE, INDEX], ids=["image", "index"])
def test_a_complete_image_is_ok(lab: TransferHarness, image: Image, options: CheckOptions) -> None:
    result = check(lab, prepared(lab, image), options)

    assert (result.condition, result.state, result.findings) == (Condition.OK, State.PRESENT, ())
    assert lab.host.received == 0
    assert not lab.host.requests["PUT manifest"]


def test_a_quick_check_reads_no_blob(lab: TransferHarness) -> None:
    job = prepared(lab, INDEX)

    check(lab, job)

    assert lab.host.served == 0
    assert lab.host.requests["GET blob"] == 0
    assert lab.host.requests["HEAD blob"] == len(INDEX.all_blobs())


def test_a_deep_check_reads_every_byte_once(lab: TransferHarness) -> None:
    job = prepared(lab, INDEX)

    check(lab, job, DEEP)

    assert lab.host.served == sum(map(len, INDEX.all_blobs().values()))
    assert lab.origin.served == 0


def test_a_flipped_byte_is_found_only_by_reading(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    flip(lab.destination(), layer_of(IMAGE))

    assert check(lab, job).condition is Condition.OK
    result = check(lab, job, DEEP)

    assert result.condition is Condition.DAMAGED
    assert result.state is State.WAITING
    assert parts(result.findings) == [(Condition.DAMAGED, "blob", layer_of(IMAGE))]
    assert "its bytes hash to sha256:" in result.findings[0].detail


@pytest.mark.parametrize("options", [CheckOptions(), DEEP])
def test_a_missing_blob_is_found(lab: TransferHarness, options: CheckOptions) -> None:
    job = prepared(lab, IMAGE)
    lose(lab.destination(), layer_of(IMAGE))

    result = check(lab, job, options)

    assert result.condition is Condition.MISSING
    assert parts(result.findings) == [(Condition.MISSING, "blob", layer_of(IMAGE))]


def test_a_missing_empty_blob_is_found(lab: TransferHarness) -> None:
    image = make_image(5, (0,))
    empty = Descriptor("application/octet-stream", Digest.from_bytes(b""), 0)
    manifest = image.manifest.replace(b'"layers": [', f'"layers": [{_json(empty)}, '.encode())
    with_empty = replace(image, manifest=manifest, blobs={**image.blobs, str(empty.digest): b""})
    job = prepared(lab, with_empty)
    lose(lab.destination(), str(empty.digest))

    result = check(lab, job, DEEP)

    assert parts(result.findings) == [(Condition.MISSING, "blob", str(empty.digest))]


@pytest.mark.parametrize("options", [CheckOptions(), DEEP])
def test_a_missing_platform_is_found_by_its_name(
    lab: TransferHarness, options: CheckOptions
) -> None:
    job = prepared(lab, INDEX)
    child = INDEX.children[1]
    del lab.destination().manifests[Digest.parse(child.digest)]

    result = check(lab, job, options)

    assert parts(result.findings) == [(Condition.MISSING, "manifest", child.digest)]
    size = len(child.manifest)
    assert result.findings[0].subject == f"manifest {child.digest} (linux/arm64, {size} bytes)"


@pytest.mark.parametrize("options", [CheckOptions(), DEEP])
def test_an_old_tag_is_behind(lab: TransferHarness, options: CheckOptions) -> None:
    job = prepared(lab, IMAGE)
    newer = make_image(2)
    load(lab.source(), newer, "v1")

    result = check(lab, job, options)

    assert parts(result.findings) == [(Condition.BEHIND, "image", newer.digest)]
    assert IMAGE.digest in result.findings[0].detail
    assert lab.host.served == 0


def test_an_image_without_a_copy_is_missing(lab: TransferHarness) -> None:
    load(lab.source(), IMAGE, "v1")

    result = check(lab, lab.job(lab.source(), lab.destination()))

    assert parts(result.findings) == [(Condition.MISSING, "image", IMAGE.digest)]


def test_an_image_that_the_source_lacks_cannot_be_checked(lab: TransferHarness) -> None:
    load(lab.destination(), IMAGE, "v1")

    with pytest.raises(NotFound):
        check(lab, lab.job(lab.source(), lab.destination()))

    assert lab.sink.states("origin/app")[-1] is State.FAILED


def test_a_subset_of_the_platforms_is_compared_with_the_smaller_index(
    lab: TransferHarness,
) -> None:
    index = platforms_of("linux/amd64", "linux/arm64", "linux/s390x")
    load(lab.source(), index, "v1")
    job = lab.job(lab.source(), lab.destination(), "v1", "linux/amd64", "linux/arm64")
    lab.copier.copy(job)

    assert check(lab, job, DEEP).condition is Condition.OK
    newer = platforms_of("linux/amd64", "linux/arm64", "linux/s390x", seed=9)
    load(lab.source(), newer, "v1")
    assert check(lab, job).condition is Condition.BEHIND


def test_a_missing_signature_is_found(lab: TransferHarness) -> None:
    job = replace(prepared(lab, IMAGE), referrers=True)
    signature = make_image(7, (300,), subject=IMAGE)
    load(lab.source(), signature)

    result = check(lab, job)
    repaired = check(lab, job, QUICK_REPAIR)

    assert parts(result.findings) == [(Condition.MISSING, "manifest", signature.digest)]
    assert repaired.condition is Condition.OK
    assert Digest.parse(signature.digest) in lab.destination().manifests
    assert check(lab, job).findings == ()


def test_the_blobs_of_a_signature_are_read_too(lab: TransferHarness) -> None:
    job = replace(prepared(lab, IMAGE), referrers=True)
    signature = make_image(7, (300,), subject=IMAGE)
    load(lab.source(), signature)
    load(lab.destination(), signature)
    flip(lab.destination(), layer_of(signature))

    result = check(lab, job, DEEP)

    assert parts(result.findings) == [(Condition.DAMAGED, "blob", layer_of(signature))]


def test_an_image_without_a_source_is_checked_in_itself(lab: TransferHarness) -> None:
    load(lab.destination(), INDEX, "v1")
    store = lab.destination()
    job = ImageJob(store, "v1", store, "v1")
    lose(store, layer_of(INDEX))
    del store.manifests[Digest.parse(INDEX.children[1].digest)]

    result = check(lab, job, DEEP)

    kinds = {finding.kind: finding.condition for finding in result.findings}
    assert kinds["manifest"] is Condition.MISSING


def test_the_connection_is_blamed_for_wrong_bytes_only_once(lab: TransferHarness) -> None:
    class FlipsOnce(MemoryStore):
        flips = 1

        def open_blob(
            self, blob: Descriptor, start: int = 0, stop: int | None = None
        ) -> MemoryReader:
            reader = super().open_blob(blob, start, stop)
            if blob.digest == Digest.parse(layer_of(IMAGE)) and self.flips:
                self.flips -= 1
                reader._content = b"x" + reader._content[1:]
            return reader

    load(lab.source(), IMAGE, "v1")
    store = FlipsOnce(lab.host, "flips")
    load(store, IMAGE, "v1")

    result = check(lab, lab.job(lab.source(), store), DEEP)

    assert result.condition is Condition.OK
    assert store.flips == 0


@pytest.mark.parametrize("kept", [0, 1_000])
def test_a_blob_that_always_ends_early_is_damaged(lab: TransferHarness, kept: int) -> None:
    class CachingStore(MemoryStore):
        """A registry that announces the size in its cache, and sends what is left of the file."""

        def has_blob(self, blob: Descriptor) -> bool:
            self.registry.asked("HEAD blob")
            return True

    store = CachingStore(lab.host, "caching")
    load(lab.source(), IMAGE, "v1")
    load(store, IMAGE, "v1")
    layer = Digest.parse(layer_of(IMAGE))
    store.blobs[layer] = store.blobs[layer][:kept]
    job = lab.job(lab.source(), store)

    result, repaired = check(lab, job, DEEP), check(lab, job, DEEP_REPAIR)

    assert parts(result.findings) == [(Condition.DAMAGED, "blob", layer_of(IMAGE))]
    assert result.findings[0].detail.startswith(f"it ends at byte {kept} of ")
    assert repaired.condition is Condition.OK
    assert_same(store, "v1", IMAGE)


def test_a_registry_that_cannot_be_reached_is_no_finding(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    lab.host.faults.append(RefusesRequests("GET blob", ConnectionLost("no answer"), ALWAYS))

    with pytest.raises(ConnectionLost):
        check(lab, job, DEEP)

    assert lab.sink.states("origin/app") == [State.STARTED, State.FAILED]


# Repairs -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [QUICK_REPAIR, DEEP_REPAIR])
def test_what_is_missing_is_copied_again(lab: TransferHarness, options: CheckOptions) -> None:
    job = prepared(lab, INDEX)
    lose(lab.destination(), layer_of(INDEX))
    del lab.destination().manifests[Digest.parse(INDEX.children[1].digest)]

    result = check(lab, job, options)

    assert (result.condition, result.state) == (Condition.OK, State.DONE)
    assert all(finding.is_repaired for finding in result.findings)
    assert len(result.findings) == 2
    assert_same(lab.destination(), "v1", INDEX)


def test_a_tag_that_is_behind_is_moved(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    newer = make_image(2)
    load(lab.source(), newer, "v1")

    result = check(lab, job, QUICK_REPAIR)

    assert (result.condition, result.state) == (Condition.OK, State.DONE)
    assert str(result.digest) == newer.digest
    assert_same(lab.destination(), "v1", newer)


def test_a_flipped_byte_is_sent_again(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    flip(lab.destination(), layer_of(IMAGE))

    result = check(lab, job, DEEP_REPAIR)

    assert result.condition is Condition.OK
    assert result.bytes_sent == len(IMAGE.blobs[layer_of(IMAGE)])
    assert_same(lab.destination(), "v1", IMAGE)
    assert lab.sink.states("origin/app") == [State.STARTED, State.DONE]


def test_a_blob_that_the_registry_does_not_overwrite_is_deleted_first(
    lab: TransferHarness,
) -> None:
    store = StubbornStore(lab.host, "stubborn")
    load(lab.source(), IMAGE, "v1")
    load(store, IMAGE, "v1")
    store.keep({Digest.parse(layer_of(IMAGE)): flip(store, layer_of(IMAGE))})

    result = check(lab, lab.job(lab.source(), store), DEEP_REPAIR)

    assert result.condition is Condition.OK
    assert lab.host.requests["DELETE blob"] == 1
    assert_same(store, "v1", IMAGE)


@pytest.mark.parametrize("deletes_blobs", [True, False])
def test_what_cannot_be_mended_has_a_remedy(lab: TransferHarness, deletes_blobs: bool) -> None:
    store = StubbornStore(lab.host, "stubborn")
    store.deletes_blobs, store.deletes_files = deletes_blobs, False
    load(lab.source(), IMAGE, "v1")
    load(store, IMAGE, "v1")
    layer = Digest.parse(layer_of(IMAGE))
    store.keep({layer: flip(store, layer_of(IMAGE))})

    result = check(lab, lab.job(lab.source(), store), DEEP_REPAIR)

    assert (result.condition, result.state) == (Condition.DAMAGED, State.WAITING)
    (finding,) = result.findings
    assert not finding.is_repaired
    assert f"remove blobs/sha256/{layer.hex[:2]}/{layer.hex} from" in finding.remedy
    assert lab.host.requests["DELETE blob"] == 1
    assert layer in store.blobs


def test_a_blob_is_not_deleted_if_the_source_cannot_replace_it(lab: TransferHarness) -> None:
    store = StubbornStore(lab.host, "stubborn")
    load(lab.source(), IMAGE, "v1")
    load(store, IMAGE, "v1")
    layer = Digest.parse(layer_of(IMAGE))
    store.keep({layer: flip(store, layer_of(IMAGE))})
    flip(lab.source(), layer_of(IMAGE))

    result = check(lab, lab.job(lab.source(), store), DEEP_REPAIR)

    assert lab.host.requests["DELETE blob"] == 0
    assert layer in store.blobs
    assert "the source cannot replace it" in result.findings[0].remedy


def test_a_blob_whose_head_is_wrong_is_sent_again(lab: TransferHarness) -> None:
    class CachingStore(MemoryStore):
        """A registry that answers HEAD from a cache."""

        def has_blob(self, blob: Descriptor) -> bool:
            self.registry.asked("HEAD blob")
            return True

    store = CachingStore(lab.host, "caching")
    load(lab.source(), IMAGE, "v1")
    load(store, IMAGE, "v1")
    lose(store, layer_of(IMAGE))

    result = check(lab, lab.job(lab.source(), store), DEEP_REPAIR)

    assert result.condition is Condition.OK
    assert_same(store, "v1", IMAGE)


def test_a_shared_damaged_blob_is_replaced_once(lab: TransferHarness) -> None:
    shared = make_image(1, (3_000,))
    other = make_index([shared])
    jobs = []
    for tag, image in (("v1", shared), ("v2", other)):
        load(lab.source(), image, tag)
        load(lab.destination(), image, tag)
        jobs.append(lab.job(lab.source(), lab.destination(), tag))
    flip(lab.destination(), layer_of(shared))
    run = CheckRun(lab.pool, lab.sink, DEEP_REPAIR)

    results = [run.copy(job) for job in jobs]

    assert [result.condition for result in results] == [Condition.OK, Condition.OK]
    assert lab.host.received == len(shared.blobs[layer_of(shared)])


def test_a_damaged_blob_of_a_missing_image_is_replaced(lab: TransferHarness) -> None:
    load(lab.source(), IMAGE, "v1")
    load(lab.destination(), IMAGE, "other")
    flip(lab.destination(), layer_of(IMAGE))

    result = check(lab, lab.job(lab.source(), lab.destination()), DEEP_REPAIR)

    assert result.condition is Condition.OK
    assert_same(lab.destination(), "v1", IMAGE)


def test_a_failed_repair_keeps_the_findings(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    lose(lab.destination(), layer_of(IMAGE))
    lose(lab.source(), layer_of(IMAGE))

    result = check(lab, job, QUICK_REPAIR)

    assert parts(result.findings) == [(Condition.MISSING, "blob", layer_of(IMAGE))]
    assert not result.findings[0].is_repaired
    assert "has no blob" in result.findings[0].remedy


# Resumption ----------------------------------------------------------------------------


class Runs:
    """Checks of one journal, each in a pool of its own, as processes have them."""

    def __init__(self, path: Path, workers: int) -> None:
        self.path = path
        self.config = replace(CONFIG, workers=workers)
        self.lab: TransferHarness
        self.results: list[ImageResult] = []  # of the last run

    def __call__(
        self,
        options: CheckOptions = DEEP,
        *,
        cancel_after: int | None = None,
        cancel_at: int | None = None,
        finish: bool = True,
    ) -> int:
        """Run a check of all tags; return the bytes that were read.

        Args:
            cancel_after: number of verified blobs.
            cancel_at: position in a blob.
            finish: end the run, as it ends if nothing has failed.
        """
        journal = Journal(self.path)
        pool = WorkerPool(TransferContext(self.config, journal=journal))
        lab = TransferHarness(pool)
        lab.origin, lab.host = self.lab.origin, self.lab.host
        lab.forget_requests()
        verified_count = itertools.count(1)
        self.results = []
        fault = CancelsAt(cancel_at) if cancel_at is not None else None
        lab.host.faults[:] = [fault] if fault is not None else []
        if fault is not None:
            fault.cancel = pool.cancel.set

        def count(event: Event) -> None:
            is_verified = event.kind == "blob" and event.state is State.DONE
            if is_verified and next(verified_count) == cancel_after:
                pool.cancel.set()

        run = CheckRun(pool, count, options)
        try:
            for tag in sorted(lab.destination().names):
                self.results.append(run.copy(lab.job(lab.source(), lab.destination(), tag)))
            if finish and run.verified is not None:
                run.verified.finish()
        finally:
            pool.cancel.set()
            assert pool.close(WAIT)
            journal.close()
        return lab.host.served

    def age(self, seconds: float) -> None:
        """Let all records be older."""
        journal = Journal(self.path)
        journal.execute("UPDATE verified SET updated = updated - ?", seconds)
        journal.close()


@pytest.fixture
def runs(tmp_path: Path, workers: int, lab: TransferHarness) -> Runs:
    runs = Runs(tmp_path / "journal.sqlite", workers)
    runs.lab = lab
    for number in range(3):
        image = make_image(20 + number, (2_000, 700))
        load(lab.source(), image, f"v{number}")
        load(lab.destination(), image, f"v{number}")
    return runs


def size_of(store: MemoryStore) -> int:
    return sum(map(len, store.blobs.values()))


def test_an_interrupted_check_reads_only_the_rest(runs: Runs) -> None:
    store = runs.lab.destination()
    sizes = sorted(len(content) for content in store.blobs.values())

    with pytest.raises(Cancelled):
        runs(cancel_after=4)

    assert runs() <= sum(sizes) - sum(sizes[:4])


def test_an_unfinished_check_is_continued(runs: Runs) -> None:
    total = size_of(runs.lab.destination())

    assert runs(finish=False) == total
    assert runs(finish=False) == 0


def test_a_check_after_a_finished_one_reads_everything(runs: Runs) -> None:
    total = size_of(runs.lab.destination())

    assert runs() == total
    assert runs() == total


def test_a_check_that_continued_another_deletes_its_records_too(runs: Runs) -> None:
    total = size_of(runs.lab.destination())

    runs(finish=False)

    assert runs() == 0
    assert runs() == total


def test_records_older_than_a_day_do_not_count(runs: Runs) -> None:
    total = size_of(runs.lab.destination())
    runs(finish=False)

    runs.age(MAX_AGE + 60)

    assert runs() == total


def test_records_from_the_future_do_not_count(runs: Runs) -> None:
    total = size_of(runs.lab.destination())
    runs(finish=False)

    runs.age(-3600)

    assert runs() == total


def test_without_resume_everything_is_read(runs: Runs) -> None:
    total = size_of(runs.lab.destination())
    runs(finish=False)

    assert runs(CheckOptions(deep=True, resume=False)) == total


def test_a_blob_lost_since_it_was_verified_is_found(runs: Runs) -> None:
    runs(finish=False)
    store = runs.lab.destination()
    digest = max(store.blobs, key=lambda digest: len(store.blobs[digest]))
    del store.blobs[digest]
    conditions = []
    journal = Journal(runs.path)
    pool = WorkerPool(TransferContext(runs.config, journal=journal))
    try:
        run = CheckRun(pool, None, DEEP)
        for tag in sorted(store.names):
            job = runs.lab.job(runs.lab.source(), store, tag)
            conditions.append(run.copy(job).condition)
    finally:
        assert pool.close(WAIT)
        journal.close()

    assert conditions.count(Condition.MISSING) == 1


def test_a_damaged_blob_is_read_again_by_the_next_check(runs: Runs) -> None:
    store = runs.lab.destination()
    damaged = max(store.blobs, key=lambda digest: len(store.blobs[digest]))
    flip(store, str(damaged))

    runs(finish=False)

    assert runs(finish=False) >= len(store.blobs[damaged])


def test_a_record_counts_for_one_repository_only(runs: Runs, lab: TransferHarness) -> None:
    runs(finish=False)
    other = lab.destination("other")
    other.blobs, other.manifests = lab.destination().blobs, lab.destination().manifests
    other.names = {"v0": lab.destination().names["v0"]}
    journal = Journal(runs.path)
    pool = WorkerPool(TransferContext(runs.config, journal=journal))
    lab.forget_requests()
    try:
        CheckRun(pool, None, DEEP).copy(lab.job(lab.source(), other, "v0"))
    finally:
        assert pool.close(WAIT)
        journal.close()

    assert lab.host.served > 0


class CancelsAt(Fault):
    """The run is cancelled while a byte is served."""

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position
        self.cancel: Callable[[], object] = lambda: None

    def serve(self, position: int, piece: memoryview) -> bool:
        is_reached = position <= self.position < position + len(piece)
        if is_reached:
            self.cancel()
        return is_reached


@pytest.fixture
def large(runs: Runs, lab: TransferHarness, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """One image with a blob whose progress is saved."""
    for module in ("blob_inspector", "hash_progress"):
        monkeypatch.setattr(f"concil.transfer.check.{module}.SAVE_INTERVAL", 5_000)
    image = make_image(40, (100_000,))
    for store in (lab.source(), lab.destination()):
        store.names.clear()
        store.blobs.clear()
        load(store, image, "v1")
    return Digest.parse(layer_of(image))


def test_a_large_blob_is_continued_in_its_middle(
    runs: Runs, large: Digest, lab: TransferHarness
) -> None:
    size = len(lab.destination().blobs[large])

    with pytest.raises(Cancelled):
        runs(cancel_at=60_000)
    second = runs()

    assert 0 < second <= size - 55_000
    assert runs() == size_of(lab.destination())


@pytest.mark.parametrize("where", ["before", "after"])
def test_damage_is_found_wherever_a_large_blob_was_interrupted(
    runs: Runs, large: Digest, lab: TransferHarness, where: str
) -> None:
    store = lab.destination()
    content = bytearray(store.blobs[large])
    content[10_000 if where == "before" else 90_000] ^= 1
    store.blobs[large] = bytes(content)
    with pytest.raises(Cancelled):
        runs(cancel_at=60_000)

    runs()

    assert [result.condition for result in runs.results] == [Condition.DAMAGED]


def test_a_large_blob_that_was_damaged_only_on_its_way_is_ok(
    runs: Runs, large: Digest, lab: TransferHarness
) -> None:
    store = lab.destination()
    whole = store.blobs[large]
    store.blobs[large] = b"x" + whole[1:]
    with pytest.raises(Cancelled):
        runs(cancel_at=60_000)
    store.blobs[large] = whole

    runs()

    assert [result.condition for result in runs.results] == [Condition.OK]


def test_a_saved_state_that_makes_no_sense_is_ignored(
    runs: Runs, large: Digest, lab: TransferHarness
) -> None:
    with pytest.raises(Cancelled):
        runs(cancel_at=60_000)
    journal = Journal(runs.path)
    journal.execute("UPDATE verified SET state = '12:nonsense' WHERE state != ''")
    journal.close()

    runs()

    assert [result.condition for result in runs.results] == [Condition.OK]


def test_a_cancelled_check_ends(lab: TransferHarness) -> None:
    job = prepared(lab, IMAGE)
    lab.pool.cancel.set()

    with pytest.raises(Cancelled):
        check(lab, job, DEEP)


def test_all_threads_may_check_at_once(lab: TransferHarness) -> None:
    job = prepared(lab, INDEX)
    run = CheckRun(lab.pool, lab.sink, DEEP)
    results: list[ImageResult] = []
    threads = [threading.Thread(target=lambda: results.append(run.copy(job))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert [result.condition for result in results] == [Condition.OK] * 4
    assert lab.host.served == sum(map(len, INDEX.all_blobs().values()))


def _json(descriptor: Descriptor) -> str:
    return str(descriptor.to_json()).replace("'", '"')
