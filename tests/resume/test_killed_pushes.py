from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import requests

from tests.lab.images import digest_of
from tests.lab.relay import Relay
from tests.resume.children import FULL, MIB, Ended, kill_when, run
from tests.resume.conftest import Content

CHUNK = 10 * MIB
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers in one run
KILLS = 30 if FULL else 6


def push(relay: Relay, content: Content) -> list[str]:
    return ["blob", "push", str(content.path), f"{relay.url}/some/where"]


def stored(url: str, content: Content) -> bytes:
    answer = requests.get(f"{url}/v2/some/where/blobs/{content.digest}", timeout=60)
    answer.raise_for_status()
    return answer.content


def killed_after(relay: Relay, content: Content, upstream: int) -> Ended:
    target = relay.bytes_up + upstream
    return kill_when(relay, push(relay, content), lambda r: r.bytes_up >= target)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_killed_push_goes_on_where_it_was(
    resuming: Relay, content: Content, share: float
) -> None:
    killed = killed_after(resuming, content, int(content.size * share))

    ended = run(push(resuming, content))

    assert killed.code == -signal.SIGKILL
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == content.digest
    assert digest_of(stored(resuming.url, content)) == content.digest
    assert resuming.bytes_up <= content.size + CHUNK + OVERHEAD


def test_a_push_killed_again_and_again_sends_a_chunk_more_for_each_at_most(
    resuming: Relay, content: Content, seed: random.Random
) -> None:
    kills = 0
    for _ in range(KILLS):
        ended = killed_after(resuming, content, seed.randrange(2 * content.size // KILLS))
        kills += ended.code == -signal.SIGKILL

    ended = run(push(resuming, content))

    assert ended.code == 0, ended.err
    assert kills
    assert digest_of(stored(resuming.url, content)) == content.digest
    assert resuming.bytes_up <= content.size + kills * CHUNK + (KILLS + 1) * OVERHEAD


def test_a_resumed_push_does_not_read_the_file_from_its_start(
    resuming: Relay, content: Content
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
        timeout=100,
    )

    assert digest_of(stored(resuming.url, content)) == content.digest
    assert int(told.stdout) <= content.size * 0.1 + 2 * CHUNK + MIB


@pytest.mark.real
def test_against_docker_registry_a_broken_chunk_costs_one_restart(
    forgetting: Relay, content: Content
) -> None:
    killed = killed_after(forgetting, content, content.size // 2)
    before = forgetting.bytes_up

    ended = run(push(forgetting, content))

    assert killed.code == -signal.SIGKILL
    assert ended.code == 0, ended.err
    assert digest_of(stored(forgetting.url, content)) == content.digest
    assert forgetting.bytes_up - before <= content.size + OVERHEAD


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_against_docker_registry_an_interrupt_costs_nothing(
    forgetting: Relay, content: Content, number: signal.Signals
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
    assert forgetting.bytes_up <= content.size + 2 * OVERHEAD


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
    ended = [(child.communicate(timeout=100), child.returncode) for child in children]

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
    answer = requests.get(f"{resuming.url}/v2/some/where/blobs/{digest}", timeout=60)
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
        assert requests.head(url, timeout=60).status_code == 404
