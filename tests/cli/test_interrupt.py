"""Ctrl-C and SIGTERM: the command ends soon, says so in one line, and can be run again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli.context import GRACE_PERIOD
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Program
from tests.support.faults import Fault
from tests.support.images import Image, assert_same_image, make_image, put_image, write_layout
from tests.support.relay import Relay
from tests.support.scale import FULL

pytestmark = pytest.mark.process

LINE = "concil: interrupted; run the same command again to resume"
STOPPING = r"stopping: 1 chunk to finish \(10 s at most\); Ctrl-C again quits"
RESUMABLE = (
    r"concil: interrupted: 1 transfer can be resumed at (\d+\.\d) MiB of 22\.9 MiB; "
    "run the same command again to resume"
)
SIZE = 24_000_000  # bytes


@pytest.fixture
def link(registry: EmbeddedRegistry) -> Iterator[Relay]:
    """Return a line to the registry that a test can make slow."""
    with Relay(registry.host, rate=6_000_000) as relay:
        yield relay


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """Return the only image of `oci:layout`, with a large layer."""
    image = make_image(1, (SIZE,))
    write_layout(tmp_path / "layout", {"app:v1": image})
    return image


def ended(running: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    """Wait for the end; return exit code and messages."""
    out, err = running.communicate(timeout=PATIENCE)
    assert out == b""
    return running.returncode, err.decode().splitlines()


def resumable_bytes(line: str) -> int:
    """Return at which byte the transfer can be resumed, as the last line says."""
    found = re.fullmatch(RESUMABLE, line)
    assert found, line
    return int(float(found[1]) * 1024 * 1024)


IMPORTING = """
import runpy, sys

module = sys.argv.pop(1)

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Impatient())
runpy.run_module("concil", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module", ["concil.cli.argument_parser", "concil.cli.context", "concil.engine.store_factory"]
)
def test_an_interrupt_before_anything_has_begun_is_one_line(module: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORTING, module, "tags", "host/repository"],
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )

    assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"concil: interrupted\n")


@pytest.mark.parametrize(
    ("number", "jobs"),
    [
        (signal.SIGINT, "--jobs=0"),
        (signal.SIGTERM, "--jobs=4"),
        *([(signal.SIGTERM, "--jobs=0"), (signal.SIGINT, "--jobs=4")] if FULL else []),
    ],
)
def test_interrupted_upload_resumes_when_it_is_run_again(  # noqa: PLR0917  # fixtures
    program: Program,
    registry: EmbeddedRegistry,
    link: Relay,
    image: Image,
    number: int,
    jobs: str,
) -> None:
    words = ("copy", jobs, "--progress=none", "oci:layout:app:v1", f"{link.host}/app:v1")
    running = program.start(*words)
    link.wait_for(lambda relay: relay.bytes_up > 11_000_000)

    running.send_signal(number)
    code, messages = ended(running)
    link.reset_counters()
    link.rate = None
    again = program(*words)

    assert (code, len(messages)) == (130, 1)
    resumable = resumable_bytes(messages[0])
    assert resumable > 9_000_000
    assert again.code == 0, again.err
    assert link.bytes_up < SIZE - resumable + 100_000  # requests, and what rounding hides
    assert_same_image(registry.url, "app", "v1", image)


def test_an_interrupted_download_leaves_nothing_under_the_final_name(
    program: Program, registry: EmbeddedRegistry, link: Relay, image: Image, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", image)
    digest = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    running = program.start("blob", "pull", f"{link.host}/app@{digest}", "-o", "out")
    link.wait_for(lambda relay: relay.bytes_down > 5_000_000)

    running.send_signal(signal.SIGINT)
    code, messages = ended(running)

    assert code == 130
    assert resumable_bytes(messages[-1]) > 4_000_000
    assert not (tmp_path / "out").exists()


def test_a_second_signal_ends_it_at_once(program: Program, link: Relay, image: Image) -> None:
    link.add_fault(Fault(action="stall", after=5_000_000, direction="up"))
    running = program.start("copy", "oci:layout:app:v1", f"{link.host}/app:v1")
    link.wait_for(lambda relay: relay.fired_count > 0)

    # Two at once may arrive as one: another, until it has ended.
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    code, messages = ended(running)

    assert code == 130
    assert re.fullmatch(STOPPING, messages[0])
    # The first chunk was not finished: nothing is promised to be resumable.
    assert [line.replace(": 1 transfer cut off", "") for line in messages[1:]] == [LINE]


def test_stalled_connection_delays_the_exit_by_the_grace_period_only(
    program: Program, link: Relay, image: Image
) -> None:
    link.add_fault(Fault(action="stall", after=5_000_000, direction="up"))
    running = program.start("copy", "--progress=none", "oci:layout:app:v1", f"{link.host}/app:v1")
    link.wait_for(lambda relay: relay.fired_count > 0)

    running.send_signal(signal.SIGINT)
    running.wait(GRACE_PERIOD + 5)
    code, messages = ended(running)

    assert code == 130
    assert [line.replace(": 1 transfer cut off", "") for line in messages] == [LINE]


def test_a_small_request_is_interrupted_too(program: Program, link: Relay) -> None:
    link.add_fault(Fault(action="stall", after=0, direction="down"))
    running = program.start("digest", f"{link.url}/app:v1")
    link.wait_for(lambda relay: relay.fired_count > 0)

    running.send_signal(signal.SIGINT)
    running.wait(GRACE_PERIOD / 2)
    code, messages = ended(running)

    assert (code, messages) == (130, [LINE])
