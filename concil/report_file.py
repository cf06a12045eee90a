"""A report on its way to its place: written beside it, and there only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from concil.errors import StoreError, shown
from concil.fs.file_lock import create_temporary, remove_stale

logger = logging.getLogger(__name__)

_TEMPORARY = "[0-9a-f]{16}"  # behind the report's name


class ReportFile:
    """Text that appears under its name when the ``with`` ends well. One thread at a time.

    Of two runs with one place the later end wins, as when one runs after the other; the second
    to begin is warned. What a killed process left is removed by the next for the same place.
    """

    def __init__(self, path: Path) -> None:
        """Begin it.

        Raises:
            StoreError: the place cannot be written to; better said before a mirror begins.
        """
        self.path = path
        try:
            _check_place(path)
            if remove_stale(path, _TEMPORARY):
                logger.warning(
                    "another run is writing the report %s: the run that ends last replaces the "
                    "report of the other",
                    shown(str(path)),
                )
            descriptor, self._growing = create_temporary(path)
            self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8")
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it appear, or leave what was there before."""
        if error is None:
            self.appear()
        else:
            self.discard()

    def write(self, text: str) -> None:
        """Add text.

        Raises:
            StoreError: the disk does not take it.
        """
        try:
            self._file.write(text)
        except OSError as error:
            raise self._refused(error) from error

    def appear(self) -> None:
        """Let it appear in its place.

        Raises:
            StoreError: the disk does not take it; what was there before stays.
        """
        try:
            self._file.close()
            self._growing.replace(self.path)
        except OSError as error:
            self.discard()
            raise self._refused(error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._growing.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write the report {self.path}: {error.strerror}",
            remedy="choose another place for it",
        )


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        # A rename would put a file in the place of the device or pipe.
        raise OSError(errno.EINVAL, "not a regular file")
