"""Many small images from one registry to another: for the first time, and with nothing to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench, Case, Command, Hosts, concil
from benchmarks.content import Image, make_image, put_image
from benchmarks.measure import MIB, measure
from benchmarks.servers.registry import MemoryRegistry

TAGS = 10  # of a repository
LAYER = 64 * 1024  # bytes of each of an image's own three layers
SHARED = MIB  # bytes of the layer that all have
JOBS = 32
PARALLEL = 4  # of the peers
FOLDER = "mirror"  # of all repositories
TARGET = "target"  # where the copies are
MANY_JOBS, REGSYNC = f"concil -j{JOBS}", f"regsync x{PARALLEL}"
TWO_PROCESSES = "concil --processes 2"
CRANE = f"crane -P{PARALLEL}"  # so many processes at the same time, one for each image
CRANE_ALL = f"{CRANE} -a"  # likewise, one for each repository

Name = tuple[str, str]  # repository and tag


def mirror(bench: Bench, *, tls: bool = False, delay: float = 0, again: bool = False) -> Case:
    """Mirror small images that share a layer.

    Args:
        bench: What all cases share.
        tls: Use TLS on both sides.
        delay: Milliseconds of a round trip.
        again: Everything is there already.
    """
    names = list(_put(bench))
    hosts = bench.hosts(tls=tls, delay=delay)

    def commands(hosts: Hosts) -> Mapping[str, Command]:
        found = mirror_commands(bench.directory, hosts, names)
        if delay:  # it needs minutes
            del found["skopeo sync"]
        return found

    def check(_program: str, _output: str) -> None:
        found = len(list(_tags(bench.destination)))
        assert found == len(names), f"{found} tags arrived instead of {len(names)}"

    if again:
        bench.forget()
        for program in ("concil", REGSYNC):  # each keeps what it has learned
            if program.split()[0] in bench.programs:
                measure(commands(hosts)[program], bench.environment())
    return Case(
        SHARED + len(names) * 3 * LAYER,
        hosts,
        commands,
        check,
        (lambda: None) if again else bench.destination.empty,
        bench.empty,
        None if delay else bench.counting(tls=tls),
        keeps_home=again,
    )


def mirror_commands(
    directory: Path, hosts: Hosts, names: Sequence[Name], *, target: str = TARGET
) -> dict[str, Command]:
    """Write the list of images for each program; return the command lines."""
    repositories: dict[str, list[str]] = {}
    for repository, tag in names:
        repositories.setdefault(repository, []).append(tag)
    ours = _concil(directory, hosts, names, target)
    return {
        "concil": ours,
        MANY_JOBS: (*ours, "--jobs", str(JOBS)),
        TWO_PROCESSES: (*ours, "--jobs", str(JOBS), "--processes", "2"),
        REGSYNC: _regsync(directory, hosts, repositories, target),
        CRANE: _crane(directory, hosts, [f"{name}:{tag}" for name, tag in names], target),
        CRANE_ALL: _crane(directory, hosts, list(repositories), target, "--all-tags"),
        "skopeo sync": _skopeo(directory, hosts, repositories, target),
    }


def images(bench: Bench, count: int) -> Iterator[tuple[Name, Image]]:
    """Make the images one after the other, each in the same layout; yield their names."""
    layout = bench.directory / "small"
    for number in range(count):
        # The same seed is the same layer.
        layers = [(0, SHARED), *((1 + number * 3 + one, LAYER) for one in range(3))]
        yield (f"{FOLDER}/r{number // TAGS}", f"v{number % TAGS}"), make_image(layout, layers)
    shutil.rmtree(layout)


def _put(bench: Bench) -> Iterator[Name]:
    """Put the images into the source; yield their names."""
    for name, image in images(bench, bench.images):
        put_image(bench.source, name[0], image, name[1])
        yield name


def _concil(directory: Path, hosts: Hosts, names: Sequence[Name], target: str) -> Command:
    path = directory / "list"
    lines = (f"{hosts.scheme}://{hosts.source}/{name}:{tag}\n" for name, tag in names)
    path.write_text("".join(lines))
    return concil("mirror", str(path), f"{hosts.scheme}://{hosts.destination}/{target}", "--quiet")


def _regsync(
    directory: Path, hosts: Hosts, repositories: Mapping[str, Sequence[str]], target: str
) -> Command:
    path = directory / "regsync.yml"
    tls = "enabled" if hosts.is_tls else "disabled"
    document = {
        "version": 1,
        "creds": [{"registry": host, "tls": tls} for host in (hosts.source, hosts.destination)],
        "defaults": {"parallel": PARALLEL},
        "sync": [
            {
                "source": f"{hosts.source}/{name}",
                "target": f"{hosts.destination}/{target}/{name}",
                "type": "repository",
            }
            for name in repositories
        ],
    }
    path.write_text(json.dumps(document))  # JSON is YAML
    return "regsync", "once", "--verbosity", "warn", "--config", str(path)


def _crane(
    directory: Path, hosts: Hosts, names: Sequence[str], target: str, *flags: str
) -> Command:
    path = directory / f"crane{'-'.join(flags)}"
    lines = (f"{hosts.source}/{name} {hosts.destination}/{target}/{name}\n" for name in names)
    path.write_text("".join(lines))
    return "xargs", "-a", str(path), f"-P{PARALLEL}", "-n2", "crane", "copy", *flags


def _skopeo(
    directory: Path, hosts: Hosts, repositories: Mapping[str, Sequence[str]], target: str
) -> Command:
    path = directory / "skopeo.yml"
    verify = hosts.is_tls
    # JSON is YAML.
    path.write_text(json.dumps({hosts.source: {"tls-verify": verify, "images": repositories}}))
    flags = () if verify else ("--src-tls-verify=false", "--dest-tls-verify=false")
    sync = ("skopeo", "--insecure-policy", "sync", "--src", "yaml", "--dest", "docker")
    # It keeps only the last part of a name.
    return (*sync, *flags, str(path), f"{hosts.destination}/{target}/{FOLDER}")


def _tags(registry: MemoryRegistry) -> Iterator[Path]:
    return (registry.repositories() / TARGET).glob("**/_manifests/tags/*")
