"""The programs outside Python that the tests need, and how they get onto the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# The Debian package of each program. nginx-light begins no service that is not wanted.
PROGRAMS = {
    "bash": "bash",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "docker-registry": "docker-registry",
    "fish": "fish",
    "nginx": "nginx-light",
    "skopeo": "skopeo",
    "tmux": "tmux",
    "umoci": "umoci",
    "zsh": "zsh",
}
# Where Debian has nginx: not on the PATH of ordinary users.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
POLICY = Path("/usr/sbin/policy-rc.d")


class MissingProgramError(RuntimeError):
    """A program that a test needs is not installed; the message says what to type."""


def missing_programs() -> list[str]:
    """Return the programs that are not there."""
    return [program for program in PROGRAMS if find_program(program) is None]


def find_program(program: str) -> str | None:
    """Return the path of a program, None if it is not there."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}{os.pathsep}{SYSTEM_PATH}")


def install_command(programs: Sequence[str]) -> str:
    """Return one line that names what is missing and the command that installs it."""
    names = " ".join(PROGRAMS.get(program, program) for program in programs)
    if shutil.which("apt-get") is None:
        return f"missing on PATH: {names}; install the packages of that name"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"missing: {names}; type: {sudo}apt-get update && {sudo}apt-get install -y {names}"


def require_program(program: str) -> str:
    """Return the path of a program.

    Raises:
        MissingProgramError: it is not there.
    """
    path = find_program(program)
    if path is None:
        raise MissingProgramError(install_command([program]))
    return path


@contextmanager
def _prevent_service_start() -> Iterator[None]:
    """Keep the packages from starting their services: docker-registry would take port 5000."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install(programs: Sequence[str]) -> None:
    """Install the Debian packages of programs, quietly.

    Raises:
        MissingProgramError: apt could not install them.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*apt, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    with _prevent_service_start():
        # One broken third-party source fails the update; the install decides.
        run("update")
        done = run("install", "-y", "--no-install-recommends", *map(PROGRAMS.__getitem__, programs))
    if done.returncode != 0 or missing_programs():
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise MissingProgramError(f"{install_command(programs)} (apt-get said: {lines[-1]})")


def main() -> int:
    """Make sure that every program is there; return an exit code."""
    absent = missing_programs()
    if not absent:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(install_command(absent), file=sys.stderr)
        return 1
    print(f"installing with apt-get: {' '.join(absent)}", flush=True)
    try:
        install(absent)
    except MissingProgramError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
