"""One large image: copied, pulled into a layout, pushed from one; plainly, over TLS, delayed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench, Case, Command, Hosts
from benchmarks.cases.image_copy import Place, copy_commands
from benchmarks.content import Blob, Image, hash_of, make_image, put_image
from benchmarks.servers.registry import MemoryRegistry

NAME = "bench/image"


def copy(bench: Bench, *, layers: int = 1, tls: bool = False, delay: float = 0) -> Case:
    """Copy an image from registry to registry; the floor sends files whose digests it is given."""
    image = _image(bench, layers)
    put_image(bench.source, NAME, image)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        source = Place(f"{hosts.source}/{NAME}", hosts.scheme)
        destination = Place(f"{hosts.destination}/{NAME}", hosts.scheme)
        return copy_commands(source, destination) | upload_floors(hosts, image.layers)

    return Case(
        _size(image),
        bench.hosts(tls=tls, delay=delay),
        commands,
        lambda program, output: _check_registry(bench.destination, image, program, output),
        bench.destination.empty,
        lambda: _clear(bench, image),
        None if delay else bench.counting(tls=tls),
    )


def pull(bench: Bench, *, tls: bool = False, delay: float = 0) -> Case:
    """Pull an image into a layout; the floor writes the layer to a file and hashes nothing."""
    image = _image(bench, 1)
    put_image(bench.source, NAME, image)
    layout, file = bench.directory / "pulled", bench.directory / "pulled.file"
    (layer,) = image.layers

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        source = Place(f"{hosts.source}/{NAME}", hosts.scheme)
        url = f"{hosts.scheme}://{hosts.source}/v2/{NAME}/blobs/{layer.digest}"
        floors = {"curl": ("curl", "-sf", "-o", str(file), url), "openssl": _openssl(image.layers)}
        return copy_commands(source, Place(layout)) | floors

    def reset() -> None:
        shutil.rmtree(layout, ignore_errors=True)
        file.unlink(missing_ok=True)

    def check(program: str, output: str) -> None:
        blob = layout / "blobs" / "sha256" / layer.path.name
        _check_output(file if program == "curl" else blob, layer, program, output)

    def close() -> None:
        reset()
        _clear(bench, image)

    hosts = bench.hosts(tls=tls, delay=delay)
    counting = None if delay else bench.counting(tls=tls)
    return Case(_size(image), hosts, commands, check, reset, close, counting)


def push(bench: Bench, *, tls: bool = False) -> Case:
    """Push an image from a layout; the floor sends the layer, whose digest it is given."""
    image = _image(bench, 1)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        destination = Place(f"{hosts.destination}/{NAME}", hosts.scheme)
        floors = upload_floors(hosts, image.layers)
        return copy_commands(Place(image.layout), destination) | floors

    return Case(
        _size(image),
        bench.hosts(tls=tls),
        commands,
        lambda program, output: _check_registry(bench.destination, image, program, output),
        bench.destination.empty,
        lambda: _clear(bench, image),
        bench.counting(tls=tls),
    )


def _image(bench: Bench, layers: int) -> Image:
    """An image of so many equal layers."""
    layout = bench.directory / "layout"
    return make_image(layout, [(seed, bench.size // layers) for seed in range(layers)])


def _size(image: Image) -> int:
    return sum(layer.size for layer in image.layers)


def _clear(bench: Bench, image: Image) -> None:
    bench.empty()
    shutil.rmtree(image.layout)


def upload_floors(hosts: Hosts, blobs: Sequence[Blob]) -> dict[str, Command]:
    """Send all blobs at the same time; hash them and do nothing else."""
    url = f"{hosts.scheme}://{hosts.destination}/v2/bench/floor/blobs/uploads/"
    opened = f"curl -sf -X POST -o /dev/null -w '%header{{location}}' '{url}'"
    uploads = (
        f'{{ location=$({opened}) && curl -sf -T "{blob.path}" "$location&digest={blob.digest}"; }}'
        for blob in blobs
    )
    script = " & ".join(uploads) + " & wait"
    return {"curl": ("sh", "-c", script), "openssl": _openssl(blobs)}


def _openssl(blobs: Sequence[Blob]) -> Command:
    return ("openssl", "dgst", "-sha256", *(str(blob.path) for blob in blobs))


def _check_registry(registry: MemoryRegistry, image: Image, program: str, output: str) -> None:
    """Raise AssertionError where wrong bytes have arrived, or none."""
    config = () if program in ("curl", "openssl") else (image.config,)
    for blob in (*config, *image.layers):
        _check_output(registry.blob(blob.digest), blob, program, output)


def _check_output(path: Path, blob: Blob, program: str, output: str) -> None:
    if program == "openssl":
        assert blob.digest.partition(":")[2] in output, f"{blob.digest} is not in {output}"
        return
    found = hash_of(path)
    assert found == blob.digest, f"{found} arrived instead of {blob.digest}"
