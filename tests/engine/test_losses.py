"""Broken, silent and refused connections cost a chunk at most, where the registry can resume."""

from __future__ import annotations

import pytest

from concil.config import TransferConfig
from concil.engine import Engine
from concil.progress import State
from tests.engine.wires import BLOBS, HEADS, IMAGE, MIDDLE, SIZE, Two, Wire
from tests.engine.world import CHUNK, Content, engine_of
from tests.lab.faults import Action, Fault
from tests.lab.images import get_blob, put_blob
from tests.transfer.world import Sink

BREAKS: list[Action] = ["fin", "rst"]


@pytest.mark.parametrize("action", BREAKS)
@pytest.mark.parametrize("after", [MIDDLE, 4 * CHUNK, SIZE - 1])
def test_push_goes_on_inside_the_broken_chunk(
    engine: Engine, wire: Wire, content: Content, action: Action, after: int
) -> None:
    wire.relay.add(Fault(action=action, after=after, direction="up", total=True))

    engine.push_blob(content.path, f"{wire.relay.url}/app")

    assert wire.relay.fired == 1
    assert get_blob(wire.registry.url, "app", content.digest) == content.bytes
    assert SIZE <= wire.sent() <= SIZE + CHUNK


@pytest.mark.real
@pytest.mark.parametrize("action", BREAKS)
def test_push_to_the_real_registry_begins_again(
    engine: Engine, real_wire: Wire, content: Content, repository: str, action: Action
) -> None:
    real_wire.relay.add(Fault(action=action, after=MIDDLE, direction="up", total=True))

    engine.push_blob(content.path, f"{real_wire.relay.url}/{repository}")

    assert real_wire.relay.fired == 1
    assert get_blob(real_wire.registry.url, repository, content.digest) == content.bytes
    assert real_wire.sent() <= 2 * SIZE


@pytest.mark.parametrize("action", BREAKS)
@pytest.mark.parametrize("after", [1, MIDDLE, SIZE - 1])
def test_pull_goes_on_at_the_next_byte(
    engine: Engine, wire: Wire, content: Content, action: Action, after: int
) -> None:
    put_blob(wire.registry.url, "app", content.bytes)
    wire.relay.add(Fault(action=action, after=after, total=True))

    target = content.path.with_name("pulled")
    engine.pull_blob(f"{wire.relay.url}/app@{content.digest}", target)

    assert wire.relay.fired == 1
    assert target.read_bytes() == content.bytes
    # What a reset throws away had been on the wire, in the buffers of every connection.
    assert wire.relay.bytes_down <= SIZE + HEADS + (0 if action == "fin" else CHUNK)


@pytest.mark.parametrize("action", BREAKS)
def test_broken_destination_reads_no_more_of_the_source_than_a_chunk(
    engine: Engine, two: Two, action: Action
) -> None:
    two.target.relay.add(Fault(action=action, after=MIDDLE, direction="up", total=True))

    two.copy(engine)

    assert two.target.relay.fired == 1
    assert two.target.sent() <= BLOBS + CHUNK
    # A body that is left in its middle has more on the way, as much as sockets hold.
    assert two.source.relay.bytes_down <= BLOBS + HEADS + 8 * CHUNK


@pytest.mark.parametrize("action", BREAKS)
def test_broken_source_does_not_touch_the_upload(engine: Engine, two: Two, action: Action) -> None:
    two.source.relay.add(Fault(action=action, after=MIDDLE, total=True))

    two.copy(engine)

    assert two.source.relay.fired == 1
    assert two.target.sent() == BLOBS
    assert two.target.log.count("POST", "/blobs/uploads/") == len(IMAGE.blobs)
    assert two.source.relay.bytes_down <= BLOBS + HEADS + CHUNK


@pytest.mark.parametrize("action", BREAKS)
def test_both_sides_broken_cost_a_chunk_each(engine: Engine, two: Two, action: Action) -> None:
    two.source.relay.add(Fault(action=action, after=MIDDLE, total=True))
    two.target.relay.add(Fault(action=action, after=5 * CHUNK + 99, direction="up", total=True))

    two.copy(engine)

    assert (two.source.relay.fired, two.target.relay.fired) == (1, 1)
    assert two.target.sent() <= BLOBS + CHUNK


@pytest.mark.real
def test_copy_to_the_real_registry_survives_a_cut_on_each_side(
    engine: Engine, wire: Wire, real_wire: Wire
) -> None:
    wire.relay.add(Fault(action="rst", after=MIDDLE, total=True))
    real_wire.relay.add(Fault(action="rst", after=MIDDLE, direction="up", total=True))

    Two(wire, real_wire).copy(engine)

    assert (wire.relay.fired, real_wire.relay.fired) == (1, 1)


def test_losses_are_told(config: TransferConfig, wire: Wire, content: Content) -> None:
    wire.relay.add(Fault(action="rst", after=MIDDLE, direction="up", total=True))
    sink = Sink()

    with engine_of(config, progress=sink) as engine:
        engine.push_blob(content.path, f"{wire.relay.url}/app")

    assert sink.states() == [State.STARTED, State.RETRYING, State.DONE]
    [lost] = [event for event in sink.events if event.state is State.RETRYING]
    assert 0 < lost.position <= MIDDLE
    assert lost.detail
