"""Two engines at the same work leave it right, in one process or in two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem, MirrorReport
from tests.engine.engine_setup import CHUNK, QUICK, WAIT, Registry, blob_path, engine_of, file_of
from tests.support.images import (
    assert_same_image,
    get_blob,
    make_image,
    make_index,
    make_layer,
    put_blob,
    put_image,
)
from tests.transfer.transfer_setup import run_concurrently

# A rare fault is what these tests look for: one failure is enough.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=0)]

SHARED = make_layer(1, 3 * CHUNK)
IMAGES = [
    make_index([make_image(n, [SHARED, 50_000 * n]), make_image(50 + n, [SHARED, 10])])
    for n in range(6)
]


def on_its_own(config: TransferConfig, journal: Path, work: Callable[[Engine], None]) -> None:
    """Run some work on an engine of its own."""
    remembered = Journal(journal)
    with engine_of(config, journal=remembered) as engine:
        work(engine)
    remembered.close()


def test_two_engines_push_the_same_blob(
    config: TransferConfig, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 5 * CHUNK)

    def push(engine: Engine) -> None:
        engine.push_blob(content.path, f"{registry.url}/{repository}")

    run_concurrently(*[partial(on_its_own, config, tmp_path / "journal", push)] * 3)

    assert get_blob(registry.url, repository, content.digest) == content.bytes


def test_two_engines_pull_the_same_blob_into_the_same_file(
    config: TransferConfig, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 5 * CHUNK)
    put_blob(registry.url, repository, content.bytes)
    (tmp_path / "target").mkdir()

    def pull(engine: Engine) -> None:
        address = f"{registry.url}/{repository}@{content.digest}"
        engine.pull_blob(address, tmp_path / "target" / "file")

    run_concurrently(*[partial(on_its_own, config, tmp_path / "journal", pull)] * 3)

    assert (tmp_path / "target" / "file").read_bytes() == content.bytes
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]


@pytest.fixture
def items(registry: Registry, repository: str) -> list[MirrorItem]:
    """Put the images into a registry; return what mirrors them into another repository."""
    for number, image in enumerate(IMAGES):
        put_image(registry.url, f"{repository}/from", f"v{number}", image)
    source = f"{registry.url}/{repository}/from"
    return [
        MirrorItem(f"{source}:v{n}", f"{registry.url}/{repository}/to{n % 2}:v{n}")
        for n in range(len(IMAGES))
    ]


def test_two_engines_mirror_the_same_list(
    config: TransferConfig,
    registry: Registry,
    repository: str,
    items: list[MirrorItem],
    tmp_path: Path,
) -> None:
    reports: list[MirrorReport] = []

    def mirror(engine: Engine) -> None:
        reports.append(engine.mirror(items))

    run_concurrently(*[partial(on_its_own, config, tmp_path / "journal", mirror)] * 2)

    assert [report.failed for report in reports] == [[], []]
    for number, image in enumerate(IMAGES):
        assert_same_image(registry.url, f"{repository}/to{number % 2}", f"v{number}", image)


def test_two_engines_mirror_into_one_layout(
    config: TransferConfig,
    registry: Registry,
    repository: str,
    items: list[MirrorItem],
    tmp_path: Path,
) -> None:
    layout = tmp_path / "layout"
    into = [MirrorItem(each.source, f"oci:{layout}:v{n}") for n, each in enumerate(items)]
    reports: list[MirrorReport] = []

    def mirror(engine: Engine) -> None:
        reports.append(engine.mirror(into))

    run_concurrently(*[partial(on_its_own, config, tmp_path / "journal", mirror)] * 2)

    assert [report.failed for report in reports] == [[], []]
    with EmbeddedRegistry(layout, read_only=True):
        pass  # it reads as a layout
    with engine_of(config) as engine:
        for number, image in enumerate(IMAGES):
            back = f"{registry.url}/{repository}/back"
            engine.copy(f"oci:{layout}:v{number}", f"{back}:v{number}")
            assert_same_image(registry.url, f"{repository}/back", f"v{number}", image)


CHILD = """
import sys
from concil.engine.engine import Engine
from concil.transfer.mirror.mirror import MirrorItem

target, *sources = sys.argv[1:]
with Engine() as engine:
    report = engine.mirror(
        MirrorItem(source, f"{target}:{source.rpartition(':')[2]}") for source in sources
    )
print(len(report.outcomes), [str(outcome.error) for outcome in report.failed])
"""


@pytest.mark.process
def test_two_processes_pull_into_one_layout(embedded: EmbeddedRegistry, tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        put_image(embedded.url, "from", f"v{number}", image)
    sources = [f"{embedded.url}/from:v{number}" for number in range(len(IMAGES))]
    layout = tmp_path / "layout"

    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, f"oci:{layout}", *some],
            stdout=subprocess.PIPE,
            text=True,
        )
        for some in (sources, list(reversed(sources)))
    ]
    message = [child.communicate(timeout=WAIT)[0] for child in children]

    assert message == ["6 []\n"] * 2
    for image in IMAGES:
        assert blob_path(layout, image.digest).read_bytes() == image.manifest
        for digest, blob in image.all_blobs().items():
            assert blob_path(layout, digest).read_bytes() == blob
    with engine_of(QUICK) as engine:
        for number in range(len(IMAGES)):
            engine.copy(f"oci:{layout}:v{number}", f"{embedded.url}/back:v{number}")
            assert_same_image(embedded.url, "back", f"v{number}", IMAGES[number])
