"""Images are verified before they are copied, and what was verified is what is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from concil.errors import UntrustedImage
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.progress.events import State
from concil.transfer.context import TransferContext
from concil.transfer.image.copier import ImageCopier
from concil.transfer.image.dry_run import DryRun
from concil.transfer.image.history import CopiedImage
from concil.transfer.image.job import ImageJob
from concil.transfer.image.referrers import ReferrersTagError
from concil.transfer.journal import Journal
from concil.transfer.signatures.verifier import SignatureReader
from concil.transfer.worker_pool import WorkerPool
from tests.support.images import Image, make_image
from tests.support.memory_store import MemoryStore
from tests.support.referrers import make_cosign_artifact
from tests.transfer.image_copies import (
    TransferHarness,
    assert_same,
    create_harness,
    load,
    platforms_of,
)
from tests.transfer.transfer_setup import CONFIG, WAIT

IMAGE, NEWER = make_image(1), make_image(2)


@dataclass(frozen=True)
class Accepts:
    """A verifier that accepts some digests, and remembers which it was asked about."""

    digests: frozenset[str]
    policy_id: str = "a policy"
    asked: list[str] = field(default_factory=list, compare=False)

    def verify(self, reader: SignatureReader, digest: Digest) -> None:
        self.asked.append(str(digest))
        if str(digest) not in self.digests:
            raise UntrustedImage(f"{reader.image_name}: not accepted")


def accepts(*images: Image, policy_id: str = "a policy") -> Accepts:
    return Accepts(frozenset(image.digest for image in images), policy_id)


@pytest.fixture
def harness(workers: int) -> Iterator[TransferHarness]:
    with create_harness(workers) as harness:
        yield harness


def job(harness: TransferHarness, verifier: Accepts | None, *platforms: str) -> ImageJob:
    made = harness.job(harness.source(), harness.destination(), "v1", *platforms)
    return replace(made, verifier=verifier)


def test_an_image_is_copied_once_it_is_accepted(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    verifier = accepts(IMAGE)

    result = harness.copier.copy(job(harness, verifier))

    assert result.state is State.DONE
    assert verifier.asked == [IMAGE.digest]
    assert_same(harness.destination(), "v1", IMAGE)


def test_nothing_is_written_of_an_image_that_is_refused(harness: TransferHarness) -> None:
    load(harness.source(), NEWER, "v1")
    load(harness.destination(), IMAGE, "v1")

    with pytest.raises(UntrustedImage):
        harness.copier.copy(job(harness, accepts(IMAGE)))

    assert_same(harness.destination(), "v1", IMAGE)
    assert not [verb for verb in harness.host.requests if verb.split()[0] in ("PUT", "POST")]
    assert harness.host.received == 0
    assert harness.sink.events[-1].state is State.FAILED


class MovingStore(MemoryStore):
    """A repository whose tag moves to another image each time that it is looked up or read."""

    images: tuple[Image, ...] = ()

    def find_manifest(self, reference: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
        found = super().find_manifest(reference)
        self._move(reference)
        return found

    def get_manifest(self, reference: str) -> Manifest:
        found = super().get_manifest(reference)
        self._move(reference)
        return found

    def _move(self, reference: str) -> None:
        if reference == "v1":
            digests = [Digest.parse(image.digest) for image in self.images]
            self.names["v1"] = digests[(digests.index(self.names["v1"]) + 1) % len(digests)]


@pytest.mark.parametrize("is_present", [False, True])
@pytest.mark.parametrize("accepted", [IMAGE, NEWER])
def test_what_was_verified_is_copied_although_the_tag_moves(
    harness: TransferHarness, is_present: bool, accepted: Image
) -> None:
    source = MovingStore(harness.origin, "moving")
    source.images = (IMAGE, NEWER)
    load(source, NEWER, "v1")
    load(source, IMAGE, "v1")
    old = make_image(3)
    if is_present:
        load(harness.destination(), old, "v1")
    verifier = accepts(accepted)
    moving = replace(harness.job(source, harness.destination()), verifier=verifier)

    try:
        result = harness.copier.copy(moving)
    except UntrustedImage:
        assert verifier.asked[0] != accepted.digest
        assert ("v1" in harness.destination().names) == is_present
    else:
        assert str(result.digest) == accepted.digest == verifier.asked[0]
        assert_same(harness.destination(), "v1", accepted)


def test_an_accepted_index_covers_the_platforms_that_are_copied_from_it(
    harness: TransferHarness,
) -> None:
    index = platforms_of("linux/amd64", "linux/arm64", "linux/arm/v7")
    load(harness.source(), index, "v1")
    verifier = accepts(index)

    harness.copier.copy(job(harness, verifier, "linux/arm64"))

    assert_same(harness.destination(), "v1", index.children[1])
    assert verifier.asked == [index.digest]
    harness.copier.copy(replace(job(harness, accepts(index), "linux/arm64", "linux/amd64")))


def test_an_accepted_platform_is_copied_alone_and_does_not_cover_its_index(
    harness: TransferHarness,
) -> None:
    index = platforms_of("linux/amd64", "linux/arm64")
    load(harness.source(), index, "v1")
    amd64, arm64 = index.children

    harness.copier.copy(job(harness, accepts(arm64), "linux/arm64"))
    assert_same(harness.destination(), "v1", arm64)

    with pytest.raises(UntrustedImage):
        harness.copier.copy(job(harness, accepts(arm64), "linux/amd64"))
    with pytest.raises(UntrustedImage):
        harness.copier.copy(job(harness, accepts(amd64, arm64)))
    assert_same(harness.destination(), "v1", arm64)


def test_an_image_that_this_run_has_accepted_is_not_verified_again(
    harness: TransferHarness,
) -> None:
    load(harness.source(), IMAGE, "v1")
    load(harness.source(), IMAGE, "v2")
    verifier = accepts(IMAGE)

    for tag in ("v1", "v2"):
        copied = harness.job(harness.source(), harness.destination(), tag)
        harness.copier.copy(replace(copied, verifier=verifier))

    assert verifier.asked == [IMAGE.digest]
    assert_same(harness.destination(), "v2", IMAGE)


def test_a_dry_run_refuses_what_a_copy_would(harness: TransferHarness) -> None:
    load(harness.source(), IMAGE, "v1")
    dry_run = DryRun(harness.pool)

    with pytest.raises(UntrustedImage):
        dry_run.copy(job(harness, accepts(NEWER)))
    assert dry_run.copy(job(harness, accepts(IMAGE))).state is State.WAITING


def test_a_list_of_referrers_is_no_image_that_somebody_signs(harness: TransferHarness) -> None:
    tag = IMAGE.digest.replace(":", "-")
    load(harness.source(), make_cosign_artifact(), tag)
    listed = harness.job(harness.source(), harness.destination(), tag)

    with pytest.raises(ReferrersTagError):
        harness.copier.copy(replace(listed, verifier=accepts(IMAGE)))


@pytest.fixture
def recording(workers: int, tmp_path: Path) -> Iterator[TransferHarness]:
    """Run a harness whose copier has a journal."""
    journal = Journal(tmp_path / "journal")
    pool = WorkerPool(TransferContext(replace(CONFIG, workers=workers), journal=journal))
    yield TransferHarness(pool)
    pool.cancel.set()
    assert pool.close(WAIT)
    journal.close()


def next_run(harness: TransferHarness) -> ImageCopier:
    harness.pool.context.journal.flush()
    return ImageCopier(harness.pool, harness.sink)


def test_an_image_that_is_up_to_date_is_verified_once_for_each_policy(
    recording: TransferHarness,
) -> None:
    load(recording.source(), IMAGE, "v1")
    load(recording.destination(), IMAGE, "v1")
    first, again, other = accepts(IMAGE), accepts(IMAGE), accepts(IMAGE, policy_id="another")

    for verifier in (first, again, other):
        assert next_run(recording).copy(job(recording, verifier)).state is State.PRESENT

    assert (len(first.asked), len(again.asked), len(other.asked)) == (1, 0, 1)


def test_an_unsigned_image_that_is_up_to_date_is_reported(recording: TransferHarness) -> None:
    load(recording.source(), IMAGE, "v1")
    assert next_run(recording).copy(job(recording, None)).state is State.DONE

    for _ in range(2):
        with pytest.raises(UntrustedImage):
            next_run(recording).copy(job(recording, accepts(NEWER)))

    assert_same(recording.destination(), "v1", IMAGE)


def test_what_is_copied_is_verified_whatever_the_journal_says(recording: TransferHarness) -> None:
    load(recording.source(), IMAGE, "v1")
    next_run(recording).copy(job(recording, accepts(IMAGE)))
    del recording.destination().names["v1"]
    verifier = accepts(IMAGE)

    next_run(recording).copy(job(recording, verifier))

    assert verifier.asked == [IMAGE.digest]


def test_a_false_record_of_a_platform_does_not_let_a_repair_copy_another_image(
    recording: TransferHarness,
) -> None:
    index = platforms_of("linux/amd64", "linux/arm64")
    load(recording.source(), index, "v1")
    load(recording.source(), NEWER)
    load(recording.destination(), NEWER, "v1")
    recording.destination().blobs.clear()
    wanted = (Platform.parse("linux/arm64"),)
    rechecked = replace(job(recording, accepts(index)), platforms=wanted, recheck=True)
    copier = next_run(recording)
    false = CopiedImage(Digest.parse(index.digest), Digest.parse(NEWER.digest))
    copier.history.record_image(rechecked.key, false)

    copier.copy(rechecked)

    assert_same(recording.destination(), "v1", index.children[1])
    unsigned = {Digest.parse(digest) for digest in NEWER.blobs}
    assert not unsigned & recording.destination().blobs.keys()


@pytest.mark.parametrize("change", ["immutable", "no_clobber"])
def test_images_that_are_not_compared(recording: TransferHarness, change: str) -> None:
    """An immutable one is verified by what was copied; one that is left alone is not."""
    load(recording.source(), IMAGE, "v1")
    options = {"immutable": True} if change == "immutable" else {"overwrite": False}
    next_run(recording).copy(replace(job(recording, None), **options))  # type: ignore[arg-type]
    verified = replace(job(recording, accepts(NEWER)), **options)  # type: ignore[arg-type]

    if change == "immutable":
        with pytest.raises(UntrustedImage):
            next_run(recording).copy(verified)
    else:
        assert next_run(recording).copy(verified).state is State.PRESENT


def test_a_platform_that_is_up_to_date_is_verified_by_its_index(
    recording: TransferHarness,
) -> None:
    index = platforms_of("linux/amd64", "linux/arm64")
    load(recording.source(), index, "v1")
    wanted = (Platform.parse("linux/arm64"),)
    next_run(recording).copy(replace(job(recording, None), platforms=wanted))

    result = next_run(recording).copy(replace(job(recording, accepts(index)), platforms=wanted))

    assert result.state is State.PRESENT
