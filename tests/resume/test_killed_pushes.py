from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.lab.faults import Fault
from tests.lab.images import digest_of
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog
from tests.resume.account import Account
from tests.resume.children import FULL, MIB, TIMEOUT, Ended, end, kill_when, run, start
from tests.resume.conftest import Content

CHUNK = 10 * MIB
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers in one run
KILLS = 30 if FULL else 6


def push(relay: Relay, content: Content) -> list[str]:
    return ["blob", "push", str(content.path), f"{relay.url}/some/where"]


def stored(url: str, content: Content) -> bytes:
    answer = requests.get(f"{url}/v2/some/where/blobs/{content.digest}", timeout=TIMEOUT)
    answer.raise_for_status()
    return answer.content


def killed_after(relay: Relay, content: Content, upstream: int) -> Ended:
    target = relay.bytes_up + upstream
    return kill_when(relay, push(relay, content), lambda r: r.bytes_up >= target)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_killed_push_goes_on_where_it_was(
    resuming: Relay, content: Content, share: float, account: Account
) -> None:
    killed = killed_after(resuming, content, int(content.size * share))

    ended = run(push(resuming, content))

    assert killed.code == -signal.SIGKILL
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == content.digest
    assert digest_of(stored(resuming.url, content)) == content.digest
    account.most("sent, one kill", resuming.bytes_up, content.size, CHUNK + OVERHEAD)


