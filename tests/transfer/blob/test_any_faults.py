"""Whatever goes wrong in whatever order: the right blob, or an error with a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.config import RetryPolicy
from concil.errors import AccessDenied, ConcilError, ConnectionLost, SessionLost
from concil.oci.manifest import Digest
from concil.transfer.context import TransferContext
from concil.transfer.mirror.report import MirrorItem
from tests.support.images import make_image, make_index
from tests.support.scale import at_most
from tests.support.store_contract import Blob
from tests.support.store_faults import (
    BreaksRead,
    Corrupts,
    Fault,
    IgnoresRange,
    LosesChunk,
    LosesCommitAnswer,
    LosesSession,
    RefusesRequests,
)
from tests.transfer.downloads import DownloadHarness
from tests.transfer.image_copies import assert_same, create_harness, load
from tests.transfer.transfer_setup import CONFIG, WatchedStore, create_pool, store_blob
from tests.transfer.uploads import UploadHarness

SIZE = 4_321
BLOB = Blob.random(SIZE)
IMAGES = [
    make_index([make_image(1, (900, 50)), make_image(2, (1_500,))]),
    make_image(2, (1_500,)),
    make_image(3, (900,)),
]
SMALL = replace(
    CONFIG,
    block_size=100,
    range_size=1_000,
    retry=RetryPolicy(backoff_base=0, max_attempts=4, max_lost_sessions=2),
)
quick = settings(deadline=None, database=None, max_examples=at_most(150))

places = st.integers(0, SIZE)
times = st.integers(1, 5)
errors = st.sampled_from(
    [ConnectionLost("no answer"), AccessDenied("no"), SessionLost("gone"), ConcilError("odd")]
)


def refusals(*verbs: str) -> st.SearchStrategy[Callable[[], Fault]]:
    """Requests that fail."""
    return st.builds(
        lambda verb, error, n: lambda: RefusesRequests(verb, error, n),
        st.sampled_from(verbs),
        errors,
        times,
    )


# Each is made anew for each example: a fault counts how often it has happened.
reading: st.SearchStrategy[Callable[[], Fault]] = st.one_of(
    st.builds(lambda at, n: lambda: BreaksRead(at, n), places, times),
    st.builds(lambda at, n: lambda: Corrupts(at, n), places, times),
    st.builds(lambda n: lambda: IgnoresRange(n), times),
    refusals("GET blob", "GET manifest", "HEAD manifest"),
)
writing: st.SearchStrategy[Callable[[], Fault]] = st.one_of(
    st.builds(
        lambda at, kept, n: lambda: LosesChunk(at, keeping=kept, times=n),
        places,
        st.none() | st.integers(0, 1_000),
        times,
    ),
    st.builds(lambda at, n: lambda: LosesSession(at, n), places, times),
    st.builds(lambda n: lambda: LosesCommitAnswer(n), times),
    refusals(
        "POST upload",
        "PATCH upload",
        "PUT upload",
        "GET upload",
        "HEAD blob",
        "POST mount",
        "PUT manifest",
        "HEAD manifest",
    ),
)
faults_of_sources = st.lists(reading, max_size=6)
faults_of_targets = st.lists(writing, max_size=6)


@quick
@given(sources=faults_of_sources, workers=st.sampled_from([0, 1, 4]))
def test_pull(
    tmp_path_factory: pytest.TempPathFactory, sources: list[Callable[[], Fault]], workers: int
) -> None:
    store = WatchedStore()
    store_blob(store, BLOB)
    store.registry.faults += [make() for make in sources]
    pull = DownloadHarness(store, tmp_path_factory.mktemp("pull"), BLOB)

    with create_pool(workers, SMALL) as pool:
        error = pull.on(pool).exception()

    assert store.left_open == 0
    if error is None:
        pull.assert_verified()
    else:
        assert isinstance(error, ConcilError)
        assert not pull.final.exists()


@quick
@given(sources=faults_of_sources, targets=faults_of_targets, chunk=st.integers(1, 2 * SIZE))
def test_push(
    sources: list[Callable[[], Fault]], targets: list[Callable[[], Fault]], chunk: int
) -> None:
    copy = UploadHarness(BLOB, max(chunk, 100))
    copy.source.registry.faults += [make() for make in sources]
    copy.host.faults += [make() for make in targets]

    try:
        copy.push(TransferContext(SMALL))
    except ConcilError:
        # A lost answer to a commit may leave the right blob behind an error.
        assert copy.target.blobs in ({}, {BLOB.descriptor.digest: BLOB.content})
    else:
        assert copy.target.blobs == {BLOB.descriptor.digest: BLOB.content}


@settings(quick, max_examples=at_most(80))
@given(sources=faults_of_sources, targets=faults_of_targets, workers=st.sampled_from([0, 1, 4]))
def test_mirror(
    sources: list[Callable[[], Fault]], targets: list[Callable[[], Fault]], workers: int
) -> None:
    with create_harness(workers, SMALL) as lab:
        for number, image in enumerate(IMAGES):
            load(lab.source(f"app{number}"), image, "v1")
        lab.origin.faults += [make() for make in sources]
        lab.host.faults += [make() for make in targets]
        items = [MirrorItem(f"app{n}:v1", f"app{n}:v1") for n in range(len(IMAGES))]

        report = lab.mirror().run(items, 3 if workers else 1)

        assert len(report.outcomes) == len(IMAGES)
        # Blobs of images that failed may still be on their way.
        for store in list(lab.host.repositories.values()):
            for digest, blob in dict(store.blobs).items():
                assert Digest.from_bytes(blob) == digest
        for outcome in report.outcomes:
            name = outcome.item.destination.partition(":")[0]
            if outcome.error is None:
                assert_same(lab.destination(name), "v1", IMAGES[int(name[-1])])
            else:
                # Its last request, which names the tag, did not succeed.
                assert lab.destination(name).names == {}

        # Once the trouble is over, a second run brings what is missing.
        lab.origin.faults.clear()
        lab.host.faults.clear()
        assert lab.mirror().run(items, 2).failed == []
        for number, image in enumerate(IMAGES):
            assert_same(lab.destination(f"app{number}"), "v1", image)
