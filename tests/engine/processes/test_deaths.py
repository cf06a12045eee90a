"""Processes of a mirror that die, cannot start, or have a bug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import ConnectionLost, LimitReached
from concil.http.requests_session import TLSSettings
from concil.progress.events import Event, State
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import Outcome
from tests.engine.engine_setup import QUICK, WAIT, engine_of
from tests.engine.processes.conftest import IMAGES, SHARED, Destination, Source
from tests.support.child_pids import child_pids, is_alive, wait_for_children, wait_for_ends
from tests.support.relay import Relay

pytestmark = [pytest.mark.real, pytest.mark.process]
SLOW = 512 << 10  # bytes a second: the shared layer takes six
BEGUN = 300 << 10  # bytes


@contextmanager
def killer(relay: Relay, after: int = 1, *, again: bool = False) -> Iterator[list[int]]:
    """Kill the processes of a mirror once they have sent so many bytes, or all that follow, too."""
    killed: list[int] = []
    ended = threading.Event()

    def has_sent(watched: Relay) -> bool:
        return ended.is_set() or watched.bytes_up >= after

    def run() -> None:
        seen = 0  # connections
        relay.wait_for(has_sent, WAIT)
        while not ended.wait(0.01):
            if relay.connections > seen:
                seen = relay.connections
                victims = [pid for pid in child_pids(os.getpid()) if pid not in killed]
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                killed.extend(victims)
            if not again:
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join(2 * WAIT)


def test_images_of_processes_that_die_are_copied_by_others(
    source: Source, destination: Destination, tmp_path: Path
) -> None:
    destination.relay.rate = 4 * SLOW
    journal = Journal(tmp_path / "journal")
    with (
        engine_of(replace(QUICK, chunk_size=1 << 20), journal=journal) as engine,
        killer(destination.relay, after=2 << 20) as killed,
    ):
        report = engine.mirror(source.items(destination.relay.url), processes=2)
    journal.close()

    assert len(killed) == 2
    assert report.failed == []
    assert report.image_count == IMAGES
    source.assert_copied(destination.registry.url)
    # The uploads go on where they were: a chunk in flight is sent twice, and what the link holds.
    assert destination.log.body_bytes("PATCH") <= len(SHARED.blob) + (2 << 20)


def test_an_image_whose_processes_die_twice_is_a_failure(
    source: Source, destination: Destination
) -> None:
    destination.relay.rate = SLOW
    events: list[Event] = []
    told: list[Outcome] = []
    items = source.items(destination.relay.url)[:2]
    with (
        engine_of(progress=events.append) as engine,
        killer(destination.relay, again=True) as killed,
    ):
        report = engine.mirror(items, processes=2, on_image=told.append)

    assert len(killed) >= 2
    assert {outcome.item for outcome in report.failed} == set(items)
    assert len(told) == 2
    for outcome in report.failed:
        assert isinstance(outcome.error, ConnectionLost)
        assert "signal 9" in str(outcome.error)
        assert outcome.error.remedy
        failed = [e for e in events if e.kind == "image" and e.state is State.FAILED]
        assert any(str(outcome.error) == event.detail for event in failed)
    assert destination.log.count("PUT", "/manifests/") == 0


def test_processes_that_cannot_start_are_an_error(
    source: Source, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with engine_of() as engine, pytest.raises(LimitReached, match="cannot be started"):
        engine.mirror(source.items(destination.relay.url), processes=2)

    assert destination.log.requests == ()


def test_no_interpreter_is_an_error(
    source: Source, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with engine_of() as engine, pytest.raises(OSError, match="nowhere"):
        engine.mirror(source.items(destination.relay.url), processes=2)


@dataclass(frozen=True, slots=True)
class FaultySettings(TLSSettings):
    """Raises in another process."""

    pid: int = 0

    def __hash__(self) -> int:
        if os.getpid() != self.pid:
            raise ZeroDivisionError("a bug, with pa55word")
        return 0


def test_a_bug_in_a_process_is_raised_with_its_traceback(
    source: Source, destination: Destination
) -> None:
    options = EndpointOptions(FaultySettings(pid=os.getpid()))
    with (
        Engine(QUICK, endpoints=Endpoints(options, options), journal=Journal(None)) as engine,
        pytest.raises(ZeroDivisionError, match="a bug") as excinfo,
    ):
        engine.mirror(source.items(destination.relay.url), processes=2)

    assert "in a process of the mirror" in "".join(excinfo.value.__notes__)
    assert "__hash__" in "".join(excinfo.value.__notes__)
    assert child_pids(os.getpid()) == []


PARENT = """
import sys
from concil import Engine, MirrorItem

items = [MirrorItem(*words.split()) for words in sys.argv[1:]]
with Engine() as engine:
    engine.mirror(items, processes=2)
"""


def test_a_program_without_a_main_guard_can_use_processes(
    source: Source, destination: Destination, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    words = [f"{item.source} {item.destination}" for item in source.items(destination.relay.url)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script), *words],
        env=environment,
        capture_output=True,
        timeout=WAIT,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    source.assert_copied(destination.registry.url)


def test_a_process_whose_parent_is_killed_ends(
    source: Source, destination: Destination, tmp_path: Path
) -> None:
    destination.relay.rate = SLOW
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    words = [f"{item.source} {item.destination}" for item in source.items(destination.relay.url)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen([sys.executable, str(script), *words], env=environment)
    try:
        children = wait_for_children(parent.pid, 2)
        destination.relay.wait_for(lambda relay: relay.bytes_up > BEGUN, WAIT)
    finally:
        parent.kill()
        parent.wait(WAIT)

    destination.relay.wait_for(lambda relay: relay.open_connections == 0, WAIT)
    wait_for_ends(children)
    assert not any(map(is_alive, children))
    assert destination.log.count("PUT", "/manifests/") == 0
