"""A mirror that runs by a schedule, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.runner import PATIENCE, Program

# Failed images are retried at once, and the file is looked at often.
DRIVER = """
import sys
from concil.cli.commands import mirror_service
from concil.service import retry_queue
retry_queue.FIRST_DELAY = 0.05
mirror_service._POLL_INTERVAL = 0.05
from concil.__main__ import main
sys.exit(main())
"""


class Service:
    """A mirror that runs in a process of its own; its lines are read as they come."""

    def __init__(self, program: Program, *words: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", DRIVER, "mirror", *map(str, words)],
            cwd=program.directory,
            env=program.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._killer = threading.Timer(PATIENCE, self._process.kill)
        self._killer.start()
        self.lines: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read lines until one has the text; return it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}: {''.join(self.lines)}")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; return the exit code."""
        self.send(number)
        rest, _ = self._process.communicate(timeout=PATIENCE)
        self.lines += rest.splitlines(keepends=True)
        return self._process.returncode

    def close(self) -> None:
        self._killer.cancel()
        self._process.kill()
        self._process.communicate()


@contextmanager
def service(program: Program, *words: str | Path) -> Iterator[Service]:
    running = Service(program, *words)
    try:
        yield running
    finally:
        running.close()
