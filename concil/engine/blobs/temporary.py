"""Temporary files that hold a blob while it is uploaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

from concil.fs.local_file import FileBlobReader, disk_error
from concil.oci.digest import Digest
from concil.transfer.blob.source import BlobSource


def open_temporary() -> IO[bytes]:
    """Open a temporary file without a name; a killed process leaves nothing behind.

    Raises:
        StoreError: it cannot be created.
    """
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:
        raise disk_error("cannot write to", tempfile.gettempdir(), error) from error


def write_temporary(file: IO[bytes], data: bytes | bytearray | memoryview) -> None:
    """Append to a temporary file.

    Raises:
        StoreError: the disk is full or the write fails.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise disk_error("cannot write to", tempfile.gettempdir(), error) from error


def temporary_source(file: IO[bytes], size: int, digest: Digest, name: str) -> BlobSource:
    """Return the content of a temporary file as a blob; the file must stay open."""

    def open_range(start: int, stop: int | None = None, /) -> FileBlobReader:
        return FileBlobReader(os.dup(file.fileno()), Path(name), start, stop)

    return BlobSource(open_range, size, digest, name)
