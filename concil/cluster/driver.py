"""Runs a mirror on a cluster: submits images, collects outcomes and progress."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Protocol, Self

import distributed
from distributed.utils import sync

from concil.cluster.blob_locks import PLUGIN_NAME, BlobLocks
from concil.cluster.worker import CopyTask, EnginePlugin, EngineSettings, copy_image, progress_topic
from concil.errors import Cancelled, ConcilError, ConnectionLost, Unreachable, UsageError, safe_repr
from concil.oci.address import LAYOUT, LayoutAddress, parse_address
from concil.oci.reference import is_loopback
from concil.progress.batcher import emit_batch
from concil.progress.events import ProgressSink
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 10.0  # seconds for the scheduler to answer
_WORKER_TIMEOUT = 60.0  # seconds without any worker until the run fails
_POLL_INTERVAL = 0.5  # seconds between checks for cancellation and for workers
_COUNT_INTERVAL = 2.0  # seconds between counts of the workers while images end
_TASKS_PER_THREAD = 2  # submitted images per worker thread


class DaskCluster:
    """Mirrors images on a Dask cluster. A context manager; any thread may call `cancel`.

    Each worker has its own engine with the same settings. It uses the worker's journal and
    the logins that `concil login` stored there.
    """

    def __init__(
        self,
        address: str,
        settings: EngineSettings | None = None,
        *,
        progress: ProgressSink | None = None,
        worker_timeout: float = _WORKER_TIMEOUT,
    ) -> None:
        """Connect to a scheduler.

        Args:
            address: ``tcp://host:port`` or ``tls://host:port``.
            worker_timeout: seconds to wait for a worker if there is none.
        Raises:
            Unreachable: no scheduler answers at the address.
            UsageError: the address is invalid, or a password would be sent over plain TCP.
        """
        self._settings = settings or EngineSettings()
        self._progress = progress
        self._worker_timeout = worker_timeout
        self._cancel = threading.Event()
        self._address = address = _normalize_address(address)
        endpoints = self._settings.endpoints
        if endpoints.source.credentials or endpoints.destination.credentials:
            self._check_encryption()
        try:
            # Dask's client retries for ten seconds if nothing listens at the address.
            host, _, port = address.partition("://")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
            client: Any = distributed.Client
            self._client = client(address, timeout=_CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, OverflowError) as error:
            raise Unreachable(
                f"no Dask scheduler responds at {safe_repr(address)}",
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
        """Disconnect from the scheduler."""
        self.close()

    def cancel(self) -> None:
        """Stop soon: `mirror` raises Cancelled once chunks in flight have ended."""
        self._cancel.set()

    def close(self) -> None:
        """Disconnect from the scheduler; the cluster keeps running."""
        with contextlib.suppress(OSError):
            self._client.close()

    def mirror(
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep_outcomes: bool = True,
        fail_fast: bool = False,
    ) -> MirrorReport:
        """Copy many images, each on a worker of the cluster. As `Engine.mirror`.

        Raises:
            Cancelled: `cancel` was called; another run resumes the transfers.
            ConnectionLost: the scheduler or the last worker is gone.
        """
        report = MirrorReport()
        with self._start_run() as run:
            for outcome in run.outcomes(iter(items), fail_fast=fail_fast):
                report.add(outcome, keep_outcome=keep_outcomes)
                if on_image is not None:
                    on_image(outcome)
        return report

    @contextlib.contextmanager
    def _start_run(self) -> Iterator[MirrorRun]:
        """Prepare the cluster for a run, and clean up after it."""
        name = f"concil-{secrets.token_hex(6)}"
        client = self._client
        try:
            client.register_plugin(BlobLocks(), name=PLUGIN_NAME)
            client.register_plugin(EnginePlugin(name, self._settings), name=name)
            client.subscribe_topic(progress_topic(name), self._emit_progress)
        except ConcilError:
            raise
        except Exception as error:  # any error of a worker without concil
            raise ConnectionLost(
                f"the cluster at {safe_repr(self._address)} cannot run concil: "
                f"{safe_repr(str(error))}",
                remedy="install the same version of concil for the scheduler and every worker",
            ) from error
        is_lost = False
        try:
            yield MirrorRun(name, client, self._cancel, self._worker_timeout, self._check_item)
        except ConnectionLost:
            is_lost = True  # nothing is left to clean up
            raise
        finally:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                client.unsubscribe_topic(progress_topic(name))
                if not is_lost:
                    client.unregister_worker_plugin(name)
                    drop_run = client.scheduler.concil_forget
                    sync(client.loop, drop_run, run=name, callback_timeout=_CONNECT_TIMEOUT)

    def _emit_progress(self, event: tuple[float, list[list[Any]]]) -> None:
        """Emit the progress events of a worker."""
        emit_batch(self._progress, event[1])

    def _check_item(self, item: MirrorItem) -> MirrorItem:
        destinations = (item.destination, *item.more_destinations)
        for target in map(parse_address, destinations):
            if isinstance(target, LayoutAddress) and target.scheme != LAYOUT:
                raise UsageError(
                    f"{target}: each worker would write a separate archive",
                    remedy="mirror to a registry or an oci:DIR that all workers share",
                )
        for address in map(parse_address, (item.source, *destinations)):
            if not isinstance(address, LayoutAddress) and address.username:
                self._check_encryption()
        return item

    def _check_encryption(self) -> None:
        """Raise UsageError if passwords would be sent unencrypted."""
        scheme, _, rest = self._address.partition("://")
        if scheme != "tls" and not is_loopback(rest):
            raise UsageError(
                f"passwords would be sent to {safe_repr(self._address)} unencrypted",
                remedy="use a tls:// scheduler, or `concil login` on the workers",
            )


def _normalize_address(address: str) -> str:
    """Return the address with its scheme. Dask's client hangs on some invalid ones."""
    match = re.fullmatch(r"(?:(tcp|tls)://)?([^\s/:@]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", address)
    if match is None:
        raise UsageError(
            f"not an address of a scheduler: {safe_repr(address)}", remedy="write tcp://host:port"
        )
    return f"{match[1] or 'tcp'}://{match[2]}:{match[3]}"


