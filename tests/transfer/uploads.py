"""One blob on its way from a watched store into chunks at another host."""

from __future__ import annotations

from concil.fs.resume_state import WriterState
from concil.oci.blob_reader import BlobReader
from concil.oci.manifest import Body, Digest
from concil.transfer.blob.push import BlobUpload
from concil.transfer.context import TransferContext
from tests.support.memory_store import MemoryHost
from tests.support.store_contract import Blob
from tests.support.store_faults import LosesChunk
from tests.transfer.transfer_setup import (
    ALWAYS,
    BLOCK,
    CONFIG,
    Sink,
    WatchedStore,
    meter_of,
    source_of,
)

CHUNK = 10 * BLOCK
BLOB = Blob.random(7 * CHUNK + 123)
SIZE = len(BLOB.content)
DIGEST = BLOB.descriptor.digest


class UploadHarness:
    """One blob from one memory to another."""

    def __init__(self, blob: Blob = BLOB, chunk: int = CHUNK) -> None:
        self.blob = blob
        self.source = WatchedStore(MemoryHost("from"))
        self.source.blobs[blob.descriptor.digest] = blob.content
        self.host = MemoryHost("to", chunk_size=chunk)
        self.target = self.host.repository("a")
        self.sink = Sink()

    def push(self, run: TransferContext | None = None, digest: Digest | None = None) -> Digest:
        """Move it; nothing is left open."""
        size = len(self.blob.content)
        writer = self.target.begin_blob(size)
        meter = meter_of(self.blob.descriptor, self.sink)
        source = source_of(self.open, size, digest or self.blob.descriptor.digest, "the blob")
        try:
            return BlobUpload(source, writer, meter, run or TransferContext(CONFIG)).run()
        finally:
            assert self.source.left_open == 0

    def open(self, start: int, /) -> BlobReader:
        return self.source.open_blob(self.blob.descriptor, start)

    def assert_committed(self) -> None:
        """The blob is at its destination, byte for byte."""
        assert self.target.blobs == {self.blob.descriptor.digest: self.blob.content}
        assert self.host.sessions == {}

    def assert_not_committed(self) -> None:
        """Nothing is visible at the destination."""
        assert self.target.blobs == {}


class LosesEvery(LosesChunk):
    """Of every chunk only so many bytes arrive."""

    def __init__(self, count: int) -> None:
        super().__init__(0, times=ALWAYS)
        self.count = count

    def kept(self, offset: int, length: int) -> int | None:
        return self.count if self.count < length else None


class Monolith:
    """A writer that commits with the bytes, unverified; as a registry by one PUT."""

    def __init__(self, size: int) -> None:
        self.offset = 0
        self.chunk_size = max(1, size)
        self.committed: bytes | None = None
        self.aborted = False
        self._size = size

    def append(self, body: Body, /) -> None:
        content = bytearray()
        while piece := body.read(BLOCK):
            content += piece
        assert len(content) == self._size
        self.offset = self._size
        self.committed = bytes(content)

    def resync(self) -> int:
        return self.offset

    def state(self) -> WriterState | None:
        return None

    def commit(self, digest: Digest, /) -> None:
        assert self.committed is not None

    def close(self) -> None:
        """Keep."""

    def abort(self) -> None:
        self.aborted = True
        self.offset = 0
