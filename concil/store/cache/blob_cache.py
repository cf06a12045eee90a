"""BlobCache: blobs in a directory, bounded in size, the least recently used ones out first."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from concil.errors import ContentError, InvalidReference, UsageError, safe_repr
from concil.fs.file_lock import remove_unlocked
from concil.fs.local_file import FileBlobReader, disk_error
from concil.oci.address import LAYOUT, Address, LayoutAddress, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest, Verifier
from concil.runtime.dataclass import dataclass
from concil.runtime.lru_dict import LruDict
from concil.runtime.redaction import without_user
from concil.store.cache.cache_file import CacheFile, hash_file, open_file

logger = logging.getLogger(__name__)

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_IDLE_FILES = 64  # partial files that are kept open, to be continued
_SCAN_INTERVAL = 60.0  # seconds; other processes write to the directory as well
_LOCK_COUNT = 64
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the cache."""

    path: Path
    size: int  # bytes
    last_use: int  # nanoseconds
    is_partial: bool


class BlobCache:
    """Blobs that were read from sources. Any thread, and any number of processes.

    The directory is an OCI image layout without images: ``blobs/sha256/<hex>`` is a complete
    blob. ``partial`` has the first bytes of blobs whose reading was interrupted; a later process
    continues them. Blobs are verified when they are complete, and once more by each process that
    uses them. The access time of a file is the time of its last use.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        """Use a directory, which is created if it is missing.

        Args:
            limit: bytes of all files. Several processes may exceed it for a minute.
        Raises:
            UsageError: it has images of its own.
            StoreError: it cannot be created.
        """
        self.directory = directory
        self._limit = limit
        # Guards the fields below. Held over reads of the directory: others need its result.
        self._lock = threading.Lock()
        self._files: OrderedDict[Digest, CacheFile] = OrderedDict()  # being written, or idle
        self._verified: LruDict[Digest, tuple[int, ...]] = LruDict()  # signatures of files
        # A blob is verified, and its file opened, by one thread at a time.
        self._blob_locks = [threading.Lock() for _ in range(_LOCK_COUNT)]
        self._total = 0  # bytes at the last scan, and those that were reserved since then
        self._scan_time: float | None = None  # monotonic seconds
        self._is_disabled = False  # nothing more is written
        self._boot = _read_boot_id()
        try:
            _create_layout(directory)
        except OSError as error:
            if error.errno not in _FULL:
                raise disk_error("cannot write to the cache in", directory, error) from error
            self._disable(error)

    @classmethod
    def from_address(cls, address: str, limit: int) -> BlobCache:
        """Open the cache at ``oci:DIR``. Raises as the constructor."""
        try:
            parsed = parse_address(address)
        except InvalidReference as error:
            raise UsageError(
                f"a cache is a directory, not {safe_repr(without_user(address))}",
                remedy="write oci:DIR",
            ) from error
        if (
            not isinstance(parsed, LayoutAddress)
            or parsed.scheme != LAYOUT
            or parsed.name
            or parsed.digest
        ):
            raise UsageError(
                f"a cache is a directory, not {safe_repr(str(parsed))}", remedy="write oci:DIR"
            )
        return cls(Path(parsed.path), limit)

    def check_destination(self, address: Address) -> None:
        """Raise UsageError if the cache is the destination of an image."""
        if not isinstance(address, LayoutAddress) or address.is_archive:
            return
        if os.path.realpath(address.path) == os.path.realpath(self.directory):
            raise UsageError(
                f"{address} is the cache, which removes blobs", remedy="use two directories"
            )

    def open_blob(self, blob: Descriptor, start: int, stop: int | None) -> FileBlobReader | None:
        """Open a range of a blob that is complete and right; None: the cache does not have it."""
        try:
            with self._blob_locks[hash(blob.digest) % _LOCK_COUNT]:
                return self._open_verified(blob, start, stop)
        except OSError as error:
            logger.debug("cannot read %s from the cache: %s", blob.digest, error)
            return None

    def begin_blob(self, blob: Descriptor) -> CacheFile | None:
        """Return the file to which the bytes of a blob are appended; `end_blob` returns it.

        None: another process writes it, it does not fit, or the disk is full.
        """
        with self._blob_locks[hash(blob.digest) % _LOCK_COUNT]:
            with self._lock:
                file = self._files.get(blob.digest)
                if file is not None and not (file.is_broken or file.is_complete):
                    return self._use(file)
                if self._is_disabled or not self._reserve(blob.size):
                    return None
            # Without the lock: what an earlier process has written is hashed.
            file = self._open_partial(blob)
            if file is None:
                return None
            with self._lock:
                old = self._files.pop(blob.digest, None)
                self._files[blob.digest] = file
                if old is not None:
                    old.close()
                return self._use(file)

    def end_blob(self, file: CacheFile) -> None:
        """Record that a reader of a file was closed."""
        with self._lock:
            file.user_count -= 1
            self._close_idle_files()

    def append(self, file: CacheFile, position: int, data: memoryview) -> None:
        """Append bytes to a file; a disk that is full or fails is reported once."""
        try:
            if file.append(position, data):
                digest = file.blob.digest
                self._record_verified(digest, self._path_of(digest).stat())
        except OSError as error:
            with self._lock:
                self._disable(error)

    def remove_all(self) -> None:
        """Remove all blobs, except those that another process writes."""
        with self._lock:
            self._evict(-1)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    # Complete blobs ----------------------------------------------------------------

    def _open_verified(
        self, blob: Descriptor, start: int, stop: int | None
    ) -> FileBlobReader | None:
        path = self._path_of(blob.digest)
        try:
            fd = os.open(path, _OPEN)
        except FileNotFoundError:
            return None
        is_used = False
        try:
            status = os.fstat(fd)
            if self._verified.get(blob.digest) != _signature(status):
                if not _is_right(fd, blob):
                    logger.warning(
                        "the cache in %s has a damaged copy of %s; it is dropped",
                        safe_repr(str(self.directory)),
                        blob.digest,
                    )
                    path.unlink(missing_ok=True)
                    return None
                self._record_verified(blob.digest, status)
            with contextlib.suppress(OSError):  # the directory may be read-only
                os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))
            is_used = True
        finally:
            if not is_used:
                os.close(fd)
        return FileBlobReader(fd, path, start, stop)

    def _record_verified(self, digest: Digest, status: os.stat_result) -> None:
        with self._lock:
            self._verified.store(digest, _signature(status))

    def _path_of(self, digest: Digest) -> Path:
        return self.directory / "blobs" / digest.algorithm / digest.hex

    def _open_partial(self, blob: Descriptor) -> CacheFile | None:
        """Open the file of a blob that is not open; None: it cannot be written."""
        final_path = self._path_of(blob.digest)
        name = f"{self._boot}-{blob.digest.algorithm}-{blob.digest.hex}"
        try:
            final_path.parent.mkdir(exist_ok=True)
            return open_file(self.directory / "partial" / name, final_path, blob)
        except OSError as error:
            with self._lock:
                self._disable(error)
            return None

    # Blobs that are written; the lock is held ---------------------------------------

    def _use(self, file: CacheFile) -> CacheFile:
        """Count one more reader of an open file."""
        self._files.move_to_end(file.blob.digest)
        file.user_count += 1
        return file

    def _close_idle_files(self) -> None:
        """Close files that nobody reads if they are complete, broken or too many."""
        idle = [digest for digest, file in self._files.items() if not file.user_count]
        for number, digest in enumerate(idle):
            file = self._files[digest]
            if file.is_complete or file.is_broken or number < len(idle) - _MAX_IDLE_FILES:
                self._files.pop(digest).close()

    def _disable(self, error: OSError) -> None:
        """Write nothing more: what is read from the source is not kept."""
        if not self._is_disabled:
            reason = disk_error("cannot write to the cache in", self.directory, error)
            logger.warning("%s; the run goes on without it", reason)
        self._is_disabled = True

    # The size; the lock is held -----------------------------------------------------

    def _reserve(self, size: int) -> bool:
        """Make room for a blob; return False if it does not fit."""
        if size > self._limit:
            return False
        now = time.monotonic()
        is_due = self._scan_time is None or now > self._scan_time + _SCAN_INTERVAL
        if is_due or self._total + size > self._limit:
            self._scan_time = now
            self._total = self._evict(self._limit - size)
        if self._total + size > self._limit:
            return False
        self._total += size
        return True

    def _evict(self, limit: int) -> int:
        """Remove the files that were not used for the longest time; return the bytes that stay."""
        entries = sorted(self._scan(), key=lambda entry: entry.last_use)
        total = sum(entry.size for entry in entries)
        total += sum(
            file.blob.size - file.position
            for file in self._files.values()
            if not file.is_complete and not file.is_broken
        )
        for entry in entries:
            if total <= limit:
                break
            try:
                if entry.is_partial:
                    remove_unlocked(entry.path)
                else:
                    entry.path.unlink()
            except OSError:
                continue  # another process writes it, or has removed it
            total -= entry.size
        return total

    def _scan(self) -> Iterator[_Entry]:
        """Yield all files."""
        for directory in (*(self.directory / "blobs").glob("*"), self.directory / "partial"):
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        is_partial = directory.name == "partial"
                        last_use = status.st_mtime_ns if is_partial else status.st_atime_ns
                        yield _Entry(Path(entry.path), status.st_size, last_use, is_partial)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_right(fd: int, blob: Descriptor) -> bool:
    """Whether a file has the content of a blob. Raises OSError."""
    verifier = Verifier(blob.digest.algorithm)
    hash_file(fd, verifier, blob.size + 1)
    try:
        verifier.verify(blob.digest, blob.size, str(blob.digest))
    except ContentError:
        return False
    return True


def _create_layout(directory: Path) -> None:
    """Create an empty layout, or check that there is one.

    Raises:
        UsageError: the directory has something else.
        OSError: it cannot be created.
    """
    index = directory / "index.json"
    if not index.exists():
        if directory.is_dir() and any(directory.iterdir()):
            raise _not_empty(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index.write_text('{"schemaVersion":2,"manifests":[]}')
    else:
        try:
            has_images = bool(json.loads(index.read_bytes())["manifests"])
        except (ValueError, KeyError, TypeError):
            has_images = True
        if has_images:
            raise _not_empty(directory)
    for name in ("blobs", "partial"):
        (directory / name).mkdir(exist_ok=True)


def _not_empty(directory: Path) -> UsageError:
    return UsageError(
        f"{safe_repr(str(directory))} has other content, and a cache removes blobs",
        remedy="give an empty directory, or one that does not exist",
    )


def _read_boot_id() -> str:
    """Return what changes when the machine starts: files that were not synced may be lost then."""
    try:
        return _BOOT_ID.read_text("ascii").strip()[:8]
    except OSError:
        return "0"
