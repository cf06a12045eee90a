"""The real skopeo, as a second opinion on what concil wrote."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support.system import require_program


class SkopeoError(RuntimeError):
    """skopeo ended with an error; the message is what it said."""


class Skopeo:
    """Runs skopeo with a home directory of its own and without checking certificates.

    Args:
        home: An existing directory for everything it would keep in the user's.
        timeout: Seconds a command may take.
    """

    def __init__(self, home: Path, timeout: float = 100) -> None:
        self._program = require_program("skopeo")
        self._timeout = timeout
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "TMPDIR": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home / "run"),
        }

    def run(self, *arguments: str) -> bytes:
        """Run one command and return its standard output.

        Raises:
            SkopeoError: its exit code is not 0.
        """
        done = subprocess.run(
            # The policy file of the machine, or the want of one, must not decide.
            [self._program, "--insecure-policy", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=self._timeout,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise SkopeoError(f"skopeo {' '.join(arguments)}: {said}")
        return done.stdout

    def copy(self, source: str, destination: str, *options: str) -> None:
        """Copy an image with all its platforms, keeping digests.

        Args:
            source: With its transport: `docker://host/repo:tag`, `oci:path:tag`.
            destination: As `source`.
            options: More options of `skopeo copy`.
        """
        self.run(
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            *options,
            source,
            destination,
        )

    def inspect_raw(self, image: str, *options: str) -> bytes:
        """Return a manifest's bytes."""
        # skopeo knows the option for every transport, and ignores it where it means nothing.
        return self.run("inspect", "--raw", "--tls-verify=false", *options, image)

    def list_tags(self, repository: str, *options: str) -> list[str]:
        """Return the tags of `docker://host/repo`, in skopeo's order."""
        answer = json.loads(self.run("list-tags", "--tls-verify=false", *options, repository))
        return [str(tag) for tag in answer["Tags"]]
