"""Two processes at the same work: both end, and what they leave is right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB, CompletedChild, start, wait_for_end
from tests.resume.conftest import Content
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    digest_of,
    make_image,
    make_layer,
    put_blob,
    put_image,
)
from tests.support.relay import Relay
from tests.support.scale import FULL

# A rare fault is what these tests look for: one failure is enough.
pytestmark = pytest.mark.flaky(reruns=0)

SIZE = (1024 if FULL else 12) * MIB + 7
OVERHEAD = 512 * 1024  # bytes of heads of requests and answers


def twice(*commands: Sequence[str]) -> list[CompletedChild]:
    """Run commands at the same time."""
    children = [start(command) for command in commands]
    try:
        return [wait_for_end(child) for child in children]
    finally:
        for child in children:
            child.kill()


@pytest.fixture
def source(embedded: EmbeddedRegistry) -> Iterator[Relay]:
    with Relay(embedded.host) as relay:
        yield relay


def test_two_processes_pull_the_same_blob_into_the_same_file(
    source: Relay,
    embedded: EmbeddedRegistry,
    content: Content,
    tmp_path: Path,
    wire_budget: WireBudget,
) -> None:
    put_blob(embedded.url, "x", content.path.read_bytes())
    (tmp_path / "into").mkdir()
    target = tmp_path / "into" / "file"
    command = ["blob", "pull", f"{source.url}/x@{content.digest}", "-o", str(target)]

    ended = twice(command, command)

    assert [one.code for one in ended] == [0, 0], ended
    assert digest_of(target.read_bytes()) == content.digest
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    wire_budget.assert_at_most("received, by both", source.bytes_down, 2 * content.size, OVERHEAD)


def test_two_processes_pull_into_one_layout(
    source: Relay, embedded: EmbeddedRegistry, tmp_path: Path, wire_budget: WireBudget
) -> None:
    image = make_image(21, (SIZE, 70_000))
    put_image(embedded.url, "x", "1", image)
    layout = tmp_path / "layout"
    commands = [["copy", f"{source.url}/x:1", f"oci:{layout}:{name}"] for name in ("one", "two")]

    ended = twice(*commands)

    assert [one.code for one in ended] == [0, 0], ended
    blobs = layout / "blobs" / "sha256"
    assert sorted(path.name for path in blobs.iterdir()) == sorted(
        digest.removeprefix("sha256:") for digest in (image.digest, *image.blobs)
    )
    assert all(digest_of(path.read_bytes())[7:] == path.name for path in blobs.iterdir())
    names = json.loads((layout / "index.json").read_text())["manifests"]
    assert {each["annotations"]["org.opencontainers.image.ref.name"] for each in names} == {
        "one",
        "two",
    }
    assert list(layout.rglob("*.partial*")) == []
    wire_budget.assert_at_most("received, by both", source.bytes_down, 2 * SIZE, OVERHEAD)


@pytest.mark.real
def test_two_processes_mirror_the_same_list(
    source: Relay,
    embedded: EmbeddedRegistry,
    fresh_docker_registry: DockerRegistry,
    tmp_path: Path,
    wire_budget: WireBudget,
) -> None:
    shared = make_layer(1, SIZE // 2)
    images: dict[str, Image] = {
        f"m/{n}": make_image(30 + n, (shared, SIZE // 8, 1000)) for n in range(4)
    }
    for name, image in images.items():
        put_image(embedded.url, name, "1", image)
    plan = tmp_path / "plan"
    plan.write_text("".join(f"{source.url}/{name}:1\n" for name in images))

    with Relay(fresh_docker_registry.host) as target:
        command = ["mirror", str(plan), target.url]
        ended = twice(command, command)

        assert [one.code for one in ended] == [0, 0], ended
        wire_budget.assert_at_most("sent, by both", target.bytes_up, 2 * SIZE, OVERHEAD)
    for name, image in images.items():
        assert_same_image(fresh_docker_registry.url, name, "1", image)
