"""What all cases share: registries with and without TLS and delay, and a directory in memory."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.programs import Programs
from benchmarks.servers.registry import MemoryRegistry, cpu_of
from tests.support.process import ServerProcess
from tests.support.tls import CertificateAuthority

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The two registries as the programs reach them."""

    source: str  # host and port
    destination: str
    scheme: str = "http"

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"


# Yields where to send the requests, and what ends the servers and tells how many have come.
Counting = Callable[[], AbstractContextManager[tuple[Hosts, Callable[[], int]]]]


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison, ready to run."""

    size: int  # bytes that are transferred; 0: none
    hosts: Hosts
    commands: Callable[[Hosts], Mapping[str, Command]]  # by program, those of concil first
    check: Callable[[str, str], None]  # after each run: the program and its standard output
    reset: Callable[[], None] = _nothing  # before each run
    close: Callable[[], None] = _nothing  # after the last one
    counting: Counting | None = None
    keeps_home: bool = False  # what concil has learned in an earlier run stays


class Bench:
    """Two registries whose content is in memory, served plainly, over TLS, and with a delay.

    Args:
        directory: In memory; for everything.
        programs: What can be compared.
        size: Bytes of one large transfer.
        images: Small images of a mirror.
    """

    def __init__(self, directory: Path, programs: Programs, *, size: int, images: int) -> None:
        self.directory = directory
        self.programs = programs
        self.size = size
        self.images = images
        self.home = directory / "home"
        self._authority = CertificateAuthority(directory / "ca")
        self._stack = ExitStack()
        self._tls: Hosts | None = None
        self._delayed: dict[str, Hosts] = {}
        self._servers: list[ServerProcess] = []
        self._registries: list[MemoryRegistry] = []
        self.source, self.destination = self._start_pair("plain")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop_servers()
        self._stack.close()

    def hosts(self, *, tls: bool = False, delay: float = 0) -> Hosts:
        """Return the registries with or without TLS, or behind a delay of so many ms a round trip.

        They are started when they are first needed.
        """
        plain = Hosts(self.source.host, self.destination.host)
        hosts = (self._tls or self._start_tls()) if tls else plain
        if not delay:
            return hosts
        name = f"{hosts.scheme} {delay:g}"
        if name not in self._delayed:
            source, destination = (
                self.start_server("delay", host, str(delay / 2))
                for host in (hosts.source, hosts.destination)
            )
            self._delayed[name] = Hosts(source, destination, hosts.scheme)
        return self._delayed[name]

    def counting(self, *, tls: bool = False) -> Counting:
        """Return what runs a second pair of registries on the same content, which count."""

        @contextmanager
        def count() -> Iterator[tuple[Hosts, Callable[[], int]]]:
            with ExitStack() as stack:
                pair = self._start_pair("counting", stack, tls=tls, access_log=True)
                hosts = Hosts(pair[0].host, pair[1].host, "https" if tls else "http")
                yield hosts, lambda: sum(registry.stop_and_count() for registry in pair)

        return count

    def start_server(self, module: str, *arguments: str) -> str:
        """Start a module of `benchmarks.servers`; return the address that it prints."""
        server = ServerProcess(
            [sys.executable, "-m", f"benchmarks.servers.{module}", *arguments],
            r"\w+ at (\S+)",
            self.directory / f"{module}.log",
            self.environment(),
        )
        address = server.start()[1]
        self._servers.append(server)
        return address

    def stop_servers(self) -> None:
        """End what `start_server` has started."""
        for server in self._servers:
            server.kill()
        self._servers.clear()
        self._delayed.clear()

    def served(self) -> float:
        """CPU seconds that registries and other servers have used since they started."""
        registries = sum(registry.cpu() for registry in self._registries)
        return registries + sum(cpu_of(server.pid) for server in self._servers)

    def environment(self) -> dict[str, str]:
        """A home without credentials, proxies and policies of the user's; trust in our own CA."""
        self.home.mkdir(exist_ok=True)
        trusted = str(self._authority.path)
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "SSL_CERT_FILE": trusted,
            "REQUESTS_CA_BUNDLE": trusted,
            "CURL_CA_BUNDLE": trusted,
        }

    def forget(self) -> None:
        """Remove what the programs have learned and cached."""
        shutil.rmtree(self.home, ignore_errors=True)

    def empty(self) -> None:
        """Remove the content of both registries."""
        self.source.empty()
        self.destination.empty()

    def _start_tls(self) -> Hosts:
        source, destination = self._start_pair("tls", tls=True)
        self._tls = Hosts(source.host, destination.host, "https")
        return self._tls

    def _start_pair(
        self,
        name: str,
        stack: ExitStack | None = None,
        *,
        tls: bool = False,
        access_log: bool = False,
    ) -> tuple[MemoryRegistry, MemoryRegistry]:
        """Start a registry for each side; both end with the stack, by default with the bench."""
        pair: list[MemoryRegistry] = []
        for side in ("source", "destination"):
            directory = self.directory / f"{name}-{side}"
            registry = MemoryRegistry(
                directory,
                storage=self.directory / side,
                certificate=self._authority.issue() if tls else None,
                access_log=access_log,
            )
            if stack is None:
                self._registries.append(registry)
            ending = stack or self._stack
            ending.callback(shutil.rmtree, directory)
            ending.callback(registry.close)
            pair.append(registry)
        return pair[0], pair[1]


def concil(*arguments: str) -> Command:
    """Our command line, as this Python runs it."""
    return sys.executable, "-m", "concil", *arguments
