"""Upload sessions on disk that survive a restart."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.oci.manifest import Digest
from concil.server.connection import BLOCK_SIZE, Body
from concil.server.errors import ErrorResponse
from concil.store.layout.store import LayoutDirectory

logger = logging.getLogger(__name__)

_UPLOADS_PATH = f"{PRIVATE_DIRECTORY}/uploads"
_SESSION_ID = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_LIFETIME = 7 * 24 * 3600.0  # seconds without a byte; the same as in distribution


class Upload:
    """One upload session: its file and the hash of its first bytes.

    The offset is the size of the file, so that it is correct after an incomplete body and
    after a restart. Only the thread in `UploadStore.lock_for_writing` may use other members
    than `offset`; any thread may call `abort_idle_writer`.
    """

    def __init__(self, session_id: str, path: Path, algorithm: str) -> None:
        """Create the session; ``algorithm`` is the expected one of its digest."""
        self.session_id = session_id
        self.path = path
        self.write_lock = threading.Lock()  # held by the request that writes
        self._current_body: Body | None = None  # the body that it reads
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._hashed_length = 0  # bytes

    @property
    def offset(self) -> int:
        """Bytes that the session holds."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError as error:
            raise _upload_unknown() from error

    def append(self, body: Body) -> int:
        """Append the rest of a body; return the number of bytes.

        Raises:
            IncompleteBody: it ended early; received bytes are kept.
        """
        self._current_body = body
        buffer = memoryview(bytearray(BLOCK_SIZE))
        written = 0
        with self.path.open("r+b", buffering=0) as file:
            position = file.seek(0, os.SEEK_END)
            # After a restart this process has not hashed the existing bytes.
            is_hash_current = self._hashed_length == position
            while count := body.readinto(buffer):
                unwritten = buffer[:count]
                while unwritten:
                    unwritten = unwritten[file.write(unwritten) :]
                written += count
                if is_hash_current:
                    self._hash.update(buffer[:count])
                    self._hashed_length += count
        return written

    def abort_idle_writer(self, idle_timeout: float) -> bool:
        """Abort the request that writes if no byte has arrived for some seconds.

        Otherwise a client that lost its connection would lock itself out of its session.
        """
        body = self._current_body
        if body is None or time.monotonic() - body.last_read_time < idle_timeout:
            return False
        body.abort()
        return True

    def truncate(self, offset: int) -> None:
        """Remove the bytes after ``offset``."""
        os.truncate(self.path, offset)
        if self._hashed_length > offset:
            self._hash, self._hashed_length = hashlib.new(self._algorithm), 0

    def compute_digest(self, algorithm: str) -> Digest:
        """Return the digest of all bytes; only reads those that were not hashed on arrival."""
        if algorithm != self._algorithm:
            self._algorithm = algorithm
            self._hash, self._hashed_length = hashlib.new(algorithm), 0
        if self._hashed_length < self.offset:
            buffer = memoryview(bytearray(BLOCK_SIZE))
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._hashed_length)
                while count := file.readinto(buffer):
                    self._hash.update(buffer[:count])
                    self._hashed_length += count
        return Digest(algorithm, self._hash.hexdigest())


class UploadStore:
    """The upload sessions of a layout. Thread-safe."""

    def __init__(self, layout: LayoutDirectory, *, durable: bool) -> None:
        """Use an open layout.

        Args:
            layout: holds the sessions and blobs.
            durable: sync a blob to disk before it is renamed.
        """
        self._layout = layout
        self._durable = durable
        self._directory = layout.path / _UPLOADS_PATH
        self._lock = threading.Lock()  # guards _active_uploads
        self._active_uploads: dict[str, Upload] = {}

    def prepare(self) -> None:
        """Create the directory, and remove sessions that were unused for a week."""
        NoFollowTree(self._layout.path).make_directory(_UPLOADS_PATH)
        for path in self._directory.iterdir():
            if _SESSION_ID.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _LIFETIME:
                logger.info("removed upload %s, which was unused for a week", path.name)
                path.unlink(missing_ok=True)

    def create(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Open a new session in a repository."""
        session_id = f"{secrets.token_hex(16)}-{_repository_suffix(repository)}"
        upload = Upload(session_id, self._directory / session_id, algorithm)
        upload.path.touch(exist_ok=False)
        with self._lock:
            self._active_uploads[session_id] = upload
        return upload

    def get(self, repository: str, session_id: str) -> Upload:
        """Return a session, of this process or an earlier one.

        Raises:
            ErrorResponse: the repository has no such session.
        """
        if not _SESSION_ID.fullmatch(session_id) or not session_id.endswith(
            _repository_suffix(repository)
        ):
            raise _upload_unknown()
        path = self._directory / session_id
        with self._lock:
            if path.is_symlink() or not path.is_file():
                self._active_uploads.pop(session_id, None)
                raise _upload_unknown()
            return self._active_uploads.setdefault(session_id, Upload(session_id, path, "sha256"))

    @contextmanager
    def lock_for_writing(
        self, upload: Upload, timeout: float, idle_timeout: float
    ) -> Iterator[None]:
        """Lock a session for writing.

        A client that lost its connection may return before the server has read the end of
        the old one; hence the wait, in seconds. An old request that has been idle too long
        is aborted.

        Raises:
            ErrorResponse: another request is still writing, or has ended the session.
        """
        is_locked = upload.write_lock.acquire(timeout=timeout)
        if not is_locked and upload.abort_idle_writer(idle_timeout):
            is_locked = upload.write_lock.acquire(timeout=timeout)
        if not is_locked:
            raise ErrorResponse(
                "BLOB_UPLOAD_INVALID", "another request is writing to this session", status=409
            )
        try:
            if not upload.path.is_file():
                raise _upload_unknown()
            yield
        finally:
            upload.write_lock.release()

    def wait_for_writer(self, upload: Upload, timeout: float) -> None:
        """Wait some seconds for a request that writes to a session to end."""
        if upload.write_lock.acquire(timeout=timeout):
            upload.write_lock.release()

    def commit(self, upload: Upload, digest: Digest) -> None:
        """Commit a session as a blob; after a digest mismatch it keeps its bytes.

        Raises:
            ErrorResponse: the bytes do not have the digest.
        """
        actual_digest = upload.compute_digest(digest.algorithm)
        if actual_digest != digest:
            raise ErrorResponse(
                "DIGEST_INVALID", f"the bytes hash to {actual_digest}, not to {digest}"
            )
        final, _ = self._layout.prepare_blob_paths(digest)
        if self._durable:
            _fsync(upload.path)
        upload.path.replace(final)
        if self._durable:
            _fsync(final.parent)
        self._forget(upload)

    def discard(self, upload: Upload) -> None:
        """Remove a session."""
        upload.path.unlink(missing_ok=True)
        self._forget(upload)

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._active_uploads.pop(upload.session_id, None)


def _repository_suffix(repository: str) -> str:
    """Return the suffix that ties a session ID to its repository without a second file."""
    return hashlib.sha256(repository.encode()).hexdigest()[:16]


def _upload_unknown() -> ErrorResponse:
    return ErrorResponse("BLOB_UPLOAD_UNKNOWN", "no such upload in this repository")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
