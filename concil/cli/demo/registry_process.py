"""Runs `concil serve` as a child process for the demo."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.errors import ConcilError, StoreError

_START_TIMEOUT = 20.0  # seconds
_STOP_TIMEOUT = 5.0  # seconds from SIGTERM to SIGKILL


class RegistryProcess:
    """A child process that serves a directory. Not thread-safe, except `kill`."""

    def __init__(self, directory: Path) -> None:
        """Start the process and wait until it serves.

        Raises:
            StoreError: it did not start; the message has the last line of its log.
        """
        self._log_path = directory.with_suffix(".log")
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, "-m", "concil", "serve", str(directory), "--addr", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the demo only, which ends its registries last.
                process_group=0,
            )
        try:
            self.host = self._read_ready_line().rpartition("http://")[2]
        except BaseException:  # no process survives, not even after Ctrl-C
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.host.rpartition(":")
        return host, int(port)

    def close(self) -> None:
        """Terminate the process, kill it after a timeout, and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """Kill the process."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def _read_ready_line(self) -> str:
        """Return the first line of output, ``serving DIR at URL``."""
        output = self._process.stdout
        if output is None or not select.select([output], [], [], _START_TIMEOUT)[0]:
            raise ConcilError("the registry of the demo printed nothing", remedy="try again")
        line = output.readline().decode("utf-8", "replace").strip()
        if " at http://" in line:
            return line
        self._process.wait(_STOP_TIMEOUT)
        last_line = self._log_path.read_text(errors="replace").strip().splitlines()[-1:]
        raise StoreError(
            f"the registry of the demo did not start: {' '.join(last_line) or 'no output'}"
        )
