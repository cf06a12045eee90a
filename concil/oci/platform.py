"""Platforms: operating system, architecture and variant."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Self

from concil.errors import InvalidManifest, safe_repr
from concil.runtime.dataclass import dataclass
from concil.runtime.suggestions import find_similar

__all__ = ["COMMON_PLATFORMS", "Platform", "find_similar_platform"]

COMMON_PLATFORMS = (
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/386",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "windows/amd64",
)
# Other names of architectures. Source: containerd/platforms, database.go.
_ARCHITECTURE_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that an image in an index runs on.

    Source: image-spec, image-index, "platform".
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``os/architecture[/variant]``, as on the command line; ``local``: this machine.

        Raises:
            InvalidManifest: it has fewer than two or more than three parts, or an empty one.
        """
        if text == "local":
            return cls.local()
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            similar_name = find_similar_platform(text, COMMON_PLATFORMS)
            question = f"; did you mean {similar_name}?" if similar_name else ""
            raise InvalidManifest(
                f"not a platform: {safe_repr(text)}",
                remedy="write OS/ARCHITECTURE[/VARIANT], for example linux/amd64 or linux/arm/v7"
                + question,
            )
        return cls(*parts)

    @classmethod
    def local(cls) -> Self:
        """Return the platform of containers on this machine: Linux, unless it is Windows."""
        import platform  # noqa: PLC0415  # compiles many regular expressions

        machine = platform.machine().lower()
        if machine.startswith("armv"):
            machine = f"arm/v{machine[4:5]}"
        architecture, _, variant = _ARCHITECTURE_ALIASES.get(machine, machine).partition("/")
        return cls("windows" if sys.platform == "win32" else "linux", architecture, variant)

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def matches(self, requested: Platform) -> bool:
        """Return whether it matches a requested platform; a variant counts only if requested."""
        if (self.os, self.architecture) != (requested.os, requested.architecture):
            return False
        return not requested.variant or self.variant == requested.variant


def find_similar_platform(text: str, platforms: Iterable[str]) -> str:
    """Return the platform that was probably meant; "" if none is similar."""
    os_name, slash, architecture = text.lower().partition("/")
    if not slash:
        os_name, architecture = "linux", os_name
    usual_name = _ARCHITECTURE_ALIASES.get(architecture, architecture)
    names = {name.partition("/")[2]: name for name in platforms if name.startswith(f"{os_name}/")}
    return names.get(find_similar(usual_name, names), "")


def _parse_platform(entry: object) -> Platform | None:
    if not isinstance(entry, dict):
        return None
    return Platform(*(str(entry.get(name) or "") for name in ("os", "architecture", "variant")))
