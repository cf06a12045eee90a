"""A server program that is started, watched and killed by a test."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class ServerError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


class ServerProcess:
    """One child process whose output goes to a log until a line says that it is ready.

    Start it from a thread that outlives it: the kernel kills it together with
    the thread that started it, so nothing is left when a test run is killed.

    Args:
        argv: The command.
        ready: What to look for in its output; the match is what `start` returns.
        log: Where its output goes; a later start appends.
        environment: All of its environment.
    """

    def __init__(
        self, argv: Sequence[str], ready: str, log: Path, environment: Mapping[str, str]
    ) -> None:
        # A preexec_fn is not safe in a process with threads; setpriv is a program of its own.
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        self.argv = [*prefix, *argv]
        self.log = log
        self._ready = re.compile(ready)
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it is running."""
        return self._process.pid if self._process else None

    def start(self, timeout: float = 30) -> re.Match[str]:
        """Start the program and wait until it is ready.

        Raises:
            ServerError: it ended or said nothing in `timeout` seconds.
        """
        if self._process is not None:
            raise ServerError(f"{self.argv} is running already")
        settled = threading.Event()  # ready, or ended
        found: list[re.Match[str]] = []
        process = subprocess.Popen(
            self.argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._process = process
        self._reader = threading.Thread(target=self._copy, args=(process, found, settled))
        self._reader.start()
        settled.wait(timeout)
        if not found:
            self.kill()
            raise ServerError(f"{self.argv} did not start: {self.log.read_text()[-2000:]}")
        return found[0]

    def _copy(
        self, process: subprocess.Popen[str], found: list[re.Match[str]], settled: threading.Event
    ) -> None:
        assert process.stdout is not None
        with process.stdout, self.log.open("a", buffering=1) as log:
            for line in process.stdout:
                log.write(line)
                match = None if found else self._ready.search(line)
                if match:
                    found.append(match)
                    settled.set()
        settled.set()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._collect(timeout=None)

    def stop(self, grace: float = 10) -> None:
        """End it by SIGTERM, and by SIGKILL after `grace` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._collect(timeout=grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def _collect(self, timeout: float | None) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(timeout)
        self._reader.join()
        self._process = self._reader = None
