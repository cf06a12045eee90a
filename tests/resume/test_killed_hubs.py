"""The documented client goes on where a killed process was, and knows what it had learned."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.dockerhub import DockerHub
from concil.engine.engine import Engine
from concil.errors import ConnectionLost
from concil.oci.digest import Digest
from concil.server import EmbeddedRegistry
from tests.personalities.hosted import ACR, GAR
from tests.resume.child_processes import MIB, CompletedChild, kill_when, run
from tests.resume.conftest import Content
from tests.resume.stalls import StallAfterRequest, kill_in_stall
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_blob
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

CHUNK = 10 * MIB
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers in one run
PROGRAM = (
    "import sys\n"
    "from concil import DockerHub\n"
    "print(DockerHub(sys.argv[1]).post_blob(sys.argv[2]).status_code)\n"
)


@pytest.fixture
def named(content: Content) -> Content:
    """Return the file under the name that `post_blob` wants."""
    path = content.path.rename(content.path.with_name(content.digest.partition(":")[2]))
    return Content(path, content.digest, content.size)


def post(relay: Relay, named: Content) -> list[str]:
    return ["-c", PROGRAM, f"{relay.url}/some/where", str(named.path)]


def killed_at_half(relay: Relay, named: Content) -> None:
    half = relay.bytes_up + named.size // 2
    ended = kill_when(relay, post(relay, named), lambda r: r.bytes_up >= half)
    assert ended.code == -signal.SIGKILL


def stored(url: str, named: Content) -> str:
    """Return the digest of what the registry has."""
    answer = requests.get(f"{url}/v2/some/where/blobs/{named.digest}", timeout=60)
    answer.raise_for_status()
    return digest_of(answer.content)


def test_a_killed_post_goes_on_where_it_was(
    resumable_relay: Relay, named: Content, wire_budget: WireBudget
) -> None:
    killed_at_half(resumable_relay, named)

    ended: CompletedChild = run(post(resumable_relay, named))

    assert (ended.code, ended.out) == (0, "201\n"), ended.err
    assert stored(resumable_relay.url, named) == named.digest
    wire_budget.assert_at_most(
        "sent, one kill", resumable_relay.bytes_up, named.size, CHUNK + OVERHEAD
    )


def test_an_engine_goes_on_with_it(
    resumable_relay: Relay, named: Content, wire_budget: WireBudget
) -> None:
    killed_at_half(resumable_relay, named)

    with Engine() as engine:
        engine.push_blob(
            named.path, f"{resumable_relay.url}/some/where", digest=Digest.parse(named.digest)
        )

    assert stored(resumable_relay.url, named) == named.digest
    wire_budget.assert_at_most(
        "sent, one kill", resumable_relay.bytes_up, named.size, CHUNK + OVERHEAD
    )


@pytest.mark.real
def test_against_docker_registry_it_costs_one_restart(
    fresh_docker_registry: DockerRegistry, named: Content, wire_budget: WireBudget
) -> None:
    log = RequestLog()
    with Relay(fresh_docker_registry.host, observer=log) as relay:
        killed_at_half(relay, named)
        before = relay.bytes_up

        ended = run(post(relay, named))

        assert (ended.code, ended.out) == (0, "201\n"), ended.err
        assert log.count("POST") <= 2
        wire_budget.assert_at_most(
            "sent after a kill", relay.bytes_up - before, named.size, OVERHEAD
        )
    assert stored(fresh_docker_registry.url, named) == named.digest


def test_a_kill_before_the_last_answer_sends_nothing_again(
    registry: EmbeddedRegistry | DockerRegistry, named: Content, wire_budget: WireBudget
) -> None:
    stall = StallAfterRequest("PUT", 1, "down")
    with Relay(registry.host, observer=stall) as relay:
        kill_in_stall(relay, stall, post(relay, named))
        ended = run(post(relay, named))

        assert (ended.code, ended.out) == (0, "200\n"), ended.err  # of a HEAD
        wire_budget.assert_at_most(
            "sent, a kill after the last byte", relay.bytes_up, named.size, OVERHEAD
        )
    assert stored(registry.url, named) == named.digest


def test_a_file_that_was_damaged_since_is_refused_although_the_registry_has_it(
    resumable_relay: Relay, embedded: EmbeddedRegistry, named: Content
) -> None:
    stall = StallAfterRequest("PUT", 1, "down")
    with Relay(embedded.host, observer=stall) as relay:
        kill_in_stall(relay, stall, post(relay, named))
        with named.path.open("r+b") as file:
            file.write(b"damaged")

        ended = run(post(relay, named))

    assert ended.code == 1
    assert "DigestMismatch" in ended.err


def test_a_registry_that_was_away_costs_no_session(
    resumable_relay: Relay, named: Content, wire_budget: WireBudget
) -> None:
    killed_at_half(resumable_relay, named)
    hub = DockerHub(f"{resumable_relay.url}/some/where")
    resumable_relay.stop_accepting()
    with pytest.raises(ConnectionLost):
        hub.post_blob(str(named.path))
    resumable_relay.resume_accepting()

    hub.post_blob(str(named.path))

    hub.close()
    wire_budget.assert_at_most(
        "sent, one kill", resumable_relay.bytes_up, named.size, CHUNK + OVERHEAD
    )


@pytest.fixture
def seen() -> RequestLog:
    return RequestLog()


@pytest.fixture
def chunkless(tmp_path: Path, seen: RequestLog) -> Iterator[Relay]:
    """Return a relay in front of a registry that takes no chunks."""
    with (
        EmbeddedRegistry(tmp_path / "gar", behavior=GAR()) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield relay


@pytest.fixture
def narrow(tmp_path: Path, seen: RequestLog) -> Iterator[Relay]:
    """Return a relay in front of a registry that takes no large PUT."""
    with (
        EmbeddedRegistry(tmp_path / "acr", behavior=ACR(2 * MIB)) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield relay


def post_in_a_new_hub(relay: Relay, seed: int, size: int) -> None:
    blob = make_blob(seed, size)
    hub = DockerHub(f"{relay.url}/some/where")
    hub.post_blob_data(blob, digest_of(blob))
    hub.close()


def test_what_a_large_blob_taught_is_known_to_the_next_hub(
    chunkless: Relay, seen: RequestLog
) -> None:
    post_in_a_new_hub(chunkless, 1, 2 * CHUNK)
    assert seen.count("PATCH") == 1
    seen.clear()

    post_in_a_new_hub(chunkless, 2, 2 * CHUNK)

    assert seen.count("PATCH") == 0


def test_what_a_small_blob_taught_is_known_to_the_next_hub(narrow: Relay, seen: RequestLog) -> None:
    size = 3 * MIB
    post_in_a_new_hub(narrow, 1, size)
    assert seen.body_bytes() > size
    seen.clear()

    post_in_a_new_hub(narrow, 2, size)

    assert seen.body_bytes() == size
