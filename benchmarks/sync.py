"""Many small images from one registry to another, beside `skopeo sync`: first, and once more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Bench, Case, concil
from benchmarks.content import make_image, put_image
from benchmarks.measure import MIB, measure
from benchmarks.registry import MemoryRegistry
from tests.support.relay import Relay

IMAGES = 200  # of a case of one GiB
TAGS = 10  # of a repository
LAYER = 64 * 1024  # bytes of each of an image's own three layers
SHARED = MIB  # bytes of the layer that all have
JOBS = 32  # requests of ours in flight
_REPOSITORIES = ("ours", "theirs")


@dataclass(frozen=True, slots=True)
class Hosts:
    """The registries as the programs reach them."""

    source: str
    destination: str


def sync(bench: Bench, *, delay: float = 0, again: bool = False) -> Case:
    """Mirror small images that share a layer.

    Args:
        delay: milliseconds of a round trip, by a relay in front of each registry.
        again: everything is there already.
    """
    count = max(2, IMAGES * bench.size // (1024 * MIB))
    names = list(_put(bench, count))
    stack = ExitStack()
    hosts = _reached(bench, delay, stack)
    ours = _ours(bench, hosts, names)
    theirs = _theirs(bench, hosts, names)

    def check(_: str) -> None:
        found = [len(list(_tags(bench.destination, name))) for name in _REPOSITORIES]
        assert max(found) == count, f"{found} tags arrived instead of {count}"

    if again:
        for command in (ours, theirs):
            measure(command, bench.environment())
    return Case(
        SHARED + count * 3 * LAYER,
        ours,
        "skopeo sync",
        theirs,
        (lambda: None) if again else bench.destination.empty,
        check,
        close=stack.close,
        most=2 if delay else None,
    )


def _put(bench: Bench, count: int) -> Iterator[tuple[str, str]]:
    """Put the images into the source; yield their repositories and tags."""
    layout = bench.directory / "small"
    for number in range(count):
        # The same seed is the same layer.
        layers = [(0, SHARED), *((1 + number * 3 + one, LAYER) for one in range(3))]
        image = make_image(layout, layers)
        name, tag = f"sync/r{number // TAGS}", f"v{number % TAGS}"
        put_image(bench.source, name, image, tag)
        yield name, tag


def _reached(bench: Bench, delay: float, stack: ExitStack) -> Hosts:
    if not delay:
        return Hosts(bench.source.host, bench.destination.host)
    relays = [
        stack.enter_context(Relay(registry.host, latency=delay / 2))
        for registry in (bench.source, bench.destination)
    ]
    return Hosts(relays[0].host, relays[1].host)


def _ours(bench: Bench, hosts: Hosts, names: list[tuple[str, str]]) -> tuple[str, ...]:
    path = bench.directory / "list"
    path.write_text("".join(f"http://{hosts.source}/{name}:{tag}\n" for name, tag in names))
    target = f"http://{hosts.destination}/{_REPOSITORIES[0]}"
    return concil("mirror", str(path), target, "--jobs", str(JOBS))


def _theirs(bench: Bench, hosts: Hosts, names: list[tuple[str, str]]) -> tuple[str, ...]:
    images: dict[str, list[str]] = {}
    for name, tag in names:
        images.setdefault(name, []).append(tag)
    path = bench.directory / "sync.yml"
    # JSON is YAML.
    path.write_text(json.dumps({hosts.source: {"tls-verify": False, "images": images}}))
    return (
        *("skopeo", "--insecure-policy", "sync", "--src", "yaml", "--dest", "docker"),
        *("--src-tls-verify=false", "--dest-tls-verify=false"),
        *(str(path), f"{hosts.destination}/{_REPOSITORIES[1]}"),
    )


def _tags(registry: MemoryRegistry, below: str) -> Iterator[Path]:
    return registry.repositories().joinpath(below).glob("**/_manifests/tags/*")