class DoneFutures(Protocol):
    """A queue of futures that have ended."""

    def put(self, future: Any, /) -> object:  # noqa: ANN401 - distributed has no types
        """Add a future. Any thread."""
        ...

    def get(self, *, timeout: float) -> Any:  # noqa: ANN401
        """Return the next future. Raises queue.Empty after ``timeout`` seconds."""
        ...


class MirrorRun:
    """A running mirror. One thread iterates over its outcomes."""

    def __init__(
        self,
        name: str,
        client: Any,  # noqa: ANN401 - distributed has no types
        cancel: threading.Event,
        worker_timeout: float,
        check_item: Callable[[MirrorItem], MirrorItem],
    ) -> None:
        self._name = name
        self._client = client
        self._cancel = cancel
        self._worker_timeout = worker_timeout
        self._check_item = check_item
        # Futures in the order in which they end; another queue for a simulation.
        self.done_futures: DoneFutures = queue.SimpleQueue()
        self._pending: dict[Any, MirrorItem] = {}
        self._submitted_count = 0
        self._thread_count = 1  # of all workers
        self._last_count_time = 0.0  # monotonic seconds
        self._last_worker_time = time.monotonic()  # when a worker was last seen

    def outcomes(self, items: Iterator[MirrorItem], *, fail_fast: bool) -> Iterator[Outcome]:
        """Yield the outcome of each image as it completes."""
        self._count_threads()
        exhausted = False
        try:
            while True:
                while not exhausted and len(self._pending) < _TASKS_PER_THREAD * max(
                    1, self._thread_count
                ):
                    exhausted = not self._submit(items)
                if not self._pending:
                    return
                for outcome in self._wait_for_outcomes():
                    exhausted = exhausted or (fail_fast and outcome.error is not None)
                    yield outcome
        finally:
            self._client.cancel(list(self._pending))

    def _submit(self, items: Iterator[MirrorItem]) -> bool:
        item = next(items, None)
        if item is None:
            return False
        self._submitted_count += 1
        task = CopyTask(self._name, self._submitted_count, self._check_item(item))
        key = f"{self._name}-{self._submitted_count}"
        future = self._client.submit(copy_image, task, key=key, pure=False)
        self._pending[future] = item
        future.add_done_callback(self.done_futures.put)
        return True

    def _wait_for_outcomes(self) -> Sequence[Outcome]:
        """Wait for an image to end; () if none has ended within the poll interval.

        Returns:
            An outcome for each of its destinations.
        """
        if self._cancel.is_set():
            self._raise_cancelled()
        if time.monotonic() - self._last_count_time >= _COUNT_INTERVAL:
            self._count_threads()  # a worker that has joined needs more images
        try:
            future = self.done_futures.get(timeout=_POLL_INTERVAL)
        except queue.Empty:
            self._count_threads()
            return ()
        item = self._pending.pop(future)
        return self._get_outcomes(future, item)

    def _get_outcomes(self, future: Any, item: MirrorItem) -> Sequence[Outcome]:  # noqa: ANN401
        try:
            return self._read_future(future, item)
        except (CancelledError, OSError) as error:
            raise _scheduler_lost() from error

    def _read_future(self, future: Any, item: MirrorItem) -> Sequence[Outcome]:  # noqa: ANN401
        """Return the outcomes of a future. Raises Dask's errors if the scheduler is gone."""
        if future.status == "finished":
            outcomes: tuple[Outcome, ...] = future.result()
            if item.more_destinations:
                return outcomes
            # Its item is a copy: callers expect the submitted object.
            return [Outcome(item, outcome.result, outcome.error) for outcome in outcomes]
        if future.status != "error":
            raise _scheduler_lost()
        error = future.exception()
        if isinstance(error, distributed.scheduler.KilledWorker):
            died = ConnectionLost(
                f"{parse_address(item.source)}: its worker died several times",
                remedy="check the memory and the logs of the workers",
            )
            return [Outcome(each, error=died) for each in item.split()]
        raise error

    def _count_threads(self) -> None:
        """Count the threads of the workers.

        Raises:
            ConnectionLost: there has been no worker for too long.
        """
        try:
            self._thread_count = sum(self._client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise ConnectionLost("the scheduler no longer responds") from error
        self._last_count_time = now = time.monotonic()
        if self._thread_count:
            self._last_worker_time = now
        elif now - self._last_worker_time > self._worker_timeout:
            raise ConnectionLost(
                f"the cluster has had no worker for {self._worker_timeout:g} seconds",
                remedy="start workers with `dask worker`, then run the mirror again to resume",
            )

    def _raise_cancelled(self) -> None:
        """Close the engines, so that chunks in flight end, and raise Cancelled."""
        self._client.unregister_worker_plugin(self._name)
        raise Cancelled("cancelled; run the mirror again to resume")


def _scheduler_lost() -> ConnectionLost:
    return ConnectionLost(
        "the scheduler has stopped, or has dropped the mirror",
        remedy="check the scheduler, then run the mirror again to resume",
    )
