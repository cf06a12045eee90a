from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from concil import Engine, TransferConfig
from concil.config import RetryPolicy
from concil.errors import ConnectionLost
from concil.server import EmbeddedRegistry
from tests.resume.child_processes import (
    MIB,
    TIMEOUT,
    CompletedChild,
    kill_when,
    run,
)
from tests.resume.conftest import Content
from tests.resume.stalls import StallAfterRequest, kill_in_stall
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_image, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.scale import FULL

CHUNK = 10 * MIB
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers in one run
KILLS = 30 if FULL else 4


def push(relay: Relay, content: Content) -> list[str]:
    return ["blob", "push", str(content.path), f"{relay.url}/some/where"]


def stored(url: str, content: Content) -> bytes:
    answer = requests.get(f"{url}/v2/some/where/blobs/{content.digest}", timeout=TIMEOUT)
    answer.raise_for_status()
    return answer.content


def killed_after(relay: Relay, content: Content, upstream: int) -> CompletedChild:
    target = relay.bytes_up + upstream
    return kill_when(relay, push(relay, content), lambda r: r.bytes_up >= target)


# Half-way is where the other tests kill.
@pytest.mark.parametrize("share", [0.1, *([0.5] if FULL else []), 0.9])
def test_a_killed_push_goes_on_where_it_was(
    resumable_relay: Relay, content: Content, share: float, wire_budget: WireBudget
) -> None:
    killed = killed_after(resumable_relay, content, int(content.size * share))

    ended = run(push(resumable_relay, content))

    assert killed.code == -signal.SIGKILL
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == content.digest
    assert digest_of(stored(resumable_relay.url, content)) == content.digest
    wire_budget.assert_at_most(
        "sent, one kill", resumable_relay.bytes_up, content.size, CHUNK + OVERHEAD
    )


