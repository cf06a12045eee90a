"""Runs a mirror on a cluster: hands out images, collects outcomes, passes progress on."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self

import distributed
from distributed.utils import sync

from concil.cluster.turns import PLUGIN, Turns
from concil.cluster.worker import Crew, Order, Settings, copy_image, topic_of
from concil.errors import Cancelled, ConcilError, ConnectionLost, Unreachable, UsageError, shown
from concil.progress import Event, ProgressSink, State, emit
from concil.reference import LAYOUT, LayoutAddress, is_loopback, parse_address
from concil.transfer.mirror import MirrorItem, MirrorReport, Outcome

logger = logging.getLogger(__name__)

_CONNECT = 10.0  # seconds for the scheduler to answer
_ALONE = 60.0  # seconds without any worker until the run is given up
_TICK = 0.5  # seconds between two looks at who is there, and whether to stop
_AHEAD = 2  # images handed out for each thread of the workers


class Cluster:
    """A Dask cluster that mirrors. Use it in a ``with``; `cancel` may come from any thread.

    Each worker has an engine of its own with the same settings; its journal, and what
    `concil login` left there, are the worker's.
    """

    def __init__(
        self,
        address: str,
        settings: Settings | None = None,
        *,
        progress: ProgressSink | None = None,
        patience: float = _ALONE,
    ) -> None:
        """Connect to a scheduler.

        Args:
            address: ``tcp://host:port`` or ``tls://host:port``.
            patience: seconds to wait for a worker where none is left.
        Raises:
            Unreachable: nobody answers there.
            UsageError: the address is none, or a password would go over plain TCP.
        """
        self._settings = settings or Settings()
        self._progress = progress
        self._patience = patience
        self._cancel = threading.Event()
        self._address = address = _written_out(address)
        sides = self._settings.sides
        if sides.source.credentials or sides.destination.credentials:
            self._check_secrecy()
        try:
            # Dask's client tries for ten seconds where nobody listens.
            host, _, port = address.partition("://")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
            client: Any = distributed.Client
            self._client = client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, OverflowError) as error:
            raise Unreachable(
                f"no Dask scheduler answers at {shown(address)}",
                remedy="start one with `dask scheduler`, and workers with `dask worker`",
            ) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        self.close()

    def cancel(self) -> None:
        """Stop soon: `mirror` raises Cancelled when chunks in flight have ended."""
        self._cancel.set()

    def close(self) -> None:
        """Disconnect; the cluster stays."""
        with contextlib.suppress(OSError):
            self._client.close()

    def mirror(
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep: bool = True,
        fail_fast: bool = False,
    ) -> MirrorReport:
        """Copy many images, each on a worker of the cluster. As `Engine.mirror`.

        Raises:
            Cancelled: somebody cancelled; run it again to go on.
            ConnectionLost: the scheduler, or the last worker, is gone.
        """
        report = MirrorReport()
        with self._run() as run:
            for outcome in run.outcomes(iter(items), fail_fast=fail_fast):
                report.add(outcome, keep=keep)
                if on_image is not None:
                    on_image(outcome)
        return report

    @contextlib.contextmanager
    def _run(self) -> Iterator[_Run]:
        """Prepare the cluster for a run, and leave nothing of it behind."""
        name = f"concil-{secrets.token_hex(6)}"
        client = self._client
        try:
            client.register_plugin(Turns(), name=PLUGIN)
            client.register_plugin(Crew(name, self._settings), name=name)
            client.subscribe_topic(topic_of(name), self._told)
        except ConcilError:
            raise
        except Exception as error:  # whatever a worker without concil may raise
            raise ConnectionLost(
                f"the cluster at {shown(self._address)} cannot run concil: {shown(str(error))}",
                remedy="install concil, the same version, for the scheduler and every worker",
            ) from error
        gone = False
        try:
            yield _Run(name, client, self._cancel, self._patience, self._checked)
        except ConnectionLost:
            gone = True  # nobody is left who could tidy up
            raise
        finally:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                client.unsubscribe_topic(topic_of(name))
                if not gone:
                    client.unregister_worker_plugin(name)
                    forget = client.scheduler.concil_forget
                    sync(client.loop, forget, run=name, callback_timeout=_CONNECT)

    def _told(self, event: tuple[float, list[list[Any]]]) -> None:
        """Pass on what a worker told."""
        for kind, subject, target, state, *more in event[1]:
            emit(self._progress, Event(kind, subject, target, State(state), *more))

    def _checked(self, item: MirrorItem) -> MirrorItem:
        target = parse_address(item.destination)
        if isinstance(target, LayoutAddress) and target.kind != LAYOUT:
            raise UsageError(
                f"{target}: each worker would write an archive of its own",
                remedy="mirror to a registry or an oci:DIR that all workers share",
            )
        for text in (item.source, item.destination):
            address = parse_address(text)
            if not isinstance(address, LayoutAddress) and address.username:
                self._check_secrecy()
        return item

    def _check_secrecy(self) -> None:
        """Raise UsageError where passwords would travel in the clear."""
        scheme, _, rest = self._address.partition("://")
        if scheme != "tls" and not is_loopback(rest):
            raise UsageError(
                f"passwords would go to {shown(self._address)} in the clear",
                remedy="use a tls:// scheduler, or `concil login` on the workers",
            )


def _written_out(address: str) -> str:
    """The address with its scheme. Checked here: Dask's client hangs over some that are none."""
    found = re.fullmatch(r"(?:(tcp|tls)://)?([^\s/:@]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", address)
    if found is None:
        raise UsageError(
            f"not the address of a scheduler: {shown(address)}", remedy="write tcp://host:port"
        )
    return f"{found[1] or 'tcp'}://{found[2]}:{found[3]}"


