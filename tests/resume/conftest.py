"""Registries behind a counting relay, a file to push, and an account of what it cost."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, TIMEOUT
from tests.resume.transfer_costs import WireBudget, summary_lines
from tests.support.docker_registry import DockerRegistry
from tests.support.images import write_blob
from tests.support.relay import Relay
from tests.support.scale import FULL

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests, and give what moves a GiB again and again the time for it."""
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.process)
        if FULL:
            item.add_marker(pytest.mark.timeout(5 * TIMEOUT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what was counted, where the sizes are those that people have."""
    told = summary_lines(
        terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    )
    if FULL and told:
        terminalreporter.section("bytes counted on the wire")
        for line in told:
            terminalreporter.write_line(line)


@dataclass(frozen=True, slots=True)
class Content:
    """A file, and what it hashes to."""

    path: Path
    digest: str
    size: int  # bytes


@pytest.fixture
def rng(record_property: Callable[[str, object], None]) -> random.Random:
    """Return chance that can be had again: pytest-randomly prints and sets the seed."""
    number = random.randrange(2**32)
    record_property("seed", number)
    return random.Random(number)


@pytest.fixture
def wire_budget(record_property: Callable[[str, object], None]) -> WireBudget:
    """Return what holds the bytes on the wire against what they may be."""
    return WireBudget(record_property)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Return a file of four chunks and a bit; of a GiB with CONCIL_TEST_FULL=1."""
    size = 1024 * MIB if FULL else 45 * MIB + 7
    path = tmp_path_factory.mktemp("made") / "file"
    return Content(path, write_blob(path, 5, size), size)


@pytest.fixture
def content(made: Content, tmp_path: Path) -> Content:
    """Return a copy of the file that a test may change."""
    path = tmp_path / "file"
    shutil.copyfile(made.path, path)
    return replace(made, path=path)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Run a registry that keeps what arrived of a broken chunk."""
    with EmbeddedRegistry(tmp_path / "embedded") as registry:
        yield registry


@pytest.fixture(params=["embedded", pytest.param("docker", marks=pytest.mark.real)])
def registry(request: pytest.FixtureRequest) -> EmbeddedRegistry | DockerRegistry:
    """Run the registry of ours, or the real one."""
    name = "embedded" if request.param == "embedded" else "fresh_docker_registry"
    running: EmbeddedRegistry | DockerRegistry = request.getfixturevalue(name)
    return running


@pytest.fixture
def resumable_relay(embedded: EmbeddedRegistry) -> Iterator[Relay]:
    """Return a relay in front of the registry that keeps what arrived."""
    with Relay(embedded.host) as relay:
        yield relay


@pytest.fixture
def session_losing_relay(fresh_docker_registry: DockerRegistry) -> Iterator[Relay]:
    """Return a relay in front of docker-registry 2.8: a broken chunk ends its session."""
    with Relay(fresh_docker_registry.host) as relay:
        yield relay
