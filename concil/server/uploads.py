"""Upload sessions: files that grow, survive the server, and become blobs."""

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

from concil.content import Digest
from concil.server.connection import BLOCK, Body
from concil.server.refusal import Refusal
from concil.store.layout import Layout
from concil.store.layout_disk import OWN, Tree

logger = logging.getLogger(__name__)

_HOME = f"{OWN}/uploads"
_SESSION = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_LIFETIME = 7 * 24 * 3600.0  # seconds without a byte; as long as distribution keeps them


class Upload:
    """One session: its file and how much of it is hashed.

    The offset is the size of the file and nothing else, so that it is true after a
    broken body and after a restart. Everything but `offset` is for the thread that
    is inside `Uploads.writing`; any thread may call `give_way`.
    """

    def __init__(self, session: str, path: Path, algorithm: str) -> None:
        """Name the session; ``algorithm`` is what its digest will most likely have."""
        self.session = session
        self.path = path
        self.lock = threading.Lock()  # held by the request that writes
        self._body: Body | None = None  # what it reads
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._hashed = 0  # bytes

    @property
    def offset(self) -> int:
        """Bytes the session holds."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError as error:
            raise _unknown() from error

    def append(self, body: Body) -> int:
        """Write what is left of a body behind what is there; return the number of bytes.

        Raises:
            BodyBroken: it ended early; what arrived is kept.
        """
        self._body = body
        buffer = memoryview(bytearray(BLOCK))
        written = 0
        with self.path.open("r+b", buffering=0) as file:
            position = file.seek(0, os.SEEK_END)
            # After a restart the bytes that are there were not hashed by this process.
            following = self._hashed == position
            while count := body.readinto(buffer):
                piece = buffer[:count]
                while piece:
                    piece = piece[file.write(piece) :]
                written += count
                if following:
                    self._hash.update(buffer[:count])
                    self._hashed += count
        return written

    def give_way(self, silence: float) -> bool:
        """Break off the request that writes if nothing has come for so many seconds.

        A client that vanished without a word would keep its session from itself.
        """
        body = self._body
        if body is None or time.monotonic() - body.moved < silence:
            return False
        body.give_up()
        return True

    def cut(self, offset: int) -> None:
        """Throw away what is behind ``offset``."""
        os.truncate(self.path, offset)
        if self._hashed > offset:
            self._hash, self._hashed = hashlib.new(self._algorithm), 0

    def digest(self, algorithm: str) -> Digest:
        """The digest of all bytes; reads again only what was not hashed on its way in."""
        if algorithm != self._algorithm:
            self._algorithm = algorithm
            self._hash, self._hashed = hashlib.new(algorithm), 0
        if self._hashed < self.offset:
            buffer = memoryview(bytearray(BLOCK))
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._hashed)
                while count := file.readinto(buffer):
                    self._hash.update(buffer[:count])
                    self._hashed += count
        return Digest(algorithm, self._hash.hexdigest())


class Uploads:
    """All sessions of a layout. Any thread may call any method."""

    def __init__(self, layout: Layout, *, durable: bool) -> None:
        """Use an open layout.

        Args:
            layout: where sessions and blobs live.
            durable: wait for the disk before a blob gets its name.
        """
        self._layout = layout
        self._durable = durable
        self._home = layout.path / _HOME
        self._lock = threading.Lock()  # guards _open
        self._open: dict[str, Upload] = {}

    def prepare(self) -> None:
        """Make the directory, and throw away sessions that nobody has used for a week."""
        Tree(self._layout.path).make(_HOME)
        for path in self._home.iterdir():
            if _SESSION.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _LIFETIME:
                logger.info("upload %s was left alone for a week: removed", path.name)
                path.unlink(missing_ok=True)

    def start(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Open a new session in a repository."""
        session = f"{secrets.token_hex(16)}-{_seal(repository)}"
        upload = Upload(session, self._home / session, algorithm)
        upload.path.touch(exist_ok=False)
        with self._lock:
            self._open[session] = upload
        return upload

    def get(self, repository: str, session: str) -> Upload:
        """Find a session, of this process or of one before it.

        Raises:
            Refusal: there is none of that name in the repository.
        """
        if not _SESSION.fullmatch(session) or not session.endswith(_seal(repository)):
            raise _unknown()
        path = self._home / session
        with self._lock:
            if path.is_symlink() or not path.is_file():
                self._open.pop(session, None)
                raise _unknown()
            return self._open.setdefault(session, Upload(session, path, "sha256"))

    @contextmanager
    def writing(self, upload: Upload, wait: float, silence: float) -> Iterator[None]:
        """Be the only request that writes to a session.

        A client that lost its connection comes back before the server has read the
        end of the old one; hence the wait, in seconds. After so many seconds of
        silence the old one gives way.

        Raises:
            Refusal: another request is still writing, or has ended the session.
        """
        free = upload.lock.acquire(timeout=wait)
        if not free and upload.give_way(silence):
            free = upload.lock.acquire(timeout=wait)
        if not free:
            raise Refusal(
                "BLOB_UPLOAD_INVALID", "another request is writing to this session", status=409
            )
        try:
            if not upload.path.is_file():
                raise _unknown()
            yield
        finally:
            upload.lock.release()

    def settle(self, upload: Upload, wait: float) -> None:
        """Give the request that writes to a session, if any, some seconds to end."""
        if upload.lock.acquire(timeout=wait):
            upload.lock.release()

    def commit(self, upload: Upload, digest: Digest) -> None:
        """Make the session a blob; it keeps its bytes if they have another digest.

        Raises:
            Refusal: the bytes do not hash to the digest.
        """
        found = upload.digest(digest.algorithm)
        if found != digest:
            raise Refusal("DIGEST_INVALID", f"the bytes hash to {found}, not to {digest}")
        final, _ = self._layout.writing_paths(digest)
        if self._durable:
            _sync(upload.path)
        upload.path.replace(final)
        if self._durable:
            _sync(final.parent)
        self._forget(upload)

    def discard(self, upload: Upload) -> None:
        """Throw a session away."""
        upload.path.unlink(missing_ok=True)
        self._forget(upload)

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.session, None)


def _seal(repository: str) -> str:
    """What ties a session to its repository without a second file."""
    return hashlib.sha256(repository.encode()).hexdigest()[:16]


def _unknown() -> Refusal:
    return Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload in this repository")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
