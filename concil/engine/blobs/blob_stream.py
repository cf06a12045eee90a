"""Writes a blob to a stream, in order, verified before its last block."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from concil.engine.store_factory import SourceStore
from concil.errors import Cancelled, ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Verifier
from concil.progress.events import Meter, State
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext

__all__ = ["SupportsWrite", "write_blob", "write_function"]

_POLL_INTERVAL = 0.02  # seconds until a stream is tried again that has accepted nothing


@runtime_checkable
class SupportsWrite(Protocol):
    """A binary file, pipe or other stream that is written in order."""

    def write(self, data: memoryview, /) -> object:
        """Write some bytes; a raw stream may return how many it has written."""
        ...


def write_blob(
    store: SourceStore,
    blob: Descriptor,
    write: Callable[[memoryview], object],
    context: TransferContext,
    meter: Meter,
) -> None:
    """Write a blob in order; the last block follows the verification.

    Args:
        write: called with each block, which it writes as a whole; see `write_function`.
    Raises:
        DigestMismatch, SizeMismatch: the bytes are not the blob's; some were written.
        ConnectionLost, StatusError: reading failed permanently.
        Exception: what ``write`` raised.
    """
    source = BlobSource.in_store(store, blob).throttled(context.bandwidth, "", context.abandon)

    def report_retry(error: ConcilError) -> None:
        meter.set_state(State.RETRYING, detail=str(error))

    reader = ResumingReader(source.open, blob.size, context, source.name, report_retry)
    verifier = Verifier(blob.digest.algorithm)
    # Two alternating buffers: a reader of the stream never gets the last block of a bad blob.
    buffer, spare = bytearray(context.config.block_size), bytearray(context.config.block_size)
    unwritten = memoryview(b"")
    try:
        while count := reader.readinto(memoryview(buffer)):
            write(unwritten)
            unwritten = memoryview(buffer)[:count]
            verifier.update(unwritten)
            meter.set_position(verifier.position)
            buffer, spare = spare, buffer
    finally:
        reader.close()
    verifier.verify(blob.digest, blob.size, source.name)
    write(unwritten)


def write_function(
    stream: SupportsWrite, cancel: threading.Event
) -> Callable[[memoryview], object]:
    """Return a function that writes a block to a stream as a whole.

    A raw stream may write less: it returns the number of bytes, and None if it would block.

    Args:
        cancel: ends a wait for a stream that accepts nothing.
    """
    is_raw = isinstance(stream, io.RawIOBase)  # None of any other stream means all

    def write_all(data: memoryview) -> None:
        while data:
            written = stream.write(data)
            if written == 0 or (written is None and is_raw):
                if cancel.wait(_POLL_INTERVAL):
                    raise Cancelled("cancelled while the stream accepted no bytes")
                continue
            data = data[written:] if isinstance(written, int) else data[len(data) :]

    return write_all
