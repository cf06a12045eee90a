"""The same tasks against servers that cost next to nothing: what is measured is the client."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Case, Command, Hosts
from benchmarks.cases.image_copy import Place, copy_commands
from benchmarks.cases.mirror import LAYER, SHARED, Name, images, mirror_commands
from benchmarks.cases.transfer import NAME, upload_floors
from benchmarks.content import TAG, Image, make_image


def replay_copy(bench: Bench) -> Case:
    """Copy an image with one large layer: MiB a second."""
    image = make_image(bench.directory / "layout", [(0, bench.size)])
    directory = write_content(bench, [((NAME, TAG), image)])
    hosts = start_replay(bench, directory)
    (layer,) = image.layers
    layer = type(layer)(directory / "blobs" / layer.path.name, layer.digest, layer.size)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        source, destination = (
            Place(f"{host}/{NAME}") for host in (hosts.source, hosts.destination)
        )
        return copy_commands(source, destination) | upload_floors(hosts, [layer])

    return _case(bench, directory, hosts, layer.size, commands)


def replay_mirror(bench: Bench) -> Case:
    """Mirror small images: requests a second."""
    names: list[Name] = []

    def named() -> Iterator[tuple[Name, Image]]:
        for name, image in images(bench, bench.images):
            names.append(name)
            yield name, image

    directory = write_content(bench, named())
    hosts = start_replay(bench, directory)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        return mirror_commands(bench.directory, hosts, names)

    return _case(bench, directory, hosts, SHARED + len(names) * 3 * LAYER, commands)


def start_replay(bench: Bench, directory: Path) -> Hosts:
    """Start a source with the content of a directory, and an empty destination."""
    source = bench.start_server("replay", str(directory))
    return Hosts(source, bench.start_server("replay"))


def reset_replay(hosts: Hosts) -> None:
    """Forget what was pushed; count from 0."""
    for host in (hosts.source, hosts.destination):
        _ask(host, "DELETE", "/")


def count_replay(hosts: Hosts) -> int:
    """How many requests both servers have had since they were reset."""
    return sum(int(_ask(host, "GET", "/count")) for host in (hosts.source, hosts.destination))


def _case(
    bench: Bench,
    directory: Path,
    hosts: Hosts,
    size: int,
    commands: Callable[[Hosts], Mapping[str, Command]],
) -> Case:
    @contextmanager
    def counting() -> Iterator[tuple[Hosts, Callable[[], int]]]:
        yield hosts, lambda: count_replay(hosts)

    def check(program: str, _output: str) -> None:
        assert program == "openssl" or count_replay(hosts) > 1, f"{program} sent nothing"

    def close() -> None:
        bench.stop_servers()
        shutil.rmtree(directory)

    def reset() -> None:
        reset_replay(hosts)

    return Case(size, hosts, commands, check, reset, close, counting)


def write_content(bench: Bench, named: Iterable[tuple[Name, Image]]) -> Path:
    """Move the blobs of images into one directory, as the server wants it."""
    directory = bench.directory / "replay"
    blobs = directory / "blobs"
    blobs.mkdir(parents=True)
    tags = {}
    for (repository, tag), image in named:
        tags[f"{repository}:{tag}"] = image.manifest.digest
        for blob in (image.config, image.manifest, *image.layers):
            blob.path.rename(blobs / blob.path.name)
    (directory / "tags.json").write_text(json.dumps(tags))
    return directory


def _ask(host: str, method: str, target: str) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(method, target)
        return connection.getresponse().read()
    finally:
        connection.close()
