"""A copy whose links break: each side goes on by itself, and sends or fetches nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, CompletedChild, run
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Action, Fault
from tests.support.images import Image, assert_same_image, make_image, put_image
from tests.support.relay import Relay
from tests.support.scale import FULL

SIZE = 1024 * MIB if FULL else 75 * MIB + 7
CHUNK = 10 * MIB  # nothing is known of the destination, so this is the first size
MAX_CHUNK = 64 * MIB  # chunks grow to it, but no chunk is larger than a quarter of what was sent
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers
# A source is read as fast as the destination takes it, so the kernel's receive window is full
# of bytes that nobody has read; they are lost with the connection. On a busy machine 4 MiB
# were seen. Beginning again would cost SIZE // 2, which is more than a chunk and a window.
WINDOW = 16 * MIB
BREAKS: tuple[Action, ...] = ("fin", "rst")
TARGET, SOURCE = ("target",), ("source",)
CUTS: list[tuple[tuple[str, ...], Action]] = [
    (TARGET, "rst"),
    (TARGET, "fin"),
    (SOURCE, "fin"),
    (SOURCE + TARGET, "rst"),
]
if FULL:
    CUTS += [(SOURCE, "rst"), (SOURCE + TARGET, "fin")]


@pytest.fixture(scope="module")
def image() -> Image:
    return make_image(11, (SIZE,))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[DockerRegistry]:
    """The real registry, which has the image."""
    with DockerRegistry(tmp_path_factory.mktemp("full")) as registry:
        put_image(registry.url, "cut/source", "1", image)
        yield registry


@pytest.fixture
def source(full: DockerRegistry) -> Iterator[Relay]:
    """A relay in front of the real registry."""
    with Relay(full.host) as relay:
        yield relay


def copy(source: Relay, target: Relay) -> CompletedChild:
    return run(["copy", f"{source.url}/cut/source:1", f"{target.url}/cut/target:1"])


def total(image: Image) -> int:
    """Bytes of all that is moved."""
    return sum(len(content) for content in image.blobs.values()) + len(image.manifest)


def largest_chunk(offset: int) -> int:
    """Return the bytes of the largest chunk that may be on its way at an offset."""
    return max(CHUNK, min(MAX_CHUNK, offset // 4))


@pytest.mark.real
@pytest.mark.parametrize(("cut", "action"), CUTS)
def test_a_cut_costs_a_chunk_at_most_and_on_its_own_side(
    source: Relay,
    resumable_relay: Relay,
    image: Image,
    action: Action,
    cut: tuple[str, ...],
    *,
    wire_budget: WireBudget,
) -> None:
    if "source" in cut:
        source.add_fault(Fault(action=action, after=SIZE // 2, total=True))
    if "target" in cut:
        # Both at once would be one loss: the later one is met on the way on.
        after = SIZE // 2 + (3 * CHUNK if "source" in cut else 0)
        resumable_relay.add_fault(Fault(action=action, after=after, direction="up", total=True))

    ended = copy(source, resumable_relay)

    assert ended.code == 0, ended.err
    assert source.fired_count + resumable_relay.fired_count == len(cut)
    assert_same_image(resumable_relay.url, "cut/target", "1", image)
    sent, fetched, size = resumable_relay.bytes_up, source.bytes_down, total(image)
    lost = largest_chunk(SIZE // 2 + 3 * CHUNK if "source" in cut else SIZE // 2)
    wire_budget.assert_at_most("sent", sent, size, OVERHEAD + ("target" in cut) * lost)
    wire_budget.assert_at_most("received", fetched, size, OVERHEAD + len(cut) * (lost + WINDOW))


@pytest.mark.real
@pytest.mark.parametrize("action", BREAKS)
def test_a_source_that_is_cut_never_begins_the_upload_again(
    source: Relay,
    session_losing_relay: Relay,
    image: Image,
    action: Action,
    wire_budget: WireBudget,
) -> None:
    source.add_fault(Fault(action=action, after=SIZE // 2, total=True))

    ended = copy(source, session_losing_relay)

    assert ended.code == 0, ended.err
    assert_same_image(session_losing_relay.url, "cut/target", "1", image)
    wire_budget.assert_at_most("sent", session_losing_relay.bytes_up, total(image), OVERHEAD)
    lost = largest_chunk(SIZE // 2)
    allowed = OVERHEAD + lost + WINDOW
    wire_budget.assert_at_most("received", source.bytes_down, total(image), allowed)


@pytest.mark.real
def test_a_destination_that_forgets_is_read_for_again_only_once(
    source: Relay, session_losing_relay: Relay, image: Image, wire_budget: WireBudget
) -> None:
    session_losing_relay.add_fault(Fault(action="rst", after=SIZE // 2, direction="up", total=True))

    ended = copy(source, session_losing_relay)

    assert ended.code == 0, ended.err
    assert_same_image(session_losing_relay.url, "cut/target", "1", image)
    allowed = SIZE // 2 + OVERHEAD + largest_chunk(SIZE // 2) + WINDOW
    wire_budget.assert_at_most("received", source.bytes_down, total(image), allowed)


@pytest.mark.real
def test_a_copy_that_was_cut_leaves_no_session_and_no_partial_tag(
    source: Relay, resumable_relay: Relay, embedded: EmbeddedRegistry, image: Image
) -> None:
    resumable_relay.add_fault(Fault(action="rst", after=SIZE // 2, direction="up", total=True))

    copy(source, resumable_relay)

    tags = requests.get(f"{embedded.url}/v2/cut/target/tags/list", timeout=60).json()["tags"]
    assert tags == ["1"]
    assert run(["transfers"]).out.strip() == ""
