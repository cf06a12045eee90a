"""Layers as verified tar streams."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from types import TracebackType
from typing import Self

from concil.config import MIB
from concil.engine.store_factory import SourceStore, blob_size
from concil.engine.verified import VerifiedReader, open_verified
from concil.errors import ContentError, NotFound, UsageError
from concil.oci.address import Address
from concil.oci.descriptor import Descriptor
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import Meter, ProgressSink, State
from concil.store.archive.decompress import open_decompressed
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext

# Bytes after the end of the archive: padding, and the table of contents of zstd:chunked.
MAX_TRAILER_SIZE = 64 * MIB
_BLOCK_SIZE = 256 * 1024  # bytes that tarfile reads at once


class LayerArchive(tarfile.TarFile):
    """The files of a layer in archive order: a `tarfile.TarFile` in stream mode.

    Closing it reads the rest of the layer and verifies its digest, also at the end of a
    ``with`` block. If the block raises, nothing more is read or verified.
    `extractall` and `extract` use tarfile's filter "data" unless another one is given.
    """

    if hasattr(tarfile, "data_filter"):  # Python 3.11.4
        extraction_filter = staticmethod(tarfile.data_filter)

    _body: VerifiedReader
    _release: Callable[[], object]
    _is_at_end = False
    closed: bool  # tarfile's own

    @classmethod
    def from_reader(cls, body: VerifiedReader, release: Callable[[], object] | None = None) -> Self:
        """Return the archive in ``body``, which may be compressed.

        Args:
            release: called after the last read; None: ``body.release``.
        Raises:
            ContentError: it is not a tar archive.
            DigestMismatch, SizeMismatch: it is not, because the bytes are wrong.
        """
        release = release or body.release
        try:
            decompressed = open_decompressed(body, body.display_name)
            archive = cls.open(fileobj=decompressed, mode="r|", bufsize=_BLOCK_SIZE)
        except tarfile.TarError as error:
            try:
                body.verify_rest(
                    MAX_TRAILER_SIZE
                )  # a digest mismatch explains more than a broken archive
            finally:
                release()
            raise ContentError(
                f"{body.display_name} is not a tar archive: {error}",
                remedy="read it as a blob; layers of artifacts need not be archives",
            ) from error
        except BaseException:
            release()
            raise
        archive.set_body(body, release)
        return archive

    def set_body(self, body: VerifiedReader, release: Callable[[], object]) -> None:
        """Verify with ``body`` when the archive is closed, then call ``release``."""
        self._body, self._release = body, release

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, or None at the end of the archive."""
        member = super().next()
        self._is_at_end = self._is_at_end or member is None
        return member

    def close(self) -> None:
        """Read the rest, verify it, and release the connection; a second call does nothing.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the layer's.
            ContentError: more than MAX_TRAILER_SIZE bytes follow the end of the archive.
            ConnectionLost, StatusError: the rest cannot be read.
        """
        if self.closed:
            return
        super().close()
        body = self._body
        try:
            if (
                not body.verify_rest(MAX_TRAILER_SIZE if self._is_at_end else None)
                and not body.is_finished
            ):
                raise ContentError(
                    f"{body.display_name}: more than {MAX_TRAILER_SIZE} bytes follow its last file",
                    remedy="it may be an attack; do not use what was read of it: it is not "
                    "verified",
                )
            if body.error is not None:
                raise body.error
        finally:
            self._release()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the archive; after an error without reading or verifying the rest."""
        if kind is None:
            self.close()
        elif not self.closed:
            super().__exit__(kind, error, trace)
            self._release()


def open_layer(
    store: SourceStore, address: Address, context: TransferContext, progress: ProgressSink | None
) -> LayerArchive:
    """Open a layer of a store. See `Engine.open_layer`."""
    digest = address.digest
    if digest is None:
        raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
    size = blob_size(store, digest)
    if size is None:
        raise NotFound(f"{address} does not exist", remedy="check the repository and digest")
    blob = Descriptor(OCTET_STREAM, digest, size)

    source = BlobSource.in_store(store, blob).throttled(context.bandwidth, "", context.abandon)
    meter = Meter(progress, kind="blob", subject=str(digest), target="", total=size)
    meter.set_state(State.STARTED, position=0)
    body = open_verified(source.open, blob, meter, context)

    def release() -> None:
        if not body.verified:
            meter.set_state(State.FAILED, detail="not read to its end, or its content is wrong")
        body.release()

    return LayerArchive.from_reader(body, release)
