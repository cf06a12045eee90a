"""A mirror between two real registries sends each blob once, with any number of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from concil.config import MIB
from concil.progress.events import State
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import FULL, QUICK, engine_of
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    make_image,
    make_layer,
    put_blob,
    put_image,
)
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = 200 if FULL else 30
LARGE = 1024 * MIB if FULL else 64 * MIB  # bytes of the one large layer
# Three of ten layers, and one of its own: as images of one base do.
LAYERS = [make_layer(n, 1_000 + 7 * n) for n in range(10)]


def image_of(number: int) -> Image:
    """Return a small image that shares its layers with others."""
    shared = [LAYERS[(number + step) % 10] for step in (0, 3, 7)]
    return make_image(1_000 + number, [*shared, 200 + number])


def name_of(number: int) -> str:
    """Return where a small image is: twenty tags in each of ten repositories."""
    return f"small/{number % 10}:v{number}"


@dataclass(frozen=True)
class Origin:
    """A registry with all the images."""

    registry: DockerRegistry
    names: list[str]
    unique: int  # bytes of all blobs, each counted once
    blobs: int  # how many different ones


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Fill a real registry in memory."""
    images = {name_of(number): image_of(number) for number in range(SMALL)}
    images["large:v1"] = make_image(9_999, [LAYERS[0], LARGE])
    sizes: dict[str, int] = {}
    with (
        DockerRegistry(tmp_path_factory.mktemp("origin"), in_memory=True) as registry,
        requests.Session() as session,
    ):
        there: set[tuple[str, str]] = set()
        for name, image in images.items():
            repository, _, tag = name.partition(":")
            for digest, blob in image.all_blobs().items():
                sizes[digest] = len(blob)
                if (repository, digest) not in there:
                    put_blob(registry.url, repository, blob, session)
                    there.add((repository, digest))
            bare = replace(image, blobs={})
            put_image(registry.url, repository, tag, bare, session=session)
        yield Origin(registry, list(images), sum(sizes.values()), len(sizes))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Run an empty real registry in memory."""
    with DockerRegistry(tmp_path_factory.mktemp("target"), in_memory=True) as registry:
        yield registry


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
def test_every_blob_is_sent_once_and_a_second_run_sends_nothing(
    origin: Origin,
    target: DockerRegistry,
    workers: int,
    record_property: Callable[[str, object], None],
) -> None:
    config = replace(QUICK, workers=workers, chunk_size=10 * MIB, block_size=MIB)
    read, sent = RequestLog(), RequestLog()
    with (
        Relay(origin.registry.host, observer=read) as source,
        Relay(target.host, observer=sent) as destination,
    ):
        items = [
            MirrorItem(f"{source.url}/{name}", f"{destination.url}/w{workers}/{name}")
            for name in origin.names
        ]

        began = time.monotonic()
        with engine_of(config) as engine:
            first = engine.mirror(items)
        record_property("seconds", round(time.monotonic() - began, 1))

        assert first.failed == []
        assert len(first.copied) == SMALL + 1
        assert first.bytes_sent == origin.unique
        uploaded = sent.body_bytes("PATCH") + sent.body_bytes("PUT", "/blobs/uploads/")
        assert uploaded == origin.unique
        assert sent.count("PUT", "/blobs/uploads/") == origin.blobs
        assert read.count("GET", "/blobs/") == origin.blobs

        read.clear()
        sent.clear()
        with engine_of(config) as engine:
            second = engine.mirror(items)

        assert len(second.present) == SMALL + 1
        assert sent.body_bytes() == second.bytes_sent == 0
        assert {request.method for request in (*read.requests, *sent.requests)} == {"HEAD"}
        assert read.count() + sent.count() <= 2 * len(items)
    for number in range(0, SMALL, 7):
        repository, _, tag = name_of(number).partition(":")
        assert_same_image(target.url, f"w{workers}/{repository}", tag, image_of(number))


def test_interrupted_mirror_resumes(origin: Origin, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    items = [
        MirrorItem(f"{origin.registry.url}/{name}", f"oci:{layout}:{name}")
        for name in origin.names[:20]
    ]

    def some() -> Iterator[MirrorItem]:
        yield from items[:10]
        engine.cancel()
        yield items[10]

    with (
        engine_of(replace(QUICK, concurrent_images=1)) as engine,
        pytest.raises(Exception, match="cancel"),
    ):
        engine.mirror(some())
    with engine_of() as again:
        report = again.mirror(items)

    assert report.failed == []
    states = {o.item: o.result.state for o in report.outcomes if o.result is not None}
    assert [states[item] for item in items[:10]] == [State.PRESENT] * 10
    assert len(report.copied) == 10
