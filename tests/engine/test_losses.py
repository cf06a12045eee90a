"""Broken, silent and refused connections cost a chunk at most, where the registry can resume."""

from __future__ import annotations

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.progress.events import State
from tests.engine.engine_setup import CHUNK, Content, engine_of
from tests.engine.relayed_registries import (
    BLOBS,
    HEADS,
    IMAGE,
    MIDDLE,
    SIZE,
    RegistryPair,
    RelayedRegistry,
)
from tests.support.faults import Action, Fault
from tests.support.images import get_blob, put_blob
from tests.transfer.transfer_setup import Sink

BREAKS: list[Action] = ["fin", "rst"]


@pytest.mark.parametrize("action", BREAKS)
@pytest.mark.parametrize("after", [MIDDLE, 4 * CHUNK, SIZE - 1])
def test_push_resumes_inside_the_broken_chunk(
    engine: Engine, relayed_registry: RelayedRegistry, content: Content, action: Action, after: int
) -> None:
    relayed_registry.relay.add_fault(Fault(action=action, after=after, direction="up", total=True))

    engine.push_blob(content.path, f"{relayed_registry.relay.url}/app")

    assert relayed_registry.relay.fired_count == 1
    assert get_blob(relayed_registry.registry.url, "app", content.digest) == content.bytes
    assert SIZE <= relayed_registry.sent() <= SIZE + CHUNK


@pytest.mark.real
@pytest.mark.parametrize("action", BREAKS)
def test_push_to_the_real_registry_begins_again(
    engine: Engine,
    relayed_docker_registry: RelayedRegistry,
    content: Content,
    repository: str,
    action: Action,
) -> None:
    relayed_docker_registry.relay.add_fault(
        Fault(action=action, after=MIDDLE, direction="up", total=True)
    )

    engine.push_blob(content.path, f"{relayed_docker_registry.relay.url}/{repository}")

    assert relayed_docker_registry.relay.fired_count == 1
    assert (
        get_blob(relayed_docker_registry.registry.url, repository, content.digest) == content.bytes
    )
    assert relayed_docker_registry.sent() <= 2 * SIZE


@pytest.mark.parametrize("action", BREAKS)
@pytest.mark.parametrize("after", [1, MIDDLE, SIZE - 1])
def test_pull_resumes_at_the_next_byte(
    engine: Engine, relayed_registry: RelayedRegistry, content: Content, action: Action, after: int
) -> None:
    put_blob(relayed_registry.registry.url, "app", content.bytes)
    relayed_registry.relay.add_fault(Fault(action=action, after=after, total=True))

    target = content.path.with_name("pulled")
    engine.pull_blob(f"{relayed_registry.relay.url}/app@{content.digest}", target)

    assert relayed_registry.relay.fired_count == 1
    assert target.read_bytes() == content.bytes
    # What a reset throws away had been on the wire, in the buffers of every connection.
    assert relayed_registry.relay.bytes_down <= SIZE + HEADS + (0 if action == "fin" else CHUNK)


@pytest.mark.parametrize("action", BREAKS)
def test_broken_destination_reads_no_more_of_the_source_than_a_chunk(
    engine: Engine, registry_pair: RegistryPair, action: Action
) -> None:
    registry_pair.destination.relay.add_fault(
        Fault(action=action, after=MIDDLE, direction="up", total=True)
    )

    registry_pair.copy(engine)

    assert registry_pair.destination.relay.fired_count == 1
    assert registry_pair.destination.sent() <= BLOBS + CHUNK
    # A body that is left in its middle has more on the way, as much as sockets hold.
    assert registry_pair.source.relay.bytes_down <= BLOBS + HEADS + 8 * CHUNK


@pytest.mark.parametrize("action", BREAKS)
def test_broken_source_does_not_touch_the_upload(
    engine: Engine, registry_pair: RegistryPair, action: Action
) -> None:
    registry_pair.source.relay.add_fault(Fault(action=action, after=MIDDLE, total=True))

    registry_pair.copy(engine)

    assert registry_pair.source.relay.fired_count == 1
    assert registry_pair.destination.sent() == BLOBS
    assert registry_pair.destination.log.count("POST", "/blobs/uploads/") == len(IMAGE.blobs)
    assert registry_pair.source.relay.bytes_down <= BLOBS + HEADS + CHUNK


@pytest.mark.parametrize("action", BREAKS)
def test_both_sides_broken_cost_a_chunk_each(
    engine: Engine, registry_pair: RegistryPair, action: Action
) -> None:
    registry_pair.source.relay.add_fault(Fault(action=action, after=MIDDLE, total=True))
    registry_pair.destination.relay.add_fault(
        Fault(action=action, after=5 * CHUNK + 99, direction="up", total=True)
    )

    registry_pair.copy(engine)

    assert (
        registry_pair.source.relay.fired_count,
        registry_pair.destination.relay.fired_count,
    ) == (1, 1)
    assert registry_pair.destination.sent() <= BLOBS + CHUNK


@pytest.mark.real
def test_copy_to_the_real_registry_survives_a_cut_on_each_side(
    engine: Engine, relayed_registry: RelayedRegistry, relayed_docker_registry: RelayedRegistry
) -> None:
    relayed_registry.relay.add_fault(Fault(action="rst", after=MIDDLE, total=True))
    relayed_docker_registry.relay.add_fault(
        Fault(action="rst", after=MIDDLE, direction="up", total=True)
    )

    RegistryPair(relayed_registry, relayed_docker_registry).copy(engine)

    assert (relayed_registry.relay.fired_count, relayed_docker_registry.relay.fired_count) == (1, 1)


def test_losses_send_retrying_events(
    config: TransferConfig, relayed_registry: RelayedRegistry, content: Content
) -> None:
    relayed_registry.relay.add_fault(Fault(action="rst", after=MIDDLE, direction="up", total=True))
    sink = Sink()

    with engine_of(config, progress=sink) as engine:
        engine.push_blob(content.path, f"{relayed_registry.relay.url}/app")

    assert sink.states() == [State.STARTED, State.RETRYING, State.DONE]
    [lost] = [event for event in sink.events if event.state is State.RETRYING]
    assert 0 < lost.position <= MIDDLE
    assert lost.detail
