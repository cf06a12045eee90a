"""The file behind an open binary file, so that its upload can be resumed."""

from __future__ import annotations

import io
import os
import stat

from concil.errors import ConcilError
from concil.fs.local_file import LocalFile

__all__ = ["find_file"]


def find_file(stream: object) -> LocalFile | None:
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
