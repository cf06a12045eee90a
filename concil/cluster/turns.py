"""On the scheduler: which worker moves a large blob, and which repositories have it by now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

PLUGIN = "concil-turns"


@dataclass(slots=True)
class _Blob:
    owner: str | None = None  # the address of the worker whose turn it is
    free: asyncio.Event = field(default_factory=asyncio.Event)
    repositories: list[str] = field(default_factory=list)  # of its registry, that have it


class Turns(SchedulerPlugin):
    """Gives each large blob one worker at a time. All of it runs in the scheduler's loop.

    A worker that dies gives its turns back: the scheduler notices at once.
    """

    name = PLUGIN
    idempotent = True  # runs beside each other share one

    def __init__(self) -> None:
        """Begin with nothing taken."""
        self._blobs: dict[tuple[str, str], _Blob] = {}  # by run and blob

    async def start(self, scheduler: Any) -> None:  # noqa: ANN401 - distributed has no types
        """Answer workers from now on."""
        scheduler.handlers.update(
            concil_take=self.take, concil_give_back=self.give_back, concil_forget=self.forget
        )

    async def take(self, run: str, blob: str, worker: str, wait: float) -> dict[str, Any]:
        """Give a worker its turn, if it comes within ``wait`` seconds.

        Returns:
            Under "mine" whether it is its turn, under "repositories" where to mount from.
        """
        found = self._blobs.setdefault((run, blob), _Blob())
        try:
            async with asyncio.timeout(wait):
                while found.owner is not None:
                    await found.free.wait()
        except TimeoutError:
            return {"mine": False, "repositories": []}
        found.owner = worker
        found.free.clear()
        return {"mine": True, "repositories": list(found.repositories)}

    async def give_back(self, run: str, blob: str, worker: str, repository: str) -> None:
        """End a worker's turn.

        Args:
            repository: that has the blob now; "": none, or nobody mounts there.
        """
        found = self._blobs.get((run, blob))
        if found is None or found.owner != worker:
            return
        if repository and repository not in found.repositories:
            found.repositories.append(repository)
        self._free(found)

    async def forget(self, run: str) -> None:
        """Drop what a run that has ended left."""
        for key in [key for key in self._blobs if key[0] == run]:
            self._free(self._blobs.pop(key))

    def remove_worker(
        self,
        scheduler: Any,  # noqa: ANN401, ARG002 - distributed's
        worker: str,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Give back the turns of a worker that is gone."""
        for found in self._blobs.values():
            if found.owner == worker:
                self._free(found)

    def _free(self, found: _Blob) -> None:
        found.owner = None
        found.free.set()
