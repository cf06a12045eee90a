"""A line that breaks all the time, in both directions: it ends, and little is sent twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, run
from tests.resume.conftest import Content
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import digest_of, get_blob, put_blob, write_blob
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.scale import FULL

SIZE = (300 if FULL else 24) * MIB + 7
LASTS = 7 * MIB  # bytes that a connection carries: less than a chunk
CHUNK = 10 * MIB
WORKERS = 4
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers
KINDS = ["embedded", pytest.param("fresh_docker_registry", marks=pytest.mark.real)]


@pytest.fixture
def file(tmp_path: Path) -> Content:
    path = tmp_path / "file"
    return Content(path, write_blob(path, 6, SIZE), SIZE)


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def real(fresh_docker_registry: DockerRegistry, seen: RequestLog) -> Iterator[Relay]:
    """Return a relay in front of docker-registry 2.8: a broken chunk ends its session."""
    with Relay(fresh_docker_registry.host, observer=seen) as relay:
        yield relay


def cut_every_connection(relay: Relay, after: int) -> None:
    """Let each connection break when it has carried so much."""
    relay.add_fault(Fault(action="rst", after=after, direction="up", times=None))
    relay.add_fault(Fault(action="fin", after=after, direction="down", times=None))


def push(relay: Relay, file: Content) -> list[str]:
    return ["blob", "push", str(file.path), f"{relay.url}/x"]


def test_a_push_ends_where_no_chunk_arrives_whole(
    resumable_relay: Relay, embedded: EmbeddedRegistry, file: Content, wire_budget: WireBudget
) -> None:
    cut_every_connection(resumable_relay, LASTS)

    ended = run(push(resumable_relay, file))

    assert ended.code == 0, ended.err
    assert resumable_relay.fired_count >= SIZE // LASTS
    assert digest_of(get_blob(embedded.url, "x", file.digest)) == file.digest
    allowed = resumable_relay.fired_count * CHUNK + OVERHEAD
    wire_budget.assert_at_most(
        f"sent, {resumable_relay.fired_count} cuts", resumable_relay.bytes_up, SIZE, allowed
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_pull_ends_where_no_range_arrives_whole(
    kind: str,
    request: pytest.FixtureRequest,
    file: Content,
    tmp_path: Path,
    wire_budget: WireBudget,
) -> None:
    registry: EmbeddedRegistry | DockerRegistry = request.getfixturevalue(kind)
    put_blob(registry.url, "x", file.path.read_bytes())
    target = tmp_path / "pulled"
    with Relay(registry.host) as relay:
        cut_every_connection(relay, LASTS)

        command = ["blob", "pull", "--jobs", str(WORKERS), f"{relay.url}/x@{file.digest}"]
        ended = run([*command, "-o", str(target)])

        assert ended.code == 0, ended.err
        assert relay.fired_count >= SIZE // LASTS
        assert digest_of(target.read_bytes()) == file.digest
        allowed = 2 * MIB * relay.fired_count + OVERHEAD
        wire_budget.assert_at_most(
            f"received, {relay.fired_count} cuts", relay.bytes_down, SIZE, allowed
        )


@pytest.mark.real
def test_a_registry_that_forgets_is_begun_again_and_has_it_in_the_end(
    real: Relay, file: Content, seen: RequestLog, rng: random.Random, wire_budget: WireBudget
) -> None:
    cuts, lost = 3, 0
    for _ in range(cuts):
        # All that was sent by then is lost.
        lost += rng.randrange(MIB, SIZE)
        real.add_fault(Fault(action="rst", after=lost, direction="up", total=True))

    ended = run(push(real, file))

    assert ended.code == 0, ended.err
    assert real.fired_count == cuts
    assert seen.count("POST") == cuts + 1
    wire_budget.assert_at_most(f"sent, {cuts} cuts", real.bytes_up, SIZE, lost + OVERHEAD)


@pytest.mark.real
def test_a_registry_that_forgets_all_the_time_is_given_up(
    real: Relay, file: Content, seen: RequestLog, wire_budget: WireBudget
) -> None:
    after = SIZE // 2
    cut_every_connection(real, after)

    ended = run(push(real, file))

    assert ended.code == 1
    assert "the connection to the registry is too unstable" in ended.err
    # The last session was opened in vain, and nobody comes back to it.
    assert (seen.count("POST"), seen.count("DELETE")) == (7, 1)
    assert run(["transfers"]).out == ""
    wire_budget.assert_at_most("sent in vain", real.bytes_up, 0, 6 * after + OVERHEAD)
