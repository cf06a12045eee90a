"""A copy to several destinations is killed half way: each gets only what it lacks."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, kill_when, run
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.relay import Relay

CHUNK = 10 * MIB
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers, and of manifests
IMAGE = make_image(11, (35 * MIB + 7, 3 * MIB))
BLOB_BYTES = sum(map(len, IMAGE.blobs.values()))


@pytest.mark.real
def test_a_killed_copy_goes_on_at_each_destination(tmp_path: Path, wire_budget: WireBudget) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(EmbeddedRegistry(tmp_path / "source"))
        put_image(source.url, "app", "v1", IMAGE)
        registries: list[EmbeddedRegistry | DockerRegistry] = [
            stack.enter_context(EmbeddedRegistry(tmp_path / "first")),
            stack.enter_context(DockerRegistry(tmp_path / "second")),
            stack.enter_context(EmbeddedRegistry(tmp_path / "third")),
        ]
        # When it is killed, the first has all of the blobs, the second a part, the third nothing.
        relays = [
            stack.enter_context(Relay(registry.host, rate=rate))
            for registry, rate in zip(registries, (None, 16 * MIB, None), strict=True)
        ]
        whole, half, none = relays
        none.stop_accepting()
        words = ["copy", "--retry=9", f"{source.host}/app:v1"]
        words += [f"{relay.url}/copy:v1" for relay in relays]

        killed = kill_when(
            half, words, lambda _: min(whole.bytes_up / BLOB_BYTES, half.bytes_up / CHUNK) > 1
        )
        none.resume_accepting()
        sent = [relay.bytes_up for relay in relays]
        ended = run(words)

        assert killed.code == -signal.SIGKILL
        assert ended.code == 0, ended.err
        for registry in registries:
            assert_same_image(registry.url, "copy", "v1", IMAGE)
    again = [relay.bytes_up - before for relay, before in zip(relays, sent, strict=True)]
    wire_budget.assert_at_most("sent again, complete", again[0], 0, OVERHEAD)
    wire_budget.assert_at_most("sent in all", half.bytes_up, BLOB_BYTES, CHUNK + OVERHEAD)
    wire_budget.assert_at_most("sent, not begun", again[2], BLOB_BYTES, OVERHEAD)
