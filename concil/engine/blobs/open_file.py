"""Uploads open files by their paths where that is possible, so that they can be resumed."""

from __future__ import annotations

import io
import os
import stat
from concurrent.futures import Future

from concil.engine.file_blobs import FileBlobTransfers
from concil.engine.store_factory import DestinationStore
from concil.errors import ConcilError
from concil.fs.local_file import LocalFile
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.transfer.blob.stream import SupportsRead

__all__ = ["start_push_open_file"]


def start_push_open_file(
    blobs: FileBlobTransfers,
    stream: SupportsRead,
    store: DestinationStore,
    name: str,
    digest: Digest | None = None,
) -> Future[Descriptor]:
    """Upload an open file, or any other stream as `FileBlobTransfers.start_push_stream`.

    A regular file of which nothing was read is uploaded by its path.
    """
    file = _find_file(stream)
    if file is None:
        return blobs.start_push_stream(stream, store, name, digest)
    return blobs.start_push(file, store, digest)


def _find_file(stream: object) -> LocalFile | None:
    """Return the regular file that an open binary file reads, if nothing was read of it yet.

    Returns:
        None: it is something else, or the file has another name now: read it as a stream.
    """
    if not isinstance(stream, io.BufferedReader | io.FileIO):
        return None
    name = getattr(stream, "name", None)
    if not isinstance(name, str | os.PathLike):
        return None
    try:
        status = os.fstat(stream.fileno())
        is_unread = stat.S_ISREG(status.st_mode) and stream.tell() == 0
        if is_unread and os.path.samestat(status, os.stat(name)):  # noqa: PTH116
            return LocalFile(name)
    except (OSError, ValueError, ConcilError):
        pass
    return None
