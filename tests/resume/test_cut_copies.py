"""A copy whose links break: each side goes on by itself, and sends or fetches nothing twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from concil.server import EmbeddedRegistry
from tests.lab.faults import Action, Fault
from tests.lab.images import Image, assert_same_image, make_image, put_image
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.resume.account import Account
from tests.resume.children import FULL, MIB, Ended, run

SIZE = 1024 * MIB if FULL else 75 * MIB + 7
CHUNK = 10 * MIB  # nothing is known of the destination
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers
BREAKS: tuple[Action, ...] = ("fin", "rst")


@pytest.fixture(scope="module")
def image() -> Image:
    return make_image(11, (SIZE,))


@pytest.fixture
def source(docker_registry: DockerRegistry, image: Image) -> Iterator[Relay]:
    """A relay in front of the real registry, which has the image."""
    put_image(docker_registry.url, "cut/source", "1", image)
    with Relay(docker_registry.host) as relay:
        yield relay


def copy(source: Relay, target: Relay) -> Ended:
    return run(["copy", f"{source.url}/cut/source:1", f"{target.url}/cut/target:1"])


def total(image: Image) -> int:
    """Bytes of all that is moved."""
    return sum(len(content) for content in image.blobs.values()) + len(image.manifest)


@pytest.mark.real
@pytest.mark.parametrize("action", BREAKS)
@pytest.mark.parametrize("cut", [("target",), ("source",), ("source", "target")], ids="+".join)
def test_a_cut_costs_a_chunk_at_most_and_on_its_own_side(
    source: Relay,
    resuming: Relay,
    image: Image,
    action: Action,
    cut: tuple[str, ...],
    *,
    account: Account,
) -> None:
    if "source" in cut:
        source.add(Fault(action=action, after=SIZE // 2, total=True))
    if "target" in cut:
        # Both at once would be one loss: the later one is met on the way on.
        after = SIZE // 2 + (3 * CHUNK if "source" in cut else 0)
        resuming.add(Fault(action=action, after=after, direction="up", total=True))

    ended = copy(source, resuming)

    assert ended.code == 0, ended.err
    assert source.fired + resuming.fired == len(cut)
    assert_same_image(resuming.url, "cut/target", "1", image)
    sent, fetched, size = resuming.bytes_up, source.bytes_down, total(image)
    account.most("sent", sent, size, OVERHEAD + ("target" in cut) * CHUNK)
    account.most("received", fetched, size, OVERHEAD + len(cut) * CHUNK)


@pytest.mark.real
@pytest.mark.parametrize("action", BREAKS)
def test_a_source_that_is_cut_never_begins_the_upload_again(
    source: Relay, forgetting: Relay, image: Image, action: Action, account: Account
) -> None:
    source.add(Fault(action=action, after=SIZE // 2, total=True))

    ended = copy(source, forgetting)

    assert ended.code == 0, ended.err
    assert_same_image(forgetting.url, "cut/target", "1", image)
    account.most("sent", forgetting.bytes_up, total(image), OVERHEAD)
    account.most("received", source.bytes_down, total(image), OVERHEAD + CHUNK)


@pytest.mark.real
def test_a_destination_that_forgets_is_read_for_again_only_once(
    source: Relay, forgetting: Relay, image: Image, account: Account
) -> None:
    forgetting.add(Fault(action="rst", after=SIZE // 2, direction="up", total=True))

    ended = copy(source, forgetting)

    assert ended.code == 0, ended.err
    assert_same_image(forgetting.url, "cut/target", "1", image)
    allowed = SIZE // 2 + OVERHEAD + CHUNK
    account.most("received", source.bytes_down, total(image), allowed)


@pytest.mark.real
def test_a_copy_that_was_cut_leaves_no_session_and_no_partial_tag(
    source: Relay, resuming: Relay, embedded: EmbeddedRegistry, image: Image
) -> None:
    resuming.add(Fault(action="rst", after=SIZE // 2, direction="up", total=True))

    copy(source, resuming)

    tags = requests.get(f"{embedded.url}/v2/cut/target/tags/list", timeout=60).json()["tags"]
    assert tags == ["1"]
    assert run(["transfers"]).out.strip() == ""
