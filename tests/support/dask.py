"""A Dask scheduler and its workers, each a process of its own, as people start them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import ServerProcess

_SCHEDULER = r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)"
_WORKER = r"Registered to:"


class DaskProcesses:
    """One scheduler and some workers on loopback; all end with the `with` block.

    Args:
        directory: Where logs and the workers' files go.
        workers: How many processes.
        threads: Of each worker: images that it copies at once.
    """

    def __init__(self, directory: Path, workers: int, threads: int = 2) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._threads = threads
        self._scheduler = self._process("scheduler", _SCHEDULER, "scheduler", "--port", "0")
        self.workers: list[ServerProcess] = []
        try:
            self.address = self._scheduler.start(60)[1]
            for _ in range(workers):
                self.add_worker()
        except BaseException:
            self.close()
            raise

    def add_worker(self, threads: int | None = None) -> ServerProcess:
        """Start one more worker, with a home and so a journal of its own."""
        name = f"worker-{len(self.workers)}"
        count = str(threads or self._threads)
        words = ("--no-nanny", "--nthreads", count, "--memory-limit", "0")
        place = ("--local-directory", str(self._directory))
        worker = self._process(name, _WORKER, "worker", self.address, *words, *place)
        self.workers.append(worker)
        worker.start(60)
        return worker

    def _process(self, name: str, ready: str, *words: str) -> ServerProcess:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": str(self._directory / name),
            "DASK_DISTRIBUTED__DASHBOARD__ENABLED": "false",
        }
        argv = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
        return ServerProcess(argv, ready, self._directory / f"{name}.log", environment)

    def kill_scheduler(self) -> None:
        """Kill the scheduler, and the workers, which would wait for it."""
        self.close()
        self.workers.clear()

    def restart_scheduler(self, workers: int) -> None:
        """Start a scheduler at the same address, and new workers."""
        port = self.address.rpartition(":")[2]
        self._scheduler = self._process("again", _SCHEDULER, "scheduler", "--port", port)
        self._scheduler.start(60)
        for _ in range(workers):
            self.add_worker()

    def log(self) -> str:
        """What all of them said so far."""
        return "".join(path.read_text() for path in sorted(self._directory.glob("*.log")))

    def close(self) -> None:
        """Kill them all."""
        for process in (*self.workers, self._scheduler):
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
