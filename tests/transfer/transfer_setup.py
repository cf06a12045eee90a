"""What tests of transfers share: settings without waits, pools that end, blobs that are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from concil.config import RetryPolicy, TransferConfig
from concil.errors import ConnectionLost, NotFound
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.progress.events import Event, Meter, State
from concil.transfer.blob.resuming_reader import Opener
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from concil.transfer.worker_pool import WorkerPool
from tests.support.memory_store import MemoryHost, MemoryReader, MemoryStore
from tests.support.store_contract import Blob
from tests.support.store_faults import Fault

WAIT = 30  # seconds until a test that hangs is failed
BLOCK = 1_000  # bytes of one read
RANGE = 10_000  # bytes of one range
ALWAYS = 1_000_000_000  # times that a fault happens
CONFIG = TransferConfig(
    block_size=BLOCK,
    range_size=RANGE,
    helpers=3,
    retry=RetryPolicy(backoff_base=0, max_lost_sessions=3),
)


@contextmanager
def create_pool(workers: int, config: TransferConfig = CONFIG) -> Iterator[WorkerPool]:
    """Run a pool that ends with the block, whatever happens in it."""
    pool = WorkerPool(TransferContext(replace(config, workers=workers)))
    try:
        yield pool
    finally:
        pool.cancel.set()
        assert pool.close(WAIT), "a worker has not ended"


class ClosableGate:
    """A job that says when it runs, and runs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.thread = ""

    def __call__(self) -> None:
        self.thread = threading.current_thread().name
        self.entered.set()
        assert self.opened.wait(WAIT), "nobody let the job go"


class Sink:
    """Keeps every event. Any thread may call it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_event: Callable[[], object] = lambda: None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.on_event()

    def states(self, subject: str = "") -> list[State]:
        """The states of a subject from its start on, the positions in between left out."""
        return [
            event.state
            for event in self.events
            if event.state not in (State.MOVING, State.WAITING) and subject in event.subject
        ]


def meter_of(blob: Descriptor, sink: Sink | None = None) -> Meter:
    """Return a meter for a blob."""
    return Meter(sink, kind="blob", subject=str(blob.digest), target="there", total=blob.size)


def source_of(
    opener: Opener,
    size: int,
    digest: Digest | None,
    name: str = "x",
    check_unchanged: Callable[[], None] | None = None,
) -> BlobSource:
    """Return a source whose blob is only opened without an end."""

    def open_range(start: int, stop: int | None = None, /) -> BlobReader:
        assert stop is None
        return opener(start)

    return BlobSource(open_range, size, digest, name, check_unchanged=check_unchanged)


def store_blob(store: MemoryStore, blob: Blob) -> Descriptor:
    """Put a blob into a store without a request."""
    store.blobs[blob.descriptor.digest] = blob.content
    return blob.descriptor


def run_concurrently(*calls: Callable[[], object]) -> None:
    """Run each call in a thread of its own, and raise what the first failing one raised."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive(), "a thread has not ended"
    if errors:
        raise errors[0]


class BreaksEvery(Fault):
    """Every body breaks off at the next multiple of ``every`` bytes."""

    def __init__(self, every: int, times: int = ALWAYS) -> None:
        super().__init__(times)
        self.every = every

    def read_until(self, start: int) -> int | None:
        return (start // self.every + 1) * self.every


class BytesReader:
    """A blob that is read from memory, from a place of its own choice."""

    def __init__(self, content: bytes, start: int = 0, *, breaks: int | None = None) -> None:
        self.start = self._position = start
        self._content = content
        self._breaks = breaks
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        assert not self.closed, "read after close"
        if self._position == self._breaks:
            raise ConnectionLost(f"broke off at byte {self._position}")
        stop = self._position + len(buffer)
        if self._breaks is not None:
            stop = min(stop, self._breaks)
        piece = self._content[self._position : stop]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self.closed = True


class WatchedStore(MemoryStore):
    """A repository in memory that knows its readers, and tells before each read."""

    def __init__(self, host: MemoryHost | None = None, repository: str = "watched") -> None:
        super().__init__(host, repository)
        self.readers: list[MemoryReader] = []
        self.on_read: Callable[[int], object] = lambda position: None

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> MemoryReader:
        self.registry.asked("GET blob")
        if blob.digest not in self.blobs:
            raise NotFound(f"{self.name} has no blob {blob.digest}")
        reader = _WatchedReader(self, self.blobs[blob.digest], start, stop)
        self.readers.append(reader)
        return reader

    @property
    def left_open(self) -> int:
        """How many readers nobody closed."""
        return sum(not reader.closed for reader in self.readers)


class _WatchedReader(MemoryReader):
    def __init__(self, store: WatchedStore, content: bytes, start: int, stop: int | None) -> None:
        super().__init__(store.registry, content, start, stop)
        self._store = store

    def readinto(self, buffer: memoryview, /) -> int:
        self._store.on_read(self._position)
        return super().readinto(buffer)
