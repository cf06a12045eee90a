"""Writes a blob into a docker-archive, decompressing layers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import IO, Protocol

from concil.config import MIB
from concil.errors import SizeMismatch
from concil.fs.local_file import disk_error
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Body, Digest, Verifier
from concil.runtime.dataclass import dataclass
from concil.store.archive.decompress import (
    MAGIC_SIZE,
    BoundedDecompressor,
    Compression,
    detect_compression,
)
from concil.store.archive.tar_blob_writer import CHUNK_SIZE
from concil.store.archive.tar_builder import Region, TarBuilder


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob in a docker-archive."""

    name: str  # of the member
    region: Region
    diff_id: Digest  # digest of the uncompressed content


class _Sink(Protocol):
    """Receives the bytes of one blob in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        ...

    def finish(self) -> StoredBlob:
        """Complete the member."""
        ...

    def close(self) -> None:
        """Release the resources."""
        ...


class DockerBlobWriter:
    """A BlobWriter into a TarBuilder; a write cannot be resumed by another process.

    The size of a compressed layer is known only at its end, so it is first decompressed into
    an unnamed temporary file beside the archive and then copied.
    """

    chunk_size = CHUNK_SIZE

    def __init__(
        self,
        builder: TarBuilder,
        size: int,
        digest: Digest,
        on_complete: Callable[[StoredBlob], None],
    ) -> None:
        """Begin a blob.

        Args:
            digest: the expected digest.
            on_complete: called with the complete blob; decides whether it becomes a member.
        """
        self.offset = 0
        self._builder = builder
        self._size = size
        self._digest = digest
        self._on_complete = on_complete
        self._verifier = Verifier(digest.algorithm)
        self._head = bytearray()  # first bytes, from which the compression is detected
        self._sink: _Sink | None = None

    def append(self, body: Body, /) -> None:
        """Write the next bytes; if reading the body fails, ``offset`` counts the bytes written.

        Raises:
            ContentError: the layer is damaged, or its decompressed size exceeds the limit.
            StoreError: this Python cannot decompress the layer.
        """
        while piece := body.read():
            if self.offset + len(piece) > self._size:
                raise SizeMismatch(f"blob {self._digest} has more than {self._size} bytes")
            self._verifier.update(piece)
            self.offset += len(piece)
            if self._sink is not None:
                self._sink.write(piece)
                continue
            self._head += piece
            if len(self._head) >= MAGIC_SIZE:
                self._create_sink()

    def resync(self) -> int:
        """Return the number of bytes written."""
        return self.offset

    def state(self) -> WriterState | None:
        """Return None: the write cannot be resumed."""
        return None

    def commit(self, _digest: Digest, /) -> None:
        """Verify the blob and make it a member."""
        self._verifier.verify(self._digest, self._size, f"blob of {self._builder.final_path}")
        sink = self._sink or self._create_sink()
        self._on_complete(sink.finish())
        self.close()

    def close(self) -> None:
        """Release the resources; an incomplete blob is left out of the archive."""
        if self._sink is not None:
            self._sink.close()

    def abort(self) -> None:
        """Discard the bytes that were written; the blob may be written again."""
        self.close()
        self._sink = None
        self._head.clear()
        self.offset = 0
        self._verifier = Verifier(self._digest.algorithm)

    def _create_sink(self) -> _Sink:
        head = bytes(self._head)
        compression = detect_compression(head)
        if compression is not None:
            self._sink = _DecompressingSink(self._builder, self._digest, self._size, compression)
        else:
            self._sink = _UncompressedSink(self._builder, self._digest, self._size, head)
        self._sink.write(head)
        return self._sink


class _UncompressedSink:
    """A config, or an uncompressed layer."""

    def __init__(self, builder: TarBuilder, digest: Digest, size: int, head: bytes) -> None:
        self._builder = builder
        self._digest = digest
        self._name = f"{digest.hex}.{'json' if head.startswith(b'{') else 'tar'}"
        self._region = builder.reserve(self._name, size)
        self._position = 0

    def write(self, data: bytes | memoryview) -> None:
        self._builder.write_at(self._region, self._position, data)
        self._position += len(data)

    def finish(self) -> StoredBlob:
        return StoredBlob(self._name, self._region, self._digest)

    def close(self) -> None:
        pass


class _DecompressingSink:
    """A compressed layer."""

    def __init__(
        self, builder: TarBuilder, digest: Digest, size: int, compression: Compression
    ) -> None:
        self._builder = builder
        remedy = "copy the image to oci-archive:FILE, which stores layers unchanged"
        self._decompressor = BoundedDecompressor(
            compression, f"layer {digest}", size=size, remedy=remedy
        )
        self._verifier = Verifier()
        try:
            # Unbuffered: data that did not fit on a full disk would fail again in `close`.
            self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by `close`
                buffering=0, dir=builder.final_path.parent
            )
        except OSError as error:
            raise disk_error("cannot decompress next to", builder.final_path, error) from error

    def write(self, data: bytes | memoryview) -> None:
        for out in self._decompressor.feed(data):
            self._write_output(out)

    def finish(self) -> StoredBlob:
        self._decompressor.check_complete()
        digest, size = self._verifier.digest(), self._verifier.position
        name = f"{digest.hex}.tar"
        region = self._builder.reserve(name, size)
        for position in range(0, size, MIB):
            piece = os.pread(self._file.fileno(), min(MIB, size - position), position)
            self._builder.write_at(region, position, piece)
        return StoredBlob(name, region, digest)

    def close(self) -> None:
        self._file.close()

    def _write_output(self, out: bytes) -> None:
        self._verifier.update(out)
        rest = memoryview(out)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise disk_error(
                "cannot decompress next to", self._builder.final_path, error
            ) from error
