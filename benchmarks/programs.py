"""The programs that are compared: which are on this machine, and in which version."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers.registry import registry_program
from tests.support.system import find_program

CONCIL = "concil"
# What does the same tasks; the best of them is what concil is compared with.
PEERS = ("crane", "regctl", "regsync", "oras", "skopeo")
# What sends or hashes the same bytes and does nothing else: no client needs less time.
FLOORS = ("curl", "openssl")
_VERSION_COMMANDS = {
    "crane": ("version",),
    "regctl": ("version", "--format", "{{.VCSTag}} {{.VCSRef}}"),
    "regsync": ("version", "--format", "{{.VCSTag}} {{.VCSRef}}"),
    "oras": ("version",),
    "openssl": ("version",),
}


@dataclass(frozen=True, slots=True)
class Programs:
    """What was found on PATH, and what was not."""

    versions: dict[str, str]  # by name; "" where a program does not say
    missing: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.versions

    def lines(self) -> list[str]:
        """One line for each program, and one for those that are left out."""
        found = [f"{name} {version}".strip() for name, version in self.versions.items()]
        return found + ([f"not on PATH, left out: {', '.join(self.missing)}"] * bool(self.missing))


def find_programs() -> Programs:
    """Look for every program on PATH."""
    versions = {CONCIL: f"(Python {sys.version.split()[0]})"}
    missing: list[str] = []
    for name in (*PEERS, *FLOORS):
        path = find_program(name)
        if path is None:
            missing.append(name)
        else:
            versions[name] = _version(path, _VERSION_COMMANDS.get(name, ("--version",)))
    registry = registry_program()
    versions[f"registry: {Path(registry).name}"] = _version(registry, ("--version",))
    return Programs(versions, tuple(missing))


def _version(path: str, arguments: tuple[str, ...]) -> str:
    """The first thing that looks like a version in what a program says of itself."""
    done = subprocess.run(
        [path, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.search(r"v?\d+\.\d+[\w.+-]*", done.stdout)
    return found[0] if found else ""
