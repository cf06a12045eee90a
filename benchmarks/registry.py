"""A real docker-registry whose storage is in memory, so that no disk sets the pace."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import ServerProcess
from tests.support.system import require_program

READY = r"listening on 127\.0\.0\.1:(\d+)"


class MemoryRegistry:
    """One registry process on a free port of loopback.

    It is started without authentication, cache and access log: what is compared
    are clients, and both sides of a comparison talk to the same process.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._storage = directory / "storage"
        config = directory / "config.yml"
        config.write_text(json.dumps(self._configuration()))  # JSON is YAML
        self._process = ServerProcess(
            [require_program("docker-registry"), "serve", str(config)],
            READY,
            directory / "registry.log",
            {"PATH": os.environ.get("PATH", ""), "HOME": str(directory)},
        )
        self.host = f"127.0.0.1:{self._process.start()[1]}"
        self.url = f"http://{self.host}"

    def empty(self) -> None:
        """Forget all content: nothing is present, nothing can be mounted."""
        shutil.rmtree(self._storage, ignore_errors=True)

    def cpu(self) -> float:
        """CPU seconds that the process has used, user and system.

        Source: proc(5), /proc/pid/stat, fields 14 and 15.
        """
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.kill()

    def blob(self, digest: str) -> Path:
        """The file that holds a blob's bytes."""
        hexadecimal = digest.partition(":")[2]
        blobs = self._storage / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"

    def repositories(self) -> Path:
        """The directory that holds the links of every repository."""
        return self._storage / "docker" / "registry" / "v2" / "repositories"

    def _configuration(self) -> dict[str, object]:
        return {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._storage)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "of the benchmarks"},
        }


@contextmanager
def two_registries(memory: Path) -> Iterator[tuple[Path, MemoryRegistry, MemoryRegistry]]:
    """Run a source and a destination; with a directory for files, all in ``memory``."""
    directory = Path(tempfile.mkdtemp(prefix="concil-bench-", dir=memory))
    running: list[MemoryRegistry] = []
    try:
        for name in ("source", "destination"):
            running.append(MemoryRegistry(directory / name))  # noqa: PERF401 - closed one by one
        yield directory, running[0], running[1]
    finally:
        for registry in running:
            registry.close()
        shutil.rmtree(directory, ignore_errors=True)
