"""A blob on its way into a docker-archive, where layers are unpacked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol

from concil.config import MIB
from concil.content import Body, Digest, Verifier
from concil.errors import SizeMismatch
from concil.store.decompress import MAGIC_SIZE, Inflater, Packing, packing_of
from concil.store.files import disk_error
from concil.store.member_writer import CHUNK
from concil.store.protocol import WriterState
from concil.store.tar_draft import Draft, Region


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob in a docker-archive."""

    name: str  # of the member
    region: Region
    plain: Digest  # of what is not packed


class _Sink(Protocol):
    """Takes the bytes of one blob, in order."""

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next of them."""
        ...

    def end(self) -> Stored:
        """Make a member of them."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class DockerBlobWriter:
    """A BlobWriter into a draft; nothing of it outlives the process.

    What a packed layer comes to is known at its end only: it is unpacked into a file without
    name beside the archive, and copied.
    """

    chunk_size = CHUNK

    def __init__(
        self, draft: Draft, size: int, digest: Digest, landed: Callable[[Stored], None]
    ) -> None:
        """Begin a blob.

        Args:
            digest: what it must hash to.
            landed: told what became of it; decides whether it is a member.
        """
        self.offset = 0
        self._draft = draft
        self._size = size
        self._digest = digest
        self._landed = landed
        self._verifier = Verifier(digest.algorithm)
        self._head = bytearray()  # by which its kind is told
        self._sink: _Sink | None = None

    def append(self, body: Body, /) -> None:
        """Take the next stretch; what the body raises leaves ``offset`` where it came to.

        Raises:
            ContentError: it is damaged, or unpacks to more than is honest.
            StoreError: it is packed in a way that this Python cannot undo.
        """
        while piece := body.read():
            if self.offset + len(piece) > self._size:
                raise SizeMismatch(f"blob {self._digest} is more than {self._size} bytes")
            self._verifier.update(piece)
            self.offset += len(piece)
            if self._sink is not None:
                self._sink.write(piece)
                continue
            self._head += piece
            if len(self._head) >= MAGIC_SIZE:
                self._begin()

    def resync(self) -> int:
        """What was taken is there."""
        return self.offset

    def state(self) -> WriterState | None:
        """There is nothing to go on with."""
        return None

    def commit(self, _digest: Digest, /) -> None:
        """Verify it, and make it a member."""
        self._verifier.check(self._digest, self._size, f"blob of {self._draft.final}")
        sink = self._sink or self._begin()
        self._landed(sink.end())
        self.close()

    def close(self) -> None:
        """Let go; what is not whole is left out of the archive."""
        if self._sink is not None:
            self._sink.close()

    def abort(self) -> None:
        """Forget what was taken; it may be written again."""
        self.close()
        self._sink = None
        self._head.clear()
        self.offset = 0
        self._verifier = Verifier(self._digest.algorithm)

    def _begin(self) -> _Sink:
        head = bytes(self._head)
        packing = packing_of(head)
        if packing is not None:
            self._sink = _Unpacked(self._draft, self._digest, self._size, packing)
        else:
            self._sink = _AsItIs(self._draft, self._digest, self._size, head)
        self._sink.write(head)
        return self._sink


class _AsItIs:
    """A config, or a layer that is not packed."""

    def __init__(self, draft: Draft, digest: Digest, size: int, head: bytes) -> None:
        self._draft = draft
        self._digest = digest
        self._name = f"{digest.hex}.{'json' if head.startswith(b'{') else 'tar'}"
        self._region = draft.reserve(self._name, size)
        self._position = 0

    def write(self, piece: bytes | memoryview) -> None:
        self._draft.write_at(self._region, self._position, piece)
        self._position += len(piece)

    def end(self) -> Stored:
        return Stored(self._name, self._region, self._digest)

    def close(self) -> None:
        pass


class _Unpacked:
    """A layer that is packed."""

    def __init__(self, draft: Draft, digest: Digest, size: int, packing: Packing) -> None:
        self._draft = draft
        otherwise = "copy the image to oci-archive:FILE, where layers stay as they are"
        self._inflater = Inflater(packing, f"layer {digest}", size=size, otherwise=otherwise)
        self._verifier = Verifier()
        try:
            # Without a buffer: what a full disk has not taken would fail once more in `close`.
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0, dir=draft.final.parent)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise disk_error("cannot unpack beside", draft.final, error) from error

    def write(self, piece: bytes | memoryview) -> None:
        for out in self._inflater.feed(piece):
            self._put(out)

    def end(self) -> Stored:
        self._inflater.end()
        digest, size = self._verifier.digest(), self._verifier.position
        name = f"{digest.hex}.tar"
        region = self._draft.reserve(name, size)
        for at in range(0, size, MIB):
            piece = os.pread(self._file.fileno(), min(MIB, size - at), at)
            self._draft.write_at(region, at, piece)
        return Stored(name, region, digest)

    def close(self) -> None:
        self._file.close()

    def _put(self, out: bytes) -> None:
        self._verifier.update(out)
        rest = memoryview(out)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise disk_error("cannot unpack beside", self._draft.final, error) from error
