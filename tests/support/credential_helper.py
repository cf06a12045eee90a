"""A credential helper on PATH that keeps its logins in a file, or misbehaves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

_STORING_SCRIPT = """
import json, pathlib, sys
home = pathlib.Path({home!r})
content = sys.stdin.read()
with (home / "log").open("a") as log:
    log.write(json.dumps([sys.argv[1:], content]) + chr(10))
kept = json.loads((home / "kept").read_text())
if sys.argv[1] == "store":
    entry = json.loads(content)
    kept[entry["ServerURL"]] = [entry["Username"], entry["Secret"]]
elif content not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
elif sys.argv[1] == "erase":
    del kept[content]
else:
    user, secret = kept[content]
    print(json.dumps(dict(ServerURL=content, Username=user, Secret=secret)))
(home / "kept").write_text(json.dumps(kept))
"""


class FakeCredentialHelper:
    """A program ``docker-credential-<name>``, first on PATH.

    Args:
        directory: an existing directory of its own.
        script: what it does instead of keeping logins; ``{home}`` is the directory.
    """

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        name: str = "lab",
        script: str = _STORING_SCRIPT,
    ) -> None:
        self.name = name
        self.directory = directory
        self.program = directory / f"docker-credential-{name}"
        text = script.replace("{home!r}", repr(str(directory)))
        self.program.write_text(f"#!{sys.executable} -IS\n{text}")
        self.program.chmod(0o755)
        self.stored = {}
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ.get('PATH', '')}")

    @property
    def stored(self) -> dict[str, list[str]]:
        """User and secret by server."""
        found: dict[str, list[str]] = json.loads((self.directory / "kept").read_text())
        return found

    @stored.setter
    def stored(self, kept: dict[str, list[str]]) -> None:
        (self.directory / "kept").write_text(json.dumps(kept))

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        """Arguments and standard input of each run."""
        log = self.directory / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(arguments, content) for arguments, content in map(json.loads, lines)]