def test_a_push_killed_again_and_again_sends_a_chunk_more_for_each_at_most(
    resuming: Relay, content: Content, seed: random.Random, account: Account
) -> None:
    kills = 0
    for _ in range(KILLS):
        ended = killed_after(resuming, content, seed.randrange(2 * content.size // KILLS))
        kills += ended.code == -signal.SIGKILL

    ended = run(push(resuming, content))

    assert ended.code == 0, ended.err
    assert kills
    assert digest_of(stored(resuming.url, content)) == content.digest
    allowed = kills * CHUNK + (KILLS + 1) * OVERHEAD
    account.most(f"sent, {kills} kills", resuming.bytes_up, content.size, allowed)


class BetweenChunks:
    """Holds back what comes behind the n-th PATCH: whoever is killed then has its answer."""

    def __init__(self, number: int) -> None:
        self.log = RequestLog()
        self.relay: Relay | None = None
        self._left = number

    def upstream(self, connection: int, passed: bytes) -> bool:
        """See `Observer`."""
        before = self._complete()
        lost = self.log.upstream(connection, passed)
        self._left -= self._complete() - before
        if self._left <= 0 and self.relay is not None:
            self.relay.add(Fault(action="stall", after=0, direction="up", total=True))
            self.relay = None
        return lost

    def _complete(self) -> int:
        return sum(request.complete for request in self.log.matching("PATCH"))


@pytest.mark.parametrize("kind", ["embedded", pytest.param("docker", marks=pytest.mark.real)])
def test_a_kill_between_two_chunks_costs_nothing(
    kind: str, request: pytest.FixtureRequest, content: Content, account: Account
) -> None:
    name = "embedded" if kind == "embedded" else "fresh_docker_registry"
    registry: EmbeddedRegistry | DockerRegistry = request.getfixturevalue(name)
    sight = BetweenChunks(content.size // CHUNK // 2)
    with Relay(registry.host, observer=sight) as relay:
        sight.relay = relay

        child = start(push(relay, content))
        try:
            relay.wait_for(lambda r: r.fired > 0, timeout=TIMEOUT)
        finally:
            child.kill()
            end(child)
        relay.cut()  # what is held back never arrives
        ended = run(push(relay, content))

        assert ended.code == 0, ended.err
        assert sight.log.count("POST") == 1
        account.most(f"sent to {kind}, a kill", relay.bytes_up, content.size, 2 * OVERHEAD)
    assert digest_of(stored(registry.url, content)) == content.digest


def test_a_resumed_push_does_not_read_the_file_from_its_start(
    resuming: Relay, content: Content, account: Account
) -> None:
    killed_after(resuming, content, int(content.size * 0.9))
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
        [sys.executable, "-c", program, str(content.path), f"{resuming.url}/some/where"],
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )

    assert digest_of(stored(resuming.url, content)) == content.digest
    left = content.size // 10
    account.most("read of the file to go on at 90 %", int(told.stdout), left, 2 * CHUNK + MIB)


@pytest.mark.real
def test_against_docker_registry_a_broken_chunk_costs_one_restart(
    fresh_docker_registry: DockerRegistry, content: Content, seed: random.Random, account: Account
) -> None:
    log, kills = RequestLog(), 0
    with Relay(fresh_docker_registry.host, observer=log) as relay:
        for number in range(KILLS // 3):
            # The first one late, where it costs most.
            reached = seed.randrange(content.size) if number else content.size // 2
            kills += killed_after(relay, content, reached).code == -signal.SIGKILL
        before = relay.bytes_up

        ended = run(push(relay, content))

        assert ended.code == 0, ended.err
        assert kills
        assert log.count("POST") <= kills + 1
        account.most(f"sent after {kills} kills", relay.bytes_up - before, content.size, OVERHEAD)
    assert digest_of(stored(fresh_docker_registry.url, content)) == content.digest


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_against_docker_registry_an_interrupt_costs_nothing(
    forgetting: Relay, content: Content, number: signal.Signals, account: Account
) -> None:
    # Slow enough that the signal finds a chunk in flight.
    forgetting.rate = 200 * MIB

    def half(relay: Relay) -> bool:
        return relay.bytes_up >= content.size // 2

    interrupted = kill_when(forgetting, push(forgetting, content), half, number)
    ended = run(push(forgetting, content))

    assert interrupted.code == 130, interrupted.err
    assert "run the same command again" in interrupted.err
    assert ended.code == 0, ended.err
    assert digest_of(stored(forgetting.url, content)) == content.digest
    account.most(f"sent, {number.name}", forgetting.bytes_up, content.size, 2 * OVERHEAD)


def test_two_processes_never_share_a_session(resuming: Relay, content: Content) -> None:
    killed_after(resuming, content, content.size // 2)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "concil", *push(resuming, content)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [(child.communicate(timeout=TIMEOUT), child.returncode) for child in children]

    assert [code for _, code in ended] == [0, 0], ended
    assert digest_of(stored(resuming.url, content)) == content.digest


def test_a_file_that_changed_between_two_runs_is_a_new_upload(
    resuming: Relay, content: Content
) -> None:
    killed_after(resuming, content, content.size // 2)
    with content.path.open("r+b") as file:
        file.write(b"another beginning")

    ended = run(push(resuming, content))

    digest = digest_of(content.path.read_bytes())
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == digest
    answer = requests.get(f"{resuming.url}/v2/some/where/blobs/{digest}", timeout=TIMEOUT)
    assert digest_of(answer.content) == digest


def damaged(content: Content) -> None:
    content.path.write_bytes(b"short")


def rewritten(content: Content) -> None:
    with content.path.open("r+b") as file:
        file.seek(content.size - 5)
        file.write(b"other")


@pytest.mark.parametrize("change", [damaged, rewritten])
def test_a_file_that_changes_while_it_is_sent_is_refused(
    resuming: Relay, content: Content, change: Callable[[Content], None]
) -> None:
    resuming.rate = 100 * MIB
    done: list[bool] = []

    def half(relay: Relay) -> bool:
        if relay.bytes_up >= content.size // 2 and not done:
            done.append(True)
            change(content)
        return False

    ended = kill_when(resuming, push(resuming, content), half)

    assert ended.code == 1
    assert "let nothing write to the file meanwhile" in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("concil:")]) == 1
    changed = digest_of(content.path.read_bytes())
    for digest in (content.digest, changed):
        url = f"{resuming.url}/v2/some/where/blobs/{digest}"
        assert requests.head(url, timeout=TIMEOUT).status_code == 404
