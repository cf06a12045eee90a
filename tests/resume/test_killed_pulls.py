from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, kill_when, run
from tests.resume.conftest import Content
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, put_blob
from tests.support.relay import Relay
from tests.support.scale import FULL

WORKERS = 4
LOSS = 2 * MIB * WORKERS  # bytes that a kill may cost
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers in one run
KILLS = 30 if FULL else 4
# Bytes a second and connection. A line that is faster than the process fills the kernel's
# buffers, several MiB each, and what a killed process has not read is lost with it.
RATE = 8 * MIB


def pull(relay: Relay, content: Content, target: Path) -> list[str]:
    address = f"{relay.url}/some/where@{content.digest}"
    return ["blob", "pull", "--jobs", str(WORKERS), address, "-o", str(target)]


@pytest.fixture(
    params=[
        *(["embedded"] if FULL else []),
        pytest.param("docker-registry", marks=pytest.mark.real),
    ]
)
def serving(request: pytest.FixtureRequest, content: Content) -> Relay:
    """Return a relay in front of a registry that has the content."""
    if request.param == "embedded":
        registry: EmbeddedRegistry | DockerRegistry = request.getfixturevalue("embedded")
        relay: Relay = request.getfixturevalue("resumable_relay")
    else:
        registry = request.getfixturevalue("fresh_docker_registry")
        relay = request.getfixturevalue("session_losing_relay")
    put_blob(registry.url, "some/where", content.path.read_bytes())
    relay.rate = RATE
    return relay


def received(relay: Relay, count: int) -> Callable[[Relay], bool]:
    target = relay.bytes_down + count
    return lambda watched: watched.bytes_down >= target


def test_a_pull_killed_early_half_way_and_late_goes_on_where_it_was(
    resumable_relay: Relay,
    embedded: EmbeddedRegistry,
    content: Content,
    tmp_path: Path,
    wire_budget: WireBudget,
) -> None:
    put_blob(embedded.url, "some/where", content.path.read_bytes())
    resumable_relay.rate = RATE
    target = tmp_path / "pulled"
    command = pull(resumable_relay, content, target)
    shares = (10, 50, 90)  # percent
    killed = [
        kill_when(
            resumable_relay,
            command,
            received(resumable_relay, content.size * share // 100 - resumable_relay.bytes_down),
        )
        for share in shares
    ]

    ended = run(command)

    assert [one.code for one in killed] == [-signal.SIGKILL] * len(shares)
    assert ended.code == 0, ended.err
    assert digest_of(target.read_bytes()) == content.digest
    allowed = len(shares) * LOSS + (len(shares) + 1) * OVERHEAD
    wire_budget.assert_at_most(
        "received, 3 kills", resumable_relay.bytes_down, content.size, allowed
    )


def test_a_pull_killed_again_and_again_goes_on_where_it_was(
    serving: Relay, content: Content, tmp_path: Path, rng: random.Random, wire_budget: WireBudget
) -> None:
    target, kills = tmp_path / "pulled", 0
    command = pull(serving, content, target)
    for _ in range(KILLS):
        # A kill may come between the last rename and the end of the process.
        if not target.exists():
            ended = kill_when(
                serving, command, received(serving, rng.randrange(2 * content.size // KILLS))
            )
            kills += ended.code == -signal.SIGKILL

    ended = run(command) if not target.exists() else ended

    assert target.exists(), ended.err
    assert kills
    assert digest_of(target.read_bytes()) == content.digest
    allowed = kills * LOSS + (KILLS + 1) * OVERHEAD
    wire_budget.assert_at_most(
        f"received, {kills} kills", serving.bytes_down, content.size, allowed
    )
    assert list(tmp_path.glob("*.partial*")) == []


@dataclass(frozen=True, slots=True)
class HalfPulled:
    """A pull that was killed half-way."""

    command: list[str]
    target: Path

    def partial(self) -> Path:
        """Return its partial file."""
        (partial,) = self.target.parent.glob("*.partial")
        return partial


@pytest.fixture
def half_pulled(
    resumable_relay: Relay, embedded: EmbeddedRegistry, content: Content, tmp_path: Path
) -> HalfPulled:
    put_blob(embedded.url, "some/where", content.path.read_bytes())
    pulled = HalfPulled(pull(resumable_relay, content, tmp_path / "pulled"), tmp_path / "pulled")
    half = content.size // 2
    kill_when(resumable_relay, pulled.command, lambda relay: relay.bytes_down >= half)
    return pulled


def test_a_partial_file_that_somebody_edited_costs_one_more_pull(
    half_pulled: HalfPulled, content: Content
) -> None:
    with half_pulled.partial().open("r+b") as file:
        file.write(b"somebody was here")

    ended = run(half_pulled.command)

    assert ended.code == 0, ended.err
    assert digest_of(half_pulled.target.read_bytes()) == content.digest


def test_a_partial_file_that_was_cut_is_filled_again(
    half_pulled: HalfPulled, content: Content
) -> None:
    with half_pulled.partial().open("r+b") as file:
        file.truncate(MIB)

    ended = run(half_pulled.command)

    assert ended.code == 0, ended.err
    assert digest_of(half_pulled.target.read_bytes()) == content.digest
