"""Text file that becomes visible only when it is complete."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from concil.errors import StoreError, safe_repr
from concil.fs.file_lock import create_temporary, remove_stale

logger = logging.getLogger(__name__)

_TEMPORARY_SUFFIX = "[0-9a-f]{16}"  # after the report's name


class AtomicTextFile:
    """A text file that becomes visible when the ``with`` block succeeds. One thread at a time.

    If two runs write to the same path, the one that ends last wins, and the second to begin
    logs a warning. The temporary file of a killed process is removed by the next run.
    """

    def __init__(self, path: Path, content: str = "report") -> None:
        """Create the temporary file.

        Args:
            content: what the file has, for messages.
        Raises:
            StoreError: the path is not writable; it is checked before a mirror begins.
        """
        self.path = path
        self._content = content
        try:
            _check_writable(path)
            if remove_stale(path, _TEMPORARY_SUFFIX):
                logger.warning(
                    "another run is writing the %s %s: that of the run that ends last is kept",
                    content,
                    safe_repr(str(path)),
                )
            descriptor, self._temporary_path = create_temporary(path)
            self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8")
        except OSError as error:
            raise self._write_error(error) from error

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit the file, or keep the existing one after an error."""
        if error is None:
            self.commit()
        else:
            self.abort()

    def write(self, text: str) -> None:
        """Append text.

        Raises:
            StoreError: the write fails.
        """
        try:
            self._file.write(text)
        except OSError as error:
            raise self._write_error(error) from error

    def commit(self) -> None:
        """Rename the temporary file to its final path.

        Raises:
            StoreError: the write fails; the existing file is unchanged.
        """
        try:
            self._file.close()
            self._temporary_path.replace(self.path)
        except OSError as error:
            self.abort()
            raise self._write_error(error) from error

    def abort(self) -> None:
        """Delete the temporary file."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary_path.unlink(missing_ok=True)

    def _write_error(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write the {self._content} {self.path}: {error.strerror}",
            remedy="write it to another path",
        )


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        # A rename would replace the device or pipe by a regular file.
        raise OSError(errno.EINVAL, "not a regular file")
