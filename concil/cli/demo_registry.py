"""A registry of the demo: `concil serve` in a process of its own."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.errors import ConcilError, StoreError

_START = 20.0  # seconds
_END = 5.0  # seconds from asking to killing


class Served:
    """A directory that a child process serves. One thread, but `kill` is for any."""

    def __init__(self, directory: Path) -> None:
        """Start it and wait until it serves.

        Raises:
            StoreError: it did not start; the message has its last words.
        """
        self._log = directory.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, "-m", "concil", "serve", str(directory), "--addr", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the demo, which ends its registries last.
                process_group=0,
            )
        try:
            self.host = self._said().rpartition("http://")[2]
        except BaseException:  # also on Ctrl-C no process is left
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
        """End it."""
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.host.rpartition(":")
        return host, int(port)

    def close(self) -> None:
        """Ask it to end, kill it if it does not, and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def _said(self) -> str:
        """Its first line, ``serving DIR at URL``."""
        output = self._process.stdout
        if output is None or not select.select([output], [], [], _START)[0]:
            raise ConcilError("the demo's registry said nothing", remedy="try again")
        line = output.readline().decode("utf-8", "replace").strip()
        if " at http://" in line:
            return line
        self._process.wait(_END)
        words = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        raise StoreError(f"the demo's registry did not start: {' '.join(words) or 'no words'}")
