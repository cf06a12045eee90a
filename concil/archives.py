"""The archives and layouts of one run: what is read is opened once, what is written is saved."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from concil.cancellation import current_scope, working_for
from concil.config import TransferConfig
from concil.errors import Cancelled, ConcilError, UsageError, shown
from concil.progress import Event, ProgressSink, State, emit
from concil.reference import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.store.docker_archive import DockerArchive
from concil.store.docker_archive_writer import DockerArchiveWriter
from concil.store.layout import LayoutStore
from concil.store.layout_directory import Layout
from concil.store.layout_index_file import IndexFile
from concil.store.oci_archive import OCIArchive
from concil.store.tar_draft import state_of

Store = TypeVar("Store")
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


@dataclass(frozen=True, slots=True)
class LayoutSaving:
    """The changes of a layout's index that have numbers after one, up to another."""

    file: IndexFile
    after: int
    last: int

    @property
    def is_over(self) -> bool:
        """Whether all of them are written or have failed."""
        return self.file.is_settled(self.last)

    @property
    def error(self) -> ConcilError | None:
        """Why one of them could not be written; None: they were."""
        return self.file.failure(self.after, self.last)


class ArchiveWriting:
    """The archives and layouts that one call writes to. Any thread may call any method.

    Of archives nothing is shared with other calls: so each knows at its end what became of its
    images, whatever others do with the same files.
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
        self._saved: Callable[[], object] | None = None
        self._maker = os.getpid()
        self._scope = current_scope()  # the call that this belongs to
        self._saving = threading.Lock()  # guards the fields below
        # By path; with the number of the last change before this call.
        self._layouts: dict[str, tuple[LayoutStore, IndexFile, int]] = {}
        self._events: list[tuple[Event, LayoutSaving]] = []

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

    def layout(self, path: str, layout: Layout) -> LayoutStore:
        """Return a layout as one to write to, whose index is saved now and then."""
        with self._saving:
            if path not in self._layouts:
                file = layout.index_file
                store = LayoutStore(layout.deferring(), manifest_limit=self._config.manifest_limit)
                self._layouts[path] = store, file, file.last
                file.listen(self._tell_saved)
            return self._layouts[path][0]

    def deferring(self, store: Store) -> Store | LayoutStore:
        """Return a store whose index is saved now and then, if it is a layout."""
        if isinstance(store, LayoutStore) and isinstance(store.layout, Layout):
            return self.layout(str(store.layout.path), store.layout)
        return store

    def begin(self, destination: str) -> int:
        """Return what `saving` has to know, before anything is asked of a destination."""
        file, before = self._index_file(destination) or (None, 0)
        return before if file is None else file.settled

    def saving(self, destination: str, begun: int) -> LayoutSaving | None:
        """What an image in a layout waits for; None: it is in place.

        Args:
            begun: what `begin` has returned before the image was asked for.
        """
        file, before = self._index_file(destination) or (None, 0)
        if file is None:
            return None
        # It may be up to date by what another image has brought: so all counts that is deferred.
        saving = LayoutSaving(file, max(begun, before), file.last)
        return None if saving.is_over and saving.error is None else saving

    def on_save(self, saved: Callable[[], object]) -> None:
        """Call ``saved``, in any thread, whenever a `LayoutSaving` may be over."""
        self._saved = saved

    def tell(self, destination: str, begun: int, event: Event) -> None:
        """Emit the last event of an image, once its layout is saved. The rest as `saving`."""
        saving = self.saving(destination, begun)
        if saving is None:
            emit(self._progress, event)
            return
        with self._saving:
            self._events.append((event, saving))
        if saving.is_over:
            self._tell_saved()

    def save(self) -> None:
        """Save the indexes of layouts now; one that cannot be saved has an error."""
        with self._saving:
            layouts = list(self._layouts.values())
        for _, file, _ in layouts:
            file.close()

    def _index_file(self, destination: str) -> tuple[IndexFile, int] | None:
        """Return the index of a layout that was opened here, as `_layouts` has it."""
        address = parse_address(destination)
        if not isinstance(address, LayoutAddress) or address.is_archive:
            return None
        with self._saving:
            return self._layouts[address.path][1:] if address.path in self._layouts else None

    def _tell_saved(self) -> None:
        with self._saving:
            events = [(one, one[1].is_over) for one in self._events]
            self._events = [one for one, is_over in events if not is_over]
        over = [(event, saving.error) for (event, saving), is_over in events if is_over]
        with working_for(self._scope):
            for event, error in over:
                failed = replace(event, state=State.FAILED, position=0, detail=str(error))
                emit(self._progress, event if error is None else failed)
        if self._saved is not None:
            self._saved()

    def is_pending(self, destination: str) -> bool:
        """Whether an image is there only if `finish` lets its archive appear."""
        return self._key(destination) is not None

    def finish(self, *, strict: bool = False) -> None:
        """Save layouts, and let archives appear; one that cannot is as it was, with a `failure`.

        Args:
            strict: raise the first failure.
        Raises:
            Cancelled: somebody cancelled.
        """
        self.save()
        with self._lock:
            for _, file, before in self._layouts.values():
                error = file.failure(before, file.last)
                if strict and error is not None:
                    raise error
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
        """Save layouts, and throw archives away that are not finished."""
        if os.getpid() == self._maker:  # a forked child has nothing to save
            for _, file, _ in self._layouts.values():
                file.close()
                file.forget(self._tell_saved)
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
