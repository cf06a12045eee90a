"""The archives of one run: what is read is opened once, what is written appears at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.config import TransferConfig
from concil.errors import Cancelled, ConcilError, UsageError, shown
from concil.progress import Event, ProgressSink, State, emit
from concil.reference import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.store.docker_archive import DockerArchive
from concil.store.docker_archive_writer import DockerArchiveWriter
from concil.store.layout import LayoutStore
from concil.store.oci_archive import OCIArchive
from concil.store.tar_draft import state_of

LocalSource = LayoutStore | DockerArchive
LocalTarget = LayoutStore | DockerArchiveWriter
_Reader = OCIArchive | DockerArchive
_Writer = OCIArchive | DockerArchiveWriter


class Archives:
    """Open archives. Any thread may call any method."""

    def __init__(self, config: TransferConfig, cancel: threading.Event) -> None:
        """Open nothing yet.

        Args:
            cancel: where it is set, nothing that is written appears.
        """
        self._config = config
        self._cancel = cancel
        # Guards the fields below it, and on purpose is held over the disk: who else wants an
        # archive has to wait for its headers.
        self._reading = threading.Lock()
        self._read: dict[LayoutAddress, tuple[_Reader, LocalSource]] = {}
        self._outdated: list[_Reader] = []  # somebody may still read from them
        self._numbers = itertools.count()

    def source(self, address: LayoutAddress) -> LocalSource:
        """Open an archive to read from, or return it if it is open and still what it was.

        Raises:
            NotFound: there is none.
            StoreError, UsageError, InvalidManifest: it cannot be read.
        """
        key = LayoutAddress(os.path.realpath(address.path), kind=address.kind)
        with self._reading:
            known = self._read.get(key)
            if known is not None and known[0].state != state_of(Path(address.path)):
                self._outdated.append(self._read.pop(key)[0])
            if key not in self._read:
                path = Path(address.path)
                if address.kind == DOCKER_ARCHIVE:
                    docker = DockerArchive(path, self._cancel)
                    self._read[key] = docker, docker
                else:
                    archive = OCIArchive(path, cancel=self._cancel)
                    self._read[key] = archive, self._layout(archive)
            return self._read[key][1]

    @contextlib.contextmanager
    def writing(self, progress: ProgressSink | None) -> Iterator[ArchiveWriting]:
        """Write to archives; what is not finished at the end is thrown away."""
        writing = ArchiveWriting(self._config, self._cancel, progress, next(self._numbers))
        try:
            yield writing
        finally:
            writing.close()

    def close(self) -> None:
        """Let go of all that is read."""
        with self._reading:
            readers = [*self._outdated, *(one for one, _ in self._read.values())]
            self._read, self._outdated = {}, []
        for archive in readers:
            archive.close()

    def _layout(self, archive: OCIArchive) -> LayoutStore:
        return LayoutStore(archive, manifest_limit=self._config.manifest_limit)


class ArchiveWriting:
    """The archives that one call writes to. Any thread may call any method.

    Nothing is shared with other calls: so each knows at its end what became of its images,
    whatever others do with the same files.
    """

    def __init__(
        self,
        config: TransferConfig,
        cancel: threading.Event,
        progress: ProgressSink | None,
        number: int,
    ) -> None:
        """Open nothing yet.

        Args:
            cancel: where it is set, no archive appears.
            progress: gets an event for each archive that cannot appear.
            number: tells the calls of an engine apart.
        """
        self._progress = progress
        self._config = config
        self._cancel = cancel
        self._number = number
        # Guards the fields below it, and on purpose is held over the disk: who else wants an
        # archive has to wait for its headers.
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}  # paths behind all links, by what they are called
        self._open: dict[str, tuple[str, _Writer, LocalTarget]] = {}  # by key; with the kind
        self._refused: dict[str, ConcilError] = {}  # why they could not be opened, by key
        self._failed: dict[str, ConcilError] = {}  # why they could not appear, by key

    def destination(self, address: LayoutAddress) -> LocalTarget:
        """Open an archive to write to, or return it if it is open.

        Raises:
            StoreError, UsageError, InvalidManifest: it cannot be written, or added to.
        """
        with self._lock:
            key = self._keys.get(address.path) or os.path.realpath(address.path)
            if key in self._refused:  # the other images of a list need not wait for it again
                raise self._refused[key].with_traceback(None)
            if key not in self._open:
                try:
                    self._open[key] = address.kind, *self._opened(address)
                except ConcilError as error:
                    self._refused[key] = error
                    raise
            self._keys[address.path] = key
            kind, _, target = self._open[key]
        if kind != address.kind:
            raise UsageError(
                f"{shown(address.path)} is written as {kind} already",
                remedy=f"name another file for {address.kind}",
            )
        return target

    def is_pending(self, destination: str) -> bool:
        """Whether an image is there only if `finish` lets its archive appear."""
        return self._key(destination) is not None

    def finish(self, *, strict: bool = False) -> None:
        """Let the archives appear; one that cannot is as it was, and has a `failure`.

        Args:
            strict: raise the first failure.
        Raises:
            Cancelled: somebody cancelled.
        """
        with self._lock:
            for key, (_, writer, target) in self._open.items():
                if self._cancel.is_set():
                    raise Cancelled("cancelled; archives are as they were")
                try:
                    writer.finish()
                except Cancelled:
                    raise
                except ConcilError as error:
                    self._failed[key] = error
                    # Its images looked copied until now.
                    event = Event("image", target.name, "", State.FAILED, 0, None, str(error))
                    emit(self._progress, event)
                finally:
                    writer.close()
            if strict and self._failed:
                raise next(iter(self._failed.values()))

    def failure(self, destination: str) -> ConcilError | None:
        """Why the archive of an image did not appear; None: it did."""
        key = self._key(destination)
        return self._failed.get(key) if key is not None else None

    def close(self) -> None:
        """Throw away what is not finished."""
        with self._lock:
            for _, writer, _ in self._open.values():
                writer.close()
            self._open = {}

    def _key(self, destination: str) -> str | None:
        """Return the key of an archive that was opened here."""
        address = parse_address(destination)
        if not isinstance(address, LayoutAddress) or not address.is_archive:
            return None
        with self._lock:
            return self._keys.get(address.path)

    def _opened(self, address: LayoutAddress) -> tuple[_Writer, LocalTarget]:
        path = Path(address.path)
        target: LocalTarget
        writer: _Writer
        if address.kind == DOCKER_ARCHIVE:
            target = writer = DockerArchiveWriter(path)
            writer.claim(self._cancel)
        else:
            writer = OCIArchive(path, writing=True, cancel=self._cancel)
            target = LayoutStore(writer, manifest_limit=self._config.manifest_limit)
        # What another call has brought is in another archive until both are finished.
        target.realm = f"{target.realm} #{self._number}"
        return writer, target
