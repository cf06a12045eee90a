"""The command lines that copy one image between registries and image layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Command, concil
from benchmarks.content import TAG


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is: in a repository, "host:port/name", or in an image layout."""

    where: str | Path
    scheme: str = "http"

    @property
    def is_layout(self) -> bool:
        return isinstance(self.where, Path)

    @property
    def name(self) -> str:
        """The place with its tag."""
        return f"{self.where}:{TAG}"

    @property
    def host(self) -> str:
        return str(self.where).partition("/")[0]


def _concil(source: Place, destination: Place) -> Command:
    def address(place: Place) -> str:
        return f"oci:{place.name}" if place.is_layout else f"{place.scheme}://{place.name}"

    return concil("copy", "--quiet", address(source), address(destination))


def _crane(source: Place, destination: Place) -> Command:
    if destination.is_layout:
        return "crane", "pull", "--format=oci", source.name, str(destination.where)
    if source.is_layout:
        return "crane", "push", str(source.where), destination.name
    return "crane", "copy", source.name, destination.name


def _regctl(source: Place, destination: Place) -> Command:
    def address(place: Place) -> str:
        return f"ocidir://{place.name}" if place.is_layout else place.name

    hosts = (
        f"--host=reg={place.host},tls={'disabled' if place.scheme == 'http' else 'enabled'}"
        for place in (source, destination)
        if not place.is_layout
    )
    return "regctl", *hosts, "image", "copy", address(source), address(destination)


def _oras(source: Place, destination: Place) -> Command:
    flags: list[str] = []
    for side, place in (("from", source), ("to", destination)):
        if place.is_layout:
            flags.append(f"--{side}-oci-layout")
        elif place.scheme == "http":
            flags.append(f"--{side}-plain-http")
    return "oras", "cp", "--no-tty", *flags, source.name, destination.name


def _skopeo(source: Place, destination: Place) -> Command:
    def address(place: Place) -> str:
        return f"oci:{place.name}" if place.is_layout else f"docker://{place.name}"

    flags = (
        f"--{side}-tls-verify=false"
        for side, place in (("src", source), ("dest", destination))
        if place.scheme == "http"
    )
    copy = ("skopeo", "--insecure-policy", "copy", "--preserve-digests", "--quiet")
    return (*copy, *flags, address(source), address(destination))


_BUILDERS: dict[str, Callable[[Place, Place], Command]] = {
    "concil": _concil,
    "crane": _crane,
    "regctl": _regctl,
    "oras": _oras,
    "skopeo": _skopeo,
}


def copy_commands(source: Place, destination: Place) -> dict[str, Command]:
    """Return the command line of each program for one copy."""
    return {name: build(source, destination) for name, build in _BUILDERS.items()}
