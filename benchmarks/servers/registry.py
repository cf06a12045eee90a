"""A real registry whose storage is in memory, so that no disk sets the pace."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import ServerProcess
from tests.support.system import require_program
from tests.support.tls import Certificate

READY = r"listening on 127\.0\.0\.1:(\d+)"
PROGRAM_VARIABLE = "CONCIL_BENCH_REGISTRY"
_LOGGED_REQUEST = re.compile(r'"[A-Z]+ /v2/\S* HTTP/')


def registry_program() -> str:
    """Return the program of both sides: the one of CONCIL_BENCH_REGISTRY, or docker-registry."""
    return os.environ.get(PROGRAM_VARIABLE) or require_program("docker-registry")


class MemoryRegistry:
    """One registry process on a free port of loopback, without authentication and cache.

    Args:
        directory: For its configuration and log; created.
        storage: Content that another process may serve as well; default: its own.
        certificate: Speak TLS with it.
        access_log: Write a line for each request, for `stop_and_count`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        storage: Path | None = None,
        certificate: Certificate | None = None,
        access_log: bool = False,
    ) -> None:
        directory.mkdir()
        self.storage = storage or directory / "storage"
        config = directory / "config.yml"
        document = _configuration(self.storage, certificate, access_log=access_log)
        config.write_text(json.dumps(document))  # JSON is YAML
        self._log = directory / "registry.log"
        self._process = ServerProcess(
            [registry_program(), "serve", str(config)],
            READY,
            self._log,
            {
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(directory),
                "OTEL_TRACES_EXPORTER": "none",  # distribution 3 sends traces by default
            },
        )
        self.host = f"127.0.0.1:{self._process.start()[1]}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"

    def empty(self) -> None:
        """Forget all content: nothing is present, nothing can be mounted."""
        shutil.rmtree(self.storage, ignore_errors=True)

    def cpu(self) -> float:
        """CPU seconds that the process has used, user and system."""
        return cpu_of(self._process.pid)

    def stop_and_count(self) -> int:
        """End the process; return how many requests its access log has."""
        self.close()
        return len(_LOGGED_REQUEST.findall(self._log.read_text()))

    def close(self) -> None:
        self._process.kill()

    def blob(self, digest: str) -> Path:
        """The file that holds a blob's bytes."""
        hexadecimal = digest.partition(":")[2]
        blobs = self.storage / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / hexadecimal[:2] / hexadecimal / "data"

    def repositories(self) -> Path:
        """The directory that holds the links of every repository."""
        return self.storage / "docker" / "registry" / "v2" / "repositories"


def cpu_of(process: int | None) -> float:
    """CPU seconds that a running process has used, user and system.

    Source: proc(5), /proc/pid/stat, fields 14 and 15.
    """
    stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _configuration(
    storage: Path, certificate: Certificate | None, *, access_log: bool
) -> dict[str, object]:
    http: dict[str, object] = {"addr": "127.0.0.1:0", "secret": "of the benchmarks"}
    if certificate:
        files = {"certificate": str(certificate.certificate), "key": str(certificate.key)}
        http["tls"] = files
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": not access_log}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": http,
    }


@contextmanager
def memory_directory(memory: Path) -> Iterator[Path]:
    """Create a directory in ``memory`` that is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="concil-bench-", dir=memory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def two_registries(memory: Path) -> Iterator[tuple[Path, MemoryRegistry, MemoryRegistry]]:
    """Run a source and a destination; with a directory for files, all in ``memory``."""
    running: list[MemoryRegistry] = []
    with memory_directory(memory) as directory:
        try:
            for name in ("source", "destination"):
                running.append(MemoryRegistry(directory / name))  # noqa: PERF401 - closed one by one
            yield directory, running[0], running[1]
        finally:
            for registry in running:
                registry.close()
