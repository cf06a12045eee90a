"""The cases: what is moved, by which two programs, and how it is known to be right."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.content import TAG, Blob, hash_of, make_blob, make_image, put_blob, put_image
from benchmarks.registry import MemoryRegistry

_SKOPEO = (
    *("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--quiet"),
    *("--src-tls-verify=false", "--dest-tls-verify=false"),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all cases share: two registries and a directory, all in memory."""

    directory: Path
    source: MemoryRegistry
    destination: MemoryRegistry
    size: int  # bytes that a case moves

    def served(self) -> float:
        """CPU seconds that the registries have used since they started."""
        return self.source.cpu() + self.destination.cpu()

    def environment(self) -> dict[str, str]:
        """A home without credentials, proxies and policies of the user's."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison, ready to run."""

    size: int  # bytes
    ours: tuple[str, ...]
    rival: str  # what it is measured against, for the table
    theirs: tuple[str, ...]
    reset: Callable[[], None]  # before each run
    check: Callable[[str], None]  # after each run, with its standard output
    close: Callable[[], None] = lambda: None  # after the last one
    most: int | None = None  # pairs of runs, where one takes minutes


def _copy(bench: Bench, layers: int) -> Case:
    """An image of so many equal layers, from one registry to the other."""
    image = make_image(
        bench.directory / "layout", [(seed, bench.size // layers) for seed in range(layers)]
    )
    put_image(bench.source, "bench/image", image)
    for layer in image.layers:
        layer.path.unlink()
    source, destination = (
        f"{registry.host}/bench/image:{TAG}" for registry in (bench.source, bench.destination)
    )
    return Case(
        sum(layer.size for layer in image.layers),
        concil("copy", f"http://{source}", f"http://{destination}"),
        "skopeo copy",
        (*_SKOPEO, f"docker://{source}", f"docker://{destination}"),
        bench.destination.empty,
        lambda _: _all_arrived(bench.destination, (image.config, *image.layers)),
    )


def copy_one(bench: Bench) -> Case:
    """Copy an image with one large layer."""
    return _copy(bench, 1)


def copy_eight(bench: Bench) -> Case:
    """Copy an image with eight layers."""
    return _copy(bench, 8)


def copy_floor(bench: Bench) -> Case:
    """Copy the large layer; the floor sends a file whose digest it is told, and reads nothing."""
    case = _copy(bench, 1)
    blob = make_blob(bench.directory, 0, bench.size)
    url = f"{bench.destination.url}/v2/bench/floor/blobs/uploads/"
    opened = f"curl -sf -X POST -o /dev/null -w '%header{{location}}' '{url}'"
    sent = f'curl -sf -X PUT -T "{blob.path}" "$location&digest={blob.digest}"'
    return replace(
        case,
        rival="curl -T",
        theirs=("sh", "-c", f"location=$({opened}) && {sent}"),
        check=lambda _: _all_arrived(bench.destination, (blob,)),
        close=blob.path.unlink,
    )


def pull(bench: Bench) -> Case:
    """Pull a blob into a file; the floor fetches and hashes it, and writes nothing."""
    blob = make_blob(bench.directory, 100, bench.size)
    put_blob(bench.source, "bench/blob", blob)
    blob.path.unlink()
    target = bench.directory / "pulled"
    url = f"{bench.source.url}/v2/bench/blob/blobs/{blob.digest}"

    def check(output: str) -> None:
        found = (
            hash_of(target) if target.exists() else f"sha256:{output.rpartition(' ')[2].strip()}"
        )
        assert found == blob.digest, f"{found} came instead of {blob.digest}"

    return Case(
        blob.size,
        concil("blob", "pull", f"{bench.source.url}/bench/blob@{blob.digest}", "-o", str(target)),
        "curl | openssl",
        ("sh", "-c", f"curl -sf '{url}' | openssl dgst -sha256"),
        lambda: target.unlink(missing_ok=True),
        check,
    )


def push(bench: Bench) -> Case:
    """Push a file; skopeo gets it as the only layer of an image layout."""
    image = make_image(bench.directory / "layout", [(0, bench.size)])
    target = f"{bench.destination.host}/bench/pushed"
    return Case(
        bench.size,
        concil("blob", "push", str(image.layers[0].path), f"http://{target}"),
        "skopeo copy oci:",
        (*_SKOPEO, f"oci:{image.layout}:{TAG}", f"docker://{target}:{TAG}"),
        bench.destination.empty,
        lambda _: _all_arrived(bench.destination, image.layers),
    )


def concil(*arguments: str) -> tuple[str, ...]:
    """Our command line, as this Python runs it."""
    return sys.executable, "-m", "concil", *arguments


def _all_arrived(registry: MemoryRegistry, blobs: Sequence[Blob]) -> None:
    for blob in blobs:
        found = hash_of(registry.blob(blob.digest))
        assert found == blob.digest, f"{found} arrived instead of {blob.digest}"
