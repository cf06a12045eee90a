"""CacheFile: a blob of the cache that is written while it is read from its source."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import ContentError
from concil.fs.file_lock import is_same_file, try_lock
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Verifier

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class CacheFile:
    """The first bytes of a blob, as far as they are known. Any thread may call any method.

    They are appended in order, also by a later process. The file is locked, so that only one
    process writes it.
    """

    def __init__(self, fd: int, partial_path: Path, final_path: Path, blob: Descriptor) -> None:
        """Continue a locked file, whose bytes are hashed; use `open_file`.

        Raises:
            OSError: it cannot be read.
        """
        self.blob = blob
        self.user_count = 0  # readers; guarded by the cache
        self._partial_path = partial_path
        self._final_path = final_path
        self._lock = threading.Lock()  # guards the fields below; held while bytes are written
        self._fd = fd
        self._verifier = Verifier(blob.digest.algorithm)
        self.is_complete = False  # renamed to its final path
        self.is_broken = False  # nothing more is written
        hash_file(fd, self._verifier, blob.size)

    @property
    def position(self) -> int:
        """Number of bytes that are known, from the first one on."""
        return self._verifier.position

    def read(self, position: int, buffer: memoryview) -> int:
        """Read known bytes; return their number, 0 if there are none at ``position``.

        Raises:
            OSError: the disk fails.
        """
        with self._lock:
            available = self._verifier.position - position
            if available <= 0 or self._fd < 0:
                return 0
            return os.preadv(self._fd, [buffer[:available]], position)

    def append(self, position: int, data: memoryview) -> bool:
        """Write bytes of the source, unless they are known or others are missing before them.

        Returns:
            Whether the blob became complete, and is in place.
        Raises:
            OSError: the disk is full or fails; nothing more is written.
        """
        with self._lock:
            known = self._verifier.position
            data = data[max(known - position, 0) :]
            is_next = position <= known and len(data) > 0
            if not is_next or self.is_broken or self.is_complete or self._fd < 0:
                return False
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, data[written:], known + written)
                self._verifier.update(data)
                if self._verifier.position < self.blob.size:
                    return False
                return self._complete()
            except OSError:
                self._remove()
                raise

    def complete_if_full(self) -> None:
        """Put a file in place whose process was killed before it did. Raises OSError."""
        with self._lock:
            if self.blob.size and self._verifier.position == self.blob.size:
                self._complete()

    def close(self) -> None:
        """Close the file; its bytes stay for a later process."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Remove the file: its bytes are wrong, or the disk is full."""
        with self._lock:
            self._remove()

    def _complete(self) -> bool:
        """Verify the blob and put it in place; return False if it is wrong."""
        try:
            self._verifier.verify(self.blob.digest, self.blob.size, str(self.blob.digest))
        except ContentError:
            self._remove()
            return False
        if not is_same_file(self._fd, self._partial_path):
            self.is_broken = True  # another process has removed it to make room
            return False
        self._partial_path.rename(self._final_path)
        self.is_complete = True
        return True

    def _remove(self) -> None:
        self.is_broken = True
        self._verifier = Verifier(self.blob.digest.algorithm)  # no byte is known
        try:
            if is_same_file(self._fd, self._partial_path):
                self._partial_path.unlink()
        except OSError:
            pass


def open_file(partial_path: Path, final_path: Path, blob: Descriptor) -> CacheFile | None:
    """Open and lock the partial file of a blob; None: another process writes it.

    Raises:
        OSError: it cannot be opened, read or locked.
    """
    fd = os.open(partial_path, _FLAGS, 0o666)
    file = None
    try:
        if try_lock(fd) and is_same_file(fd, partial_path):
            if os.fstat(fd).st_size > blob.size:
                os.ftruncate(fd, 0)
            file = CacheFile(fd, partial_path, final_path, blob)
            file.complete_if_full()
    finally:
        if file is None:
            os.close(fd)
    return file


def hash_file(fd: int, verifier: Verifier, size: int) -> None:
    """Hash the first ``size`` bytes of a file, or all if there are fewer. Raises OSError."""
    buffer = memoryview(bytearray(MIB))
    while verifier.position < size:
        count = os.preadv(fd, [buffer[: size - verifier.position]], verifier.position)
        if not count:
            return
        verifier.update(buffer[:count])
