"""StreamUpload: pushes a stream of unknown length by chunks, in one pass."""

from __future__ import annotations

import os
import select
import stat
from typing import Protocol, runtime_checkable

from concil.errors import Cancelled, ConcilError, ProtocolViolation, SessionLost, StoreError
from concil.oci.digest import Digest, Verifier
from concil.progress.events import Meter, State
from concil.retry import ProgressRetry
from concil.runtime.cancellation import shield_from_cancel
from concil.store.protocols import BlobWriter
from concil.transfer.blob.memory import memory_source
from concil.transfer.blob.request_body import ChunkBody
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.context import TransferContext

_POLL_INTERVAL = 0.2  # seconds between checks for cancellation while a pipe is empty


@runtime_checkable
class SupportsRead(Protocol):
    """A binary file, pipe or other stream that is read in order."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to ``size`` bytes, empty at the end; None: nothing is available yet."""
        ...


class StreamReader:
    """Reads a stream in blocks; a wait for a pipe ends when the run is cancelled."""

    def __init__(self, stream: SupportsRead, context: TransferContext, name: str) -> None:
        """Read ``stream`` from its current position.

        Args:
            name: of the stream in messages.
        """
        self.name = name
        self._stream = stream
        self._cancel = context.cancel
        self._pipe = _find_pipe(stream)
        self._surplus = b""

    def read_block(self, size: int) -> bytearray:
        """Return exactly ``size`` bytes, fewer only at the end of the stream.

        Raises:
            Cancelled: the run was cancelled.
            StoreError: the stream cannot be read. Other exceptions of its ``read`` pass.
        """
        block = bytearray(self._surplus[:size])
        self._surplus = self._surplus[size:]
        while len(block) < size:
            piece = self._read(size - len(block))
            if not piece:
                break
            # A stream may return more than it was asked for.
            self._surplus = bytes(piece[size - len(block) :])
            block += piece[: size - len(block)]
        return block

    def _read(self, size: int) -> bytes:
        while True:
            self._wait()
            try:
                piece = self._stream.read(size)
            except OSError as error:
                cause = error.strerror or type(error).__name__
                raise StoreError(
                    f"cannot read {self.name}: {cause}",
                    remedy="start the program again that writes it",
                ) from error
            if isinstance(piece, str):
                raise TypeError(f"{self.name} is a text stream; open it in binary mode")
            if piece is not None:
                return piece
            self._cancel.wait(_POLL_INTERVAL / 10)

    def _wait(self) -> None:
        """Wait until a pipe has bytes or is closed."""
        while True:
            if self._cancel.is_set():
                raise Cancelled(f"{self.name}: cancelled")
            if self._pipe is None or select.select([self._pipe], [], [], _POLL_INTERVAL)[0]:
                return


class StreamWriter(BlobWriter, Protocol):
    """A blob writer whose size is known only at the end."""

    def set_size(self, size: int, /) -> None:
        """Set the size in bytes, before `commit`."""
        ...


class StreamUpload:
    """Upload of one stream into a StreamWriter. One thread runs it.

    Memory holds one chunk: what the destination has acknowledged cannot be read again. So an
    upload that has to start over fails, and no later process can resume it.
    """

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        meter: Meter,
        context: TransferContext,
        host: str,
    ) -> None:
        """Prepare the upload; `run` sends the bytes.

        Args:
            host: of the destination, for its bandwidth limit.
        """
        self._reader = reader
        self._writer = writer
        self._meter = meter
        self._context = context
        self._host = host
        self._verifier = Verifier()
        self._max_sent_offset = 0
        self._retry = ProgressRetry(context.config.retry, context.cancel, self._report_retry)

    def run(self, first: bytearray, expected_digest: Digest | None = None) -> tuple[Digest, int]:
        """Send ``first`` and the rest of the stream, and commit; return digest and size.

        After any exception the upload session is deleted.

        Raises:
            DigestMismatch: the digest is not ``expected_digest``.
            SessionLost: the registry has lost bytes that cannot be read again.
            ConcilError: the stream or the destination failed permanently.
        """
        if expected_digest is not None:
            self._verifier = Verifier(expected_digest.algorithm)
        try:
            self._send_all([first])
            digest, size = self._verifier.digest(), self._verifier.position
            self._verifier.verify(expected_digest, None, self._reader.name)
            self._writer.set_size(size)
            self._commit(digest, size)
        except BaseException:  # whatever fails, no session stays behind
            with shield_from_cancel():
                self._writer.abort()
            raise
        return digest, size

    def _commit(self, digest: Digest, size: int) -> None:
        while True:
            try:
                self._writer.commit(digest)
            except ConcilError as error:
                self._recover(error, size)
            else:
                return

    def _send_all(self, pending: list[bytearray]) -> None:
        """Send the chunk in ``pending`` and the rest of the stream, hashed.

        The list is the only reference to a chunk: it is freed before the next one is read.
        """
        while pending[0]:
            base = self._verifier.position
            self._verifier.update(pending[0])
            self._send(memoryview(pending.pop()), base)
            pending.append(self._reader.read_block(self._writer.chunk_size))

    def _send(self, chunk: memoryview, base: int) -> None:
        """Send the bytes from ``base`` on until the destination has acknowledged all of them."""
        end = base + len(chunk)
        source = memory_source(chunk, self._reader.name, base=base)
        source = source.throttled(self._context.bandwidth, self._host, self._context.abandon)
        memory = ResumingReader(source.open, end, self._context, self._reader.name)
        with self._context.buffer_pool.borrow() as buffer:
            while self._writer.offset < end:
                if self._context.cancel.is_set():
                    raise Cancelled(f"{self._reader.name}: cancelled between two chunks")
                memory.seek(self._writer.offset)
                length = min(self._writer.chunk_size, end - self._writer.offset)
                body = ChunkBody(memory, length, buffer, self._record_block)
                try:
                    self._writer.append(body)
                except ConcilError as error:
                    self._recover(body.source_error or error, base)
        memory.close()

    def _record_block(self, block: memoryview, start: int) -> None:
        self._meter.set_position(start)
        self._max_sent_offset = max(self._max_sent_offset, start + len(block))

    def _recover(self, error: ConcilError, base: int) -> None:
        """Wait, then find out where to continue; raise if retrying cannot help.

        Args:
            base: position of the first byte that can still be sent.
        """
        name = f"{self._reader.name} to its destination"
        self._retry.wait_or_raise(error, self._writer.offset, name)
        offset = self._writer.resync()
        if offset > self._max_sent_offset:
            raise ProtocolViolation(
                f"{self._reader.name}: the destination reports {offset} bytes, but "
                f"{self._max_sent_offset} were sent"
            )
        if offset < base:
            raise SessionLost(
                f"{self._reader.name}: the registry has lost the upload after {base} bytes, which "
                f"cannot be read again: {error}",
                remedy="write the stream to a file and push that: it can be resumed",
            ) from error
        self._meter.set_state(State.MOVING, position=offset)

    def _report_retry(self, error: ConcilError) -> None:
        self._meter.set_state(State.RETRYING, detail=str(error))


def _find_pipe(stream: object) -> int | None:
    """Return the descriptor of an unbuffered pipe or socket; None for any other stream."""
    # The buffer of a buffered stream may hold bytes while its pipe is empty.
    if hasattr(stream, "peek") or not hasattr(stream, "fileno"):
        return None
    try:
        descriptor: int = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None