def test_a_push_killed_again_and_again_sends_a_chunk_more_for_each_at_most(
    resumable_relay: Relay, content: Content, rng: random.Random, wire_budget: WireBudget
) -> None:
    kills = 0
    for _ in range(KILLS):
        ended = killed_after(resumable_relay, content, rng.randrange(2 * content.size // KILLS))
        kills += ended.code == -signal.SIGKILL

    ended = run(push(resumable_relay, content))

    assert ended.code == 0, ended.err
    assert kills
    assert digest_of(stored(resumable_relay.url, content)) == content.digest
    allowed = kills * CHUNK + (KILLS + 1) * OVERHEAD
    wire_budget.assert_at_most(
        f"sent, {kills} kills", resumable_relay.bytes_up, content.size, allowed
    )


def test_a_kill_between_two_chunks_costs_nothing(
    registry: EmbeddedRegistry | DockerRegistry, content: Content, wire_budget: WireBudget
) -> None:
    stall = StallAfterRequest("PATCH", content.size // CHUNK // 2, "up")
    with Relay(registry.host, observer=stall) as relay:
        kill_in_stall(relay, stall, push(relay, content))
        ended = run(push(relay, content))

        assert ended.code == 0, ended.err
        assert stall.log.count("POST") == 1
        wire_budget.assert_at_most("sent, a kill", relay.bytes_up, content.size, 2 * OVERHEAD)
    assert digest_of(stored(registry.url, content)) == content.digest


def test_a_kill_before_the_last_answer_sends_nothing_again(
    registry: EmbeddedRegistry | DockerRegistry, content: Content, wire_budget: WireBudget
) -> None:
    stall = StallAfterRequest("PUT", 1, "down")
    with Relay(registry.host, observer=stall) as relay:
        kill_in_stall(relay, stall, push(relay, content))
        ended = run(push(relay, content))

        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["digest"] == content.digest
        wire_budget.assert_at_most(
            "sent, a kill after the last byte", relay.bytes_up, content.size, OVERHEAD
        )
    assert digest_of(stored(registry.url, content)) == content.digest


def test_a_lookup_that_fails_leaves_no_session_behind(
    embedded: EmbeddedRegistry, content: Content
) -> None:
    stall = StallAfterRequest("PUT", 1, "down")
    config = TransferConfig(retry=RetryPolicy(max_attempts=1))
    with Relay(embedded.host, observer=stall) as relay, Engine(config) as engine:
        kill_in_stall(relay, stall, push(relay, content))
        stall.log.lose_response("HEAD")

        with pytest.raises(ConnectionLost):
            engine.push_blob(content.path, f"{relay.url}/some/where")

    assert stall.log.count("POST") == 2
    assert stall.log.count("DELETE") == 1


def test_a_copy_that_is_killed_before_the_last_answer_sends_nothing_again(
    registry: EmbeddedRegistry | DockerRegistry, tmp_path: Path, wire_budget: WireBudget
) -> None:
    image = make_image(11, (25 * MIB,))
    (layer,) = (digest for digest, blob in image.blobs.items() if len(blob) > MIB)
    size = len(image.blobs[layer])
    stall = StallAfterRequest("PUT", 1, "down", part=layer.partition(":")[2])
    with (
        EmbeddedRegistry(tmp_path / "source") as source,
        Relay(registry.host, observer=stall) as relay,
    ):
        put_image(source.url, "app", "v1", image)
        arguments = ["copy", f"{source.url}/app:v1", f"{relay.url}/app:v1"]
        kill_in_stall(relay, stall, arguments)
        ended = run(arguments)

        assert ended.code == 0, ended.err
        wire_budget.assert_at_most("copied, a kill", relay.bytes_up, size, OVERHEAD)
    answer = requests.get(f"{registry.url}/v2/app/blobs/{layer}", timeout=TIMEOUT)
    assert digest_of(answer.content) == layer


def test_a_resumed_push_does_not_read_the_file_from_its_start(
    resumable_relay: Relay, content: Content, wire_budget: WireBudget
) -> None:
    killed_after(resumable_relay, content, int(content.size * 0.9))
    # What the process reads from files, by the kernel's own count.
    program = (
        "import sys\n"
        "from concil import Engine\n"
        "def read():\n"
        "    lines = open('/proc/self/io').read().split()\n"
        "    return int(lines[lines.index('rchar:') + 1])\n"
        "with Engine() as engine:\n"
        "    before = read()\n"
        "    engine.push_blob(sys.argv[1], sys.argv[2])\n"
        "    print(read() - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(content.path), f"{resumable_relay.url}/some/where"],
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )

    assert digest_of(stored(resumable_relay.url, content)) == content.digest
    left = content.size // 10
    wire_budget.assert_at_most(
        "read of the file to go on at 90 %", int(told.stdout), left, 2 * CHUNK + MIB
    )


@pytest.mark.real
def test_against_docker_registry_a_broken_chunk_costs_one_restart(
    fresh_docker_registry: DockerRegistry,
    content: Content,
    rng: random.Random,
    wire_budget: WireBudget,
) -> None:
    log, kills = RequestLog(), 0
    with Relay(fresh_docker_registry.host, observer=log) as relay:
        for number in range(KILLS // 3):
            # The first one late, where it costs most.
            reached = rng.randrange(content.size) if number else content.size // 2
            kills += killed_after(relay, content, reached).code == -signal.SIGKILL
        before = relay.bytes_up

        ended = run(push(relay, content))

        assert ended.code == 0, ended.err
        assert kills
        assert log.count("POST") <= kills + 1
        wire_budget.assert_at_most(
            f"sent after {kills} kills", relay.bytes_up - before, content.size, OVERHEAD
        )
    assert digest_of(stored(fresh_docker_registry.url, content)) == content.digest


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_against_docker_registry_an_interrupt_costs_nothing(
    session_losing_relay: Relay, content: Content, number: signal.Signals, wire_budget: WireBudget
) -> None:
    # Slow enough that the signal finds a chunk in flight.
    session_losing_relay.rate = 200 * MIB

    def half(relay: Relay) -> bool:
        return relay.bytes_up >= content.size // 2

    interrupted = kill_when(session_losing_relay, push(session_losing_relay, content), half, number)
    ended = run(push(session_losing_relay, content))

    assert interrupted.code == 130, interrupted.err
    assert "run the same command again" in interrupted.err
    assert ended.code == 0, ended.err
    assert digest_of(stored(session_losing_relay.url, content)) == content.digest
    wire_budget.assert_at_most(
        f"sent, {number.name}", session_losing_relay.bytes_up, content.size, 2 * OVERHEAD
    )


def test_two_processes_never_share_a_session(resumable_relay: Relay, content: Content) -> None:
    killed_after(resumable_relay, content, content.size // 2)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "concil", *push(resumable_relay, content)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [(child.communicate(timeout=TIMEOUT), child.returncode) for child in children]

    assert [code for _, code in ended] == [0, 0], ended
    assert digest_of(stored(resumable_relay.url, content)) == content.digest


def test_a_file_that_changed_between_two_runs_is_a_new_upload(
    resumable_relay: Relay, content: Content
) -> None:
    killed_after(resumable_relay, content, content.size // 2)
    with content.path.open("r+b") as file:
        file.write(b"another beginning")

    ended = run(push(resumable_relay, content))

    digest = digest_of(content.path.read_bytes())
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == digest
    answer = requests.get(f"{resumable_relay.url}/v2/some/where/blobs/{digest}", timeout=TIMEOUT)
    assert digest_of(answer.content) == digest


def damaged(content: Content) -> None:
    content.path.write_bytes(b"short")


def rewritten(content: Content) -> None:
    with content.path.open("r+b") as file:
        file.seek(content.size - 5)
        file.write(b"other")


@pytest.mark.parametrize("change", [damaged, rewritten])
def test_a_file_that_changes_while_it_is_sent_is_refused(
    resumable_relay: Relay, content: Content, change: Callable[[Content], None]
) -> None:
    resumable_relay.rate = 100 * MIB
    done: list[bool] = []

    def half(relay: Relay) -> bool:
        if relay.bytes_up >= content.size // 2 and not done:
            done.append(True)
            change(content)
        return False

    ended = kill_when(resumable_relay, push(resumable_relay, content), half)

    assert ended.code == 1
    assert "while no other program writes to the file" in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("concil:")]) == 1
    changed = digest_of(content.path.read_bytes())
    for digest in (content.digest, changed):
        url = f"{resumable_relay.url}/v2/some/where/blobs/{digest}"
        assert requests.head(url, timeout=TIMEOUT).status_code == 404
