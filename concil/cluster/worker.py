"""On a worker: an engine for one run, which copies the images that the scheduler hands out."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import astuple, dataclass, field, replace
from itertools import chain
from typing import Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import sync

from concil import __version__
from concil.cancellation import CancelScope, current_scope, working_for
from concil.config import MIB, TransferConfig
from concil.engine import Engine, Sides
from concil.errors import Cancelled, ConcilError, UsageError
from concil.limits import start_thread
from concil.progress import Event, State
from concil.transfer.blob import BlobMove, Landed
from concil.transfer.mirror import MirrorItem, Outcome

logger = logging.getLogger(__name__)

LARGE = 8 * MIB  # bytes; a smaller blob may be sent by two workers that meet it at once
GRACE = 10.0  # seconds for chunks in flight when a run is ended
_SILENCE = 30.0  # seconds for the scheduler to answer
_WAIT = 2.0  # seconds until a worker that waits for its turn looks whether it is to stop
_PACE = 0.2  # seconds between two messages of progress


@dataclass(frozen=True, slots=True, repr=False)
class Order:
    """One image to copy. What it shows of itself may get into a worker's log."""

    run: str
    number: int
    item: MirrorItem

    def __repr__(self) -> str:
        """Without addresses: those may hold passwords."""
        return f"image {self.number} of {self.run}"


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What every engine of a run is made with."""

    config: TransferConfig = field(default_factory=TransferConfig)
    sides: Sides = field(default_factory=Sides)
    version: str = __version__


def topic_of(run: str) -> str:
    """Where the progress of a run is told."""
    return f"concil-progress-{run}"


def copy_image(order: Order) -> Outcome:
    """Copy an image with the engine that this worker has for the run: a task of the cluster."""
    crews: dict[str, Any] = get_worker().plugins
    found: Outcome = crews[order.run].copy(order.item)
    return found


class Crew(WorkerPlugin):
    """The engine of one run on one worker; the tasks of the worker share it."""

    def __init__(self, run: str, settings: Settings) -> None:
        """Prepare; the engine is made when the first image comes."""
        self.name = run
        self._settings = settings

    def setup(self, worker: Any) -> None:  # noqa: ANN401 - distributed has no types
        """Begin on a worker; it is a copy of what the driver made."""
        if self._settings.version != __version__:
            raise UsageError(
                f"the worker {worker.address} has concil {__version__}, "
                f"and the mirror was begun by {self._settings.version}",
                remedy="install the same version everywhere",
            )
        self._worker = worker
        self._lock = threading.Lock()  # guards the two below
        self._engine: Engine | None = None
        self._ended = False
        self._told = _Told(
            worker.address, lambda events: worker.log_event(topic_of(self.name), events)
        )

    async def teardown(self, worker: Any) -> None:  # noqa: ANN401, ARG002 - distributed's
        """End on a worker: chunks in flight may end, the rest stays to be gone on with."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """Stop what is under way and close the engine."""
        with self._lock:
            self._ended = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.cancel()
            engine.close(GRACE)

    def copy(self, item: MirrorItem) -> Outcome:
        """Copy one image; a failure of it is an outcome."""
        try:
            engine = self._begun()
            return Outcome(item, engine.copy_item(item))
        except ConcilError as error:
            return Outcome(item, error=error)
        finally:
            self._told.flush()

    def _begun(self) -> Engine:
        with self._lock:
            if self._ended:
                raise Cancelled("cancelled; run it again to go on")
            if self._engine is None:
                settings = self._settings
                self._engine = Engine(settings.config, sides=settings.sides, progress=self._told)
                self._engine.begin_blobs_by(self._begin)
            return self._engine

    def _begin(self, move: BlobMove, siblings: Iterable[str]) -> Future[Landed]:
        """Begin a small blob at once, and a large one when no other worker moves it."""
        brought = isinstance(siblings, Sequence) and bool(siblings)  # by another image here
        if brought or move.blob.size < LARGE:
            return move.start(siblings)
        landed: Future[Landed] = Future()
        scope = current_scope()  # the thread below begins the blob for the same call
        waiting = threading.Thread(
            target=self._begin_in_turn,
            args=(move, siblings, landed, scope),
            name="concil-turn",
            daemon=True,
        )
        # A turn only saves bytes.
        if not start_thread(waiting, "the blob is sent without waiting for other workers"):
            return move.start(siblings)
        return landed

    def _begin_in_turn(
        self,
        move: BlobMove,
        siblings: Iterable[str],
        landed: Future[Landed],
        scope: CancelScope | None,
    ) -> None:
        with working_for(scope):
            self._begin_when_free(move, siblings, landed)

    def _begin_when_free(
        self, move: BlobMove, siblings: Iterable[str], landed: Future[Landed]
    ) -> None:
        blob = f"{move.realm} {move.blob.digest}"
        try:
            outcome = move.start(chain(self._wait_for_turn(blob), siblings))
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the blob
            landed.set_exception(error)
            return

        def complete(done: Future[Landed]) -> None:
            error = done.exception()
            self._ask("give_back", blob=blob, repository="" if error else done.result().repository)
            if error is None:
                landed.set_result(done.result())
            else:
                landed.set_exception(error)

        outcome.add_done_callback(complete)

    def _wait_for_turn(self, blob: str) -> list[str]:
        """Wait until no other worker moves the blob; return repositories that have it."""
        while not self._ended:
            answer = self._ask("take", blob=blob, wait=_WAIT)
            if answer is None or answer["mine"]:
                return [] if answer is None else list(answer["repositories"])
        raise Cancelled("cancelled; run it again to go on")

    def _ask(self, what: str, **words: Any) -> Any:  # noqa: ANN401 - what `Turns` answers
        """Ask the scheduler; None if it does not answer: then turns are of no use any more."""
        worker = self._worker
        try:
            call = getattr(worker.scheduler, f"concil_{what}")
            words |= {"run": self.name, "worker": worker.address}
            return sync(worker.loop, call, callback_timeout=_SILENCE, **words)
        except OSError as error:  # distributed's own errors of connections are of this kind
            logger.warning("the scheduler does not answer: %s", error)
            return None


class _Told:
    """A progress sink that sends events on in bundles, the last position of each subject."""

    def __init__(self, name: str, send: Callable[[list[list[Any]]], object]) -> None:
        self._name = name
        self._send = send
        self._lock = threading.Lock()  # guards the two below, and the order of what is sent
        self._waiting: dict[tuple[str, str, str, bool], Event] = {}
        self._last = 0.0  # monotonic seconds

    def __call__(self, event: Event, /) -> None:
        moving = event.state is State.MOVING
        event = replace(event, worker=f"{self._name} {threading.current_thread().name}")
        key = (event.kind, event.subject, event.target, moving)
        with self._lock:
            self._waiting.pop(key, None)
            self._waiting[key] = event
            if time.monotonic() - self._last < _PACE:
                return
            self._flush()

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        events, self._waiting = list(self._waiting.values()), {}
        self._last = time.monotonic()
        if not events:
            return
        try:
            self._send(
                [[*astuple(event)[:3], event.state.value, *astuple(event)[4:]] for event in events]
            )
        except Exception:  # whatever distributed raises, no transfer ends by what is told of it
            logger.exception("the progress of a run cannot be told")
