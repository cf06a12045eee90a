"""Archives of one run: opened once, completed at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from concil.config import TransferConfig
from concil.errors import Cancelled, ConcilError, UsageError, safe_repr
from concil.oci.address import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.progress.events import Event, ProgressSink, State, emit
from concil.runtime.cancellation import current_scope, run_in_scope
from concil.store.archive.docker_reader import DockerArchiveReader
from concil.store.archive.docker_writer import DockerArchiveWriter
from concil.store.archive.oci import OCIArchive
from concil.store.archive.tar_builder import stat_signature
from concil.store.layout.directory import LayoutDirectory
from concil.store.layout.index_file import IndexFile
from concil.store.layout.index_saving import LayoutSaving
from concil.store.layout.store import LayoutStore
from concil.store.layout.usage_lock import UsageLock

Store = TypeVar("Store")
LocalSource = LayoutStore | DockerArchiveReader
LocalDestination = LayoutStore | DockerArchiveWriter
_Reader = OCIArchive | DockerArchiveReader
_Writer = OCIArchive | DockerArchiveWriter


class ArchivePool:
    """Open archives. Any thread may call any method."""

    def __init__(self, config: TransferConfig, cancel: threading.Event) -> None:
        """Create an empty pool.

        Args:
            cancel: when it is set, no archive is committed.
        """
        self._config = config
        self._cancel = cancel
        # Guards the fields below. Held over disk reads on purpose: other callers who want the
        # archive have to wait until its headers are read.
        self._lock = threading.Lock()
        self._readers: dict[LayoutAddress, tuple[_Reader, LocalSource]] = {}
        self._outdated: list[_Reader] = []  # may still be in use
        self._ids = itertools.count()

    def open_source(self, address: LayoutAddress) -> LocalSource:
        """Return an archive to read from; it is opened again if the file has changed.

        Raises:
            NotFound: there is no archive.
            StoreError, UsageError, InvalidManifest: the archive cannot be read.
        """
        key = LayoutAddress(os.path.realpath(address.path), scheme=address.scheme)
        with self._lock:
            cached = self._readers.get(key)
            if cached is not None and cached[0].stat_signature != stat_signature(
                Path(address.path)
            ):
                self._outdated.append(self._readers.pop(key)[0])
            if key not in self._readers:
                path = Path(address.path)
                if address.scheme == DOCKER_ARCHIVE:
                    docker = DockerArchiveReader(path, self._cancel)
                    self._readers[key] = docker, docker
                else:
                    archive = OCIArchive(path, cancel=self._cancel)
                    self._readers[key] = archive, self._open_layout(archive)
            return self._readers[key][1]

    @contextlib.contextmanager
    def open_writes(self, progress: ProgressSink | None) -> Iterator[ArchiveWrites]:
        """Open a set of writes; archives that are not committed in the block are discarded."""
        writes = ArchiveWrites(self._config, self._cancel, progress, next(self._ids))
        try:
            yield writes
        finally:
            writes.close()

    def close(self) -> None:
        """Close all archives that are read."""
        with self._lock:
            readers = [*self._outdated, *(reader for reader, _ in self._readers.values())]
            self._readers, self._outdated = {}, []
        for archive in readers:
            archive.close()

    def _open_layout(self, archive: OCIArchive) -> LayoutStore:
        return LayoutStore(archive, manifest_limit=self._config.max_manifest_size)


class ArchiveWrites:
    """The archives and layouts that one call writes to. Any thread may call any method.

    Archives are not shared with other calls, so the outcome of each image is known at the end
    of its call, whatever other calls do with the same files.
    """

    def __init__(
        self,
        config: TransferConfig,
        cancel: threading.Event,
        progress: ProgressSink | None,
        id_: int,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            cancel: when it is set, no archive is committed.
            progress: gets the last event of each image of an archive or layout.
            id_: number of the call within its engine.
        """
        self._progress = progress
        self._config = config
        self._cancel = cancel
        self._id = id_
        # Guards the fields below. Held over disk reads on purpose: other callers who want the
        # archive have to wait until its headers are read.
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}  # resolved paths by the path in the address
        # By key; the first item is the scheme.
        self._writers: dict[str, tuple[str, _Writer, LocalDestination]] = {}
        self._open_errors: dict[str, ConcilError] = {}  # errors on opening, by key
        self._commit_errors: dict[str, ConcilError] = {}  # errors on commit, by key
        # Last events of images, by key: they are in place only with their archive.
        self._held_events: dict[str, list[Event]] = {}
        self._saved: Callable[[], object] | None = None
        self._maker = os.getpid()
        self._scope = current_scope()  # of the call that these writes belong to
        self._saving = threading.Lock()  # guards the fields below
        # By path; the number is that of the last change before this call.
        self._layouts: dict[str, tuple[LayoutStore, IndexFile, int]] = {}
        self._events: list[tuple[Event, LayoutSaving]] = []
        self._usage_locks: list[UsageLock] = []  # of the layouts

    def open_destination(self, address: LayoutAddress) -> LocalDestination:
        """Return an archive to write to; it is opened at the first call.

        Raises:
            StoreError, UsageError, InvalidManifest: it cannot be written or added to.
        """
        with self._lock:
            key = self._keys.get(address.path) or os.path.realpath(address.path)
            if key in self._open_errors:  # the other images of a list need not wait again
                raise self._open_errors[key].with_traceback(None)
            if key not in self._writers:
                try:
                    self._writers[key] = address.scheme, *self._open_writer(address)
                except ConcilError as error:
                    self._open_errors[key] = error
                    raise
            self._keys[address.path] = key
            scheme, _, target = self._writers[key]
        if scheme != address.scheme:
            raise UsageError(
                f"{safe_repr(address.path)} is already being written as {scheme}",
                remedy=f"choose another file for {address.scheme}",
            )
        return target

    def layout(self, path: str, layout: LayoutDirectory) -> LayoutStore:
        """Return the store for a layout directory; its index is saved from time to time."""
        with self._saving:
            if path not in self._layouts:
                file = layout.index_file
                store = LayoutStore(
                    layout.deferring(), manifest_limit=self._config.max_manifest_size
                )
                self._usage_locks.append(UsageLock.shared(layout.path))
                file.add_listener(self._tell_saved)
                self._layouts[path] = store, file, file.last
            return self._layouts[path][0]

    def deferring(self, store: Store) -> Store | LayoutStore:
        """Return the store for deferred index writes if ``store`` is a layout directory."""
        if isinstance(store, LayoutStore) and isinstance(store.backend, LayoutDirectory):
            return self.layout(str(store.backend.path), store.backend)
        return store

    def begin(self, destination: str) -> int:
        """Return the start number for `saving`; call it before the destination is checked."""
        file, last_number = self._index_file(destination) or (None, 0)
        return last_number if file is None else file.written_number

    def saving(self, destination: str, start_number: int) -> LayoutSaving | None:
        """Return the pending index changes of an image in a layout; None if all are written.

        Args:
            start_number: the result of `begin`, called before the image was looked up.
        """
        file, last_number = self._index_file(destination) or (None, 0)
        if file is None:
            return None
        # The image may be up to date thanks to another image, so all deferred changes count.
        saving = LayoutSaving(file, max(start_number, last_number), file.last)
        return None if saving.is_over and saving.error is None else saving

    def on_save(self, saved: Callable[[], object]) -> None:
        """Call ``saved``, in any thread, whenever a `LayoutSaving` may be complete."""
        self._saved = saved

    def emit_when_saved(self, destination: str, start_number: int, event: Event) -> None:
        """Emit the last event of an image once it is in place. Arguments as for `saving`."""
        key = self._find_key(destination)
        if key is not None:
            with self._lock:
                self._held_events.setdefault(key, []).append(event)
            return
        saving = self.saving(destination, start_number)
        if saving is None:
            emit(self._progress, event)
            return
        with self._saving:
            self._events.append((event, saving))
        if saving.is_over:
            self._tell_saved()

    def save(self) -> None:
        """Save the indexes of layouts now; failures are recorded for `saving`."""
        with self._saving:
            layouts = list(self._layouts.values())
        for _, file, _ in layouts:
            file.close()

    def _index_file(self, destination: str) -> tuple[IndexFile, int] | None:
        """Return the index file of a layout that was opened here, and its start number."""
        address = parse_address(destination)
        if not isinstance(address, LayoutAddress) or address.is_archive:
            return None
        with self._saving:
            return self._layouts[address.path][1:] if address.path in self._layouts else None

    def _tell_saved(self) -> None:
        with self._saving:
            events = [(pending, pending[1].is_over) for pending in self._events]
            self._events = [pending for pending, is_finished in events if not is_finished]
        finished = [(event, saving.error) for (event, saving), is_finished in events if is_finished]
        with run_in_scope(self._scope):
            for event, error in finished:
                failed_event = replace(event, state=State.FAILED, position=0, detail=str(error))
                emit(self._progress, event if error is None else failed_event)
        if self._saved is not None:
            self._saved()

    def is_pending(self, destination: str) -> bool:
        """Return whether the image becomes visible only when its archive is committed."""
        return self._find_key(destination) is not None

    def commit(self, *, strict: bool = False) -> None:
        """Save layouts and commit archives; a failed archive is unchanged and has a `commit_error`.

        Args:
            strict: raise the first failure.
        Raises:
            Cancelled: the call was cancelled.
        """
        self.save()
        with self._lock:
            for _, file, start_number in self._layouts.values():
                error = file.failure(start_number, file.last)
                if strict and error is not None:
                    raise error
            for key, (_, writer, _) in self._writers.items():
                if self._cancel.is_set():
                    raise Cancelled("cancelled; archives are unchanged")
                try:
                    writer.commit()
                except Cancelled:
                    raise
                except ConcilError as error:
                    self._commit_errors[key] = error
                    self._emit_held(key, State.FAILED, str(error))
                else:
                    self._emit_held(key)
                finally:
                    writer.close()
            if strict and self._commit_errors:
                raise next(iter(self._commit_errors.values()))

    def commit_error(self, destination: str) -> ConcilError | None:
        """Return why the archive of an image was not committed; None if there was no failure."""
        key = self._find_key(destination)
        return self._commit_errors.get(key) if key is not None else None

    def close(self) -> None:
        """Save layouts, and discard archives that were not committed."""
        if os.getpid() == self._maker:  # a forked child has nothing to save
            for _, file, _ in self._layouts.values():
                file.close()
                file.forget(self._tell_saved)
            for usage_lock in self._usage_locks:
                usage_lock.close()
        with self._lock:
            for key, (_, writer, _) in self._writers.items():
                writer.close()
                self._emit_held(key, State.CANCELLED)
            self._writers = {}

    def _emit_held(self, key: str, state: State | None = None, detail: str = "") -> None:
        """Emit the last events of the images of an archive; the caller holds the lock.

        Args:
            state: None: that of each event; any other one means that no image is in place.
        """
        for event in self._held_events.pop(key, ()):
            lost = replace(event, state=state or event.state, position=0, detail=detail)
            emit(self._progress, event if state is None else lost)

    def _find_key(self, destination: str) -> str | None:
        """Return the key of an archive that was opened here."""
        address = parse_address(destination)
        if not isinstance(address, LayoutAddress) or not address.is_archive:
            return None
        with self._lock:
            return self._keys.get(address.path)

    def _open_writer(self, address: LayoutAddress) -> tuple[_Writer, LocalDestination]:
        path = Path(address.path)
        target: LocalDestination
        writer: _Writer
        if address.scheme == DOCKER_ARCHIVE:
            target = writer = DockerArchiveWriter(path)
            writer.acquire_lock(self._cancel)
        else:
            writer = OCIArchive(path, writable=True, cancel=self._cancel)
            target = LayoutStore(writer, manifest_limit=self._config.max_manifest_size)
        # Blobs written by another call are in another archive until both calls have committed.
        target.mount_scope = f"{target.mount_scope} #{self._id}"
        return writer, target
