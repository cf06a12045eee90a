"""Memory is bounded whatever the sizes of the blobs: measured in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from concil.config import MIB
from concil.server import EmbeddedRegistry
from tests.engine.engine_setup import file_of
from tests.support.docker_registry import MEMORY
from tests.support.images import make_image, make_layer, put_image
from tests.support.scale import FULL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BLOB = (2048 if FULL else 192) * MIB + 7  # bytes
LAYER = (64 if FULL else 8) * MIB  # bytes of each of the mirror's layers
TIMEOUT = 280  # seconds for one child

# VmHWM, and not ru_maxrss: that one remembers the process that started this one.
PEAK = """
import re, sys
from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.transfer.mirror.mirror import MirrorItem

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])

"""
PUSH = PEAK + "with Engine() as engine: engine.push_blob(sys.argv[1], sys.argv[2])\nprint(peak())"
PULL = PEAK + "with Engine() as engine: engine.pull_blob(sys.argv[1], sys.argv[2])\nprint(peak())"
COPY_TO = (
    PEAK
    + """
with Engine(TransferConfig(spool_directory=sys.argv[1])) as engine:
    outcomes = engine.copy_to(f"{sys.argv[2]}/app:v1", [f"{url}/app:v1" for url in sys.argv[3:]])
assert all(outcome.error is None for outcome in outcomes), outcomes
print(peak())
"""
)
COPY = (
    PEAK
    + """
with Engine(TransferConfig(workers=16, concurrent_images=8)) as engine:
    report = engine.mirror(
        MirrorItem(f"{sys.argv[1]}/{n}:v1", f"{sys.argv[2]}/{n}:v1") for n in range(20)
    )
assert len(report.copied) == 20, report.failed
print(peak())
"""
)


def peak_of(script: str, *arguments: str) -> int:
    """Run a script in a process of its own; return its peak memory in bytes."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("COV")}  # it needs memory too
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=plain,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout) * 1024


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a directory in memory: a disk would be what is measured."""
    path = Path(tempfile.mkdtemp(prefix="concil-", dir=MEMORY))
    yield path
    shutil.rmtree(path)


def test_push_and_pull_of_a_large_blob_stay_below_64_mib(
    memory: Path, record_property: Callable[[str, object], None]
) -> None:
    content = file_of(memory, BLOB)
    with EmbeddedRegistry(memory / "registry") as registry:
        pushed = peak_of(PUSH, str(content.path), f"{registry.url}/large")
        content.path.unlink()
        pulled = peak_of(PULL, f"{registry.url}/large@{content.digest}", str(memory / "file"))

    record_property("push_mib", pushed / MIB)
    record_property("pull_mib", pulled / MIB)
    assert (memory / "file").stat().st_size == BLOB
    assert pushed < 64 * MIB
    assert pulled < 64 * MIB


def test_mirror_with_sixteen_workers_stays_below_128_mib(
    memory: Path, record_property: Callable[[str, object], None]
) -> None:
    base = make_layer(1, LAYER)
    with (
        EmbeddedRegistry(memory / "source") as source,
        EmbeddedRegistry(memory / "target") as target,
    ):
        for number in range(20):
            put_image(source.url, str(number), "v1", make_image(2 + number, [base, LAYER]))

        peak = peak_of(COPY, source.url, target.url)

    record_property("mirror_mib", peak / MIB)
    assert peak < 128 * MIB


def test_copies_to_three_registries_stay_below_64_mib(
    memory: Path, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        source, *others = [
            stack.enter_context(EmbeddedRegistry(memory / name)) for name in ("source", *"abc")
        ]
        put_image(source.url, "app", "v1", make_image(1, [BLOB // 4]))

        peak = peak_of(COPY_TO, str(memory), source.url, *(other.url for other in others))

    record_property("copy_to_mib", peak / MIB)
    assert peak < 64 * MIB