class _Run:
    """One mirror under way. One thread takes its outcomes."""

    def __init__(
        self,
        name: str,
        client: Any,  # noqa: ANN401 - distributed has no types
        cancel: threading.Event,
        patience: float,
        checked: Callable[[MirrorItem], MirrorItem],
    ) -> None:
        self._name = name
        self._client = client
        self._cancel = cancel
        self._patience = patience
        self._checked = checked
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures
        self._under_way: dict[Any, MirrorItem] = {}
        self._number = 0
        self._threads = 1  # of all workers
        self._seen = time.monotonic()  # when there was a worker last

    def outcomes(self, waiting: Iterator[MirrorItem], *, fail_fast: bool) -> Iterator[Outcome]:
        """Yield what becomes of each image, as it ends."""
        self._look_around()
        exhausted = False
        try:
            while True:
                while not exhausted and len(self._under_way) < _AHEAD * max(1, self._threads):
                    exhausted = not self._submit(waiting)
                if not self._under_way:
                    return
                outcome = self._next()
                if outcome is not None:
                    exhausted = exhausted or (fail_fast and outcome.error is not None)
                    yield outcome
        finally:
            self._client.cancel(list(self._under_way))

    def _submit(self, waiting: Iterator[MirrorItem]) -> bool:
        item = next(waiting, None)
        if item is None:
            return False
        self._number += 1
        order = Order(self._name, self._number, self._checked(item))
        key = f"{self._name}-{self._number}"
        future = self._client.submit(copy_image, order, key=key, pure=False)
        self._under_way[future] = item
        future.add_done_callback(self._ended.put)
        return True

    def _next(self) -> Outcome | None:
        """Wait for a while; None if no image ended meanwhile."""
        if self._cancel.is_set():
            self._stop()
        try:
            future = self._ended.get(timeout=_TICK)
        except queue.Empty:
            self._look_around()
            return None
        item = self._under_way.pop(future)
        return self._outcome(future, item)

    def _outcome(self, future: Any, item: MirrorItem) -> Outcome:  # noqa: ANN401
        try:
            return self._told(future, item)
        except (CancelledError, OSError) as error:
            raise _scheduler_gone() from error

    def _told(self, future: Any, item: MirrorItem) -> Outcome:  # noqa: ANN401
        """What came back. Raises an error of Dask's if the scheduler is gone meanwhile."""
        if future.status == "finished":
            found: Outcome = future.result()
            # What came back knows its item, but as a copy.
            return Outcome(item, found.result, found.error)
        if future.status != "error":
            raise _scheduler_gone()
        error = future.exception()
        if isinstance(error, distributed.scheduler.KilledWorker):
            return Outcome(
                item,
                error=ConnectionLost(
                    f"{parse_address(item.source)}: its worker died, several times",
                    remedy="look at the workers' memory and logs",
                ),
            )
        raise error

    def _look_around(self) -> None:
        """Count the threads of the workers.

        Raises:
            ConnectionLost: there has been no worker for too long.
        """
        try:
            self._threads = sum(self._client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise ConnectionLost("the scheduler does not answer any more") from error
        now = time.monotonic()
        if self._threads:
            self._seen = now
        elif now - self._seen > self._patience:
            raise ConnectionLost(
                f"the cluster has had no worker for {self._patience:g} seconds",
                remedy="start workers with `dask worker`, and run it again to go on",
            )

    def _stop(self) -> None:
        """Let chunks in flight end, and give up the rest."""
        self._client.unregister_worker_plugin(self._name)
        raise Cancelled("cancelled; run it again to go on")


def _scheduler_gone() -> ConnectionLost:
    return ConnectionLost(
        "the scheduler is gone, or has dropped the mirror",
        remedy="look after it, and run the mirror again: it goes on",
    )
