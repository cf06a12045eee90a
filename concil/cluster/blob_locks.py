"""Scheduler plugin that gives each large blob to one worker at a time."""

from __future__ import annotations

import asyncio
from dataclasses import field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from concil.runtime.dataclass import dataclass

PLUGIN_NAME = "concil-turns"


@dataclass(slots=True)
class _BlobLock:
    owner: str | None = None  # address of the worker that holds the lock
    released: asyncio.Event = field(default_factory=asyncio.Event)
    repositories: list[str] = field(default_factory=list)  # that have the blob, in its registry


class BlobLocks(SchedulerPlugin):
    """Locks large blobs for one worker at a time. Runs in the scheduler's event loop only.

    The locks of a worker that dies are released: the scheduler notices it at once.
    """

    name = PLUGIN_NAME
    idempotent = True  # concurrent runs share one plugin

    def __init__(self) -> None:
        """Create it without locks."""
        self._locks: dict[tuple[str, str], _BlobLock] = {}  # by run and blob

    async def start(self, scheduler: Any) -> None:  # noqa: ANN401 - distributed has no types
        """Register the handlers that workers call."""
        scheduler.handlers.update(
            concil_take=self.acquire, concil_give_back=self.release, concil_forget=self.drop_run
        )

    async def acquire(
        self,
        run: str,
        blob: str,
        worker: str,
        timeout: float,  # noqa: ASYNC109 - the scheduler calls it by name
    ) -> dict[str, Any]:
        """Acquire the lock of a blob for a worker, within ``timeout`` seconds.

        Returns:
            "mine": whether the lock was acquired; "repositories": those that have the blob,
            to mount it from.
        """
        lock = self._locks.setdefault((run, blob), _BlobLock())
        try:
            async with asyncio.timeout(timeout):
                while lock.owner is not None:
                    await lock.released.wait()
        except TimeoutError:
            return {"mine": False, "repositories": []}
        lock.owner = worker
        lock.released.clear()
        return {"mine": True, "repositories": list(lock.repositories)}

    async def release(self, run: str, blob: str, worker: str, repository: str) -> None:
        """Release the lock of a worker.

        Args:
            repository: has the blob now; "" if none has, or mounts are not possible.
        """
        lock = self._locks.get((run, blob))
        if lock is None or lock.owner != worker:
            return
        if repository and repository not in lock.repositories:
            lock.repositories.append(repository)
        self._release_lock(lock)

    async def drop_run(self, run: str) -> None:
        """Remove the locks of a run that has ended."""
        for key in [key for key in self._locks if key[0] == run]:
            self._release_lock(self._locks.pop(key))

    def remove_worker(
        self,
        scheduler: Any,  # noqa: ANN401, ARG002 - distributed's
        worker: str,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Release the locks of a worker that is gone."""
        for lock in self._locks.values():
            if lock.owner == worker:
                self._release_lock(lock)

    def _release_lock(self, lock: _BlobLock) -> None:
        lock.owner = None
        lock.released.set()
