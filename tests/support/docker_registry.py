"""The real docker-registry, started on a free port of loopback."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import bcrypt

from tests.support.process import ServerProcess
from tests.support.system import require_program
from tests.support.tls import Certificate

MEMORY = Path("/dev/shm")
READY = r"listening on 127\.0\.0\.1:(\d+)"
# Upload sessions are signed with it: a fixed one lets them outlive a restart.
SECRET = "the lab's own"


class DockerRegistry:
    """One registry process and its storage; both end with the `with` block.

    Args:
        directory: Where configuration, log and storage go.
        delete: Whether blobs and manifests may be deleted.
        users: Passwords by name; with any, every request needs Basic authentication.
        auth: Its configuration of `auth`, where it is not that.
        certificate: Serves https with it.
        foreign_urls: Regular expressions of the URLs that foreign layers may have.
        in_memory: Keeps the storage in memory, for measurements.
        has_cache: Answers HEAD from a cache in memory, as the configuration of its package does.
        has_access_log: Writes a line for each request to its log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        delete: bool = True,
        users: Mapping[str, str] | None = None,
        auth: Mapping[str, object] | None = None,
        certificate: Certificate | None = None,
        foreign_urls: Sequence[str] = (),
        in_memory: bool = False,
        has_cache: bool = False,
        has_access_log: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.log = directory / "registry.log"
        self.storage = (
            Path(tempfile.mkdtemp(prefix="concil-", dir=MEMORY))
            if in_memory
            else directory / "storage"
        )
        self._config = directory / "config.yml"
        self._delete = delete
        self._has_cache = has_cache
        self._has_access_log = has_access_log
        self._users = dict(users or {})
        self._auth = auth
        self._certificate = certificate
        self._foreign_urls = list(foreign_urls)
        self._port = 0
        self._process = ServerProcess(
            [require_program("docker-registry"), "serve", str(self._config)],
            READY,
            self.log,
            # Without this a REGISTRY_* variable of the caller would override the file.
            {"PATH": os.environ.get("PATH", ""), "HOME": str(directory)},
        )

    @property
    def port(self) -> int:
        """The port, the same after a restart."""
        return self._port

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"{'https' if self._certificate else 'http'}://{self.host}"

    def start(self) -> None:
        """Start it and wait until it listens; a first start takes any free port."""
        # JSON is YAML.
        self._config.write_text(json.dumps(self._configuration(), indent=1))
        self._port = int(self._process.start()[1])

    def kill(self) -> None:
        """End it by SIGKILL; the storage stays."""
        self._process.kill()

    def restart(self) -> None:
        """Start it again on the same port and storage, killing it first if it runs."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it and delete its storage; the log stays."""
        self._process.kill()
        shutil.rmtree(self.storage, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _configuration(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": f"127.0.0.1:{self._port}", "secret": SECRET}
        if self._certificate:
            http["tls"] = {
                "certificate": str(self._certificate.certificate),
                "key": str(self._certificate.key),
            }
        storage: dict[str, object] = {
            "filesystem": {"rootdirectory": str(self.storage)},
            "delete": {"enabled": self._delete},
            "maintenance": {"uploadpurging": {"enabled": False}},
        }
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": not self._has_access_log}},
            "storage": storage,
            "http": http,
        }
        if self._has_cache:
            storage["cache"] = {"blobdescriptor": "inmemory"}
        if self._foreign_urls:
            configuration["validation"] = {"manifests": {"urls": {"allow": self._foreign_urls}}}
        if self._auth is not None:
            configuration["auth"] = self._auth
        elif self._users:
            configuration["auth"] = {
                "htpasswd": {"realm": "lab", "path": str(self._write_passwords())}
            }
        return configuration

    def _write_passwords(self) -> Path:
        path = self.directory / "htpasswd"
        lines = [
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()}\n"
            for name, password in self._users.items()
        ]
        path.write_text("".join(lines))
        return path


class SharedDockerRegistries:
    """Registries for many tests, one for each number of workers.

    Args:
        start: Starts one.
    """

    def __init__(self, start: Callable[[], DockerRegistry]) -> None:
        self._start = start
        self._running: dict[int | None, DockerRegistry] = {}

    def get(self, workers: int | None = None) -> DockerRegistry:
        """Return the registry for a number of workers; it starts when it is first needed."""
        if workers not in self._running:
            self._running[workers] = self._start()
        return self._running[workers]
