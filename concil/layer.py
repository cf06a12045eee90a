"""A layer as a tar stream whose bytes are verified."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

from concil.config import MIB
from concil.content import OCTETS, Descriptor
from concil.errors import ContentError, NotFound, UsageError
from concil.progress import Meter, ProgressSink, State
from concil.reference import Address
from concil.store.decompress import plain_stream
from concil.store.protocol import BlobReader
from concil.stores import Store, blob_size
from concil.transfer.run import Run
from concil.verified import VerifiedReader, read_stored

# Bytes behind the end of the archive: padding, and the table of contents of zstd:chunked.
TRAILER = 64 * MIB
_BLOCK = 256 * 1024  # bytes that tarfile reads at once


class LayerArchive(tarfile.TarFile):
    """The files of a layer, in the order of the archive: a `tarfile.TarFile` in stream mode.

    Closing it, also at the end of a ``with`` without an error, reads the rest of the
    layer and verifies its digest. After an error nothing is read or verified.
    `extractall` and `extract` use tarfile's filter "data" unless another one is given.
    """

    if hasattr(tarfile, "data_filter"):  # Python 3.11.4
        extraction_filter = staticmethod(tarfile.data_filter)

    _body: VerifiedReader
    _release: Callable[[], object]
    _at_end = False
    closed: bool  # tarfile's own

    @classmethod
    def over(cls, body: VerifiedReader, release: Callable[[], object] | None = None) -> Self:
        """Return the archive in ``body``, which may be compressed.

        Args:
            release: called when nothing is read any more; None: that of ``body``.
        Raises:
            ContentError: it is not a tar archive.
            DigestMismatch, SizeMismatch: and not the right bytes either.
        """
        release = release or body.release
        try:
            plain = plain_stream(body, body.subject)
            archive = cls.open(fileobj=plain, mode="r|", bufsize=_BLOCK)
        except tarfile.TarError as error:
            try:
                body.finish(TRAILER)  # other bytes than those that were asked for say more
            finally:
                release()
            raise ContentError(
                f"{body.subject} is not a tar archive: {error}",
                remedy="read it as a blob; not every layer of an artifact is an archive",
            ) from error
        except BaseException:
            release()
            raise
        archive.verify_by(body, release)
        return archive

    def verify_by(self, body: VerifiedReader, release: Callable[[], object]) -> None:
        """Let ``body`` tell at the end whether the bytes are right, then call ``release``."""
        self._body, self._release = body, release

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, or None at the end of the archive."""
        member = super().next()
        self._at_end = self._at_end or member is None
        return member

    def close(self) -> None:
        """Read the rest, verify it, and let go of the connection; a second call does nothing.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the layer's.
            ContentError: more follows behind the end of the archive than can be meant.
            ConnectionLost, StatusError: the rest cannot be read.
        """
        if self.closed:
            return
        super().close()
        body = self._body
        try:
            if not body.finish(TRAILER if self._at_end else None) and not body.is_over:
                raise ContentError(
                    f"{body.subject}: more than {TRAILER} bytes follow its last file",
                    remedy="it may be an attack; nothing of it is verified",
                )
            if body.failure is not None:
                raise body.failure
        finally:
            self._release()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after an error without reading or verifying anything."""
        if kind is None:
            self.close()
        elif not self.closed:
            super().__exit__(kind, error, trace)
            self._release()


def open_stored(
    store: Store, address: Address, run: Run, progress: ProgressSink | None
) -> LayerArchive:
    """Open a layer of a store, as `Engine.open_layer` says."""
    digest = address.digest
    if digest is None:
        raise UsageError(f"{address}: no digest", remedy="write REPOSITORY@sha256:...")
    size = blob_size(store, digest)
    if size is None:
        raise NotFound(f"{address} is not there", remedy="check the repository and digest")
    blob = Descriptor(OCTETS, digest, size)

    def opener(start: int, /) -> BlobReader:
        return run.bandwidth.paced(store.open_blob(blob, start), (store.host,), run.abandon)

    meter = Meter(progress, kind="blob", subject=str(digest), target="", total=size)
    meter.state(State.STARTED, position=0)
    body = read_stored(opener, blob, meter, run)

    def release() -> None:
        if not body.verified:
            meter.state(State.FAILED, detail="not read to its end, or not right")
        body.release()

    return LayerArchive.over(body, release)
