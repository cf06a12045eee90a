"""The archives of one run: each is opened once, and what is written appears at the end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.cancellation import outside_of_calls
from concil.config import TransferConfig
from concil.reference import DOCKER_ARCHIVE, LayoutAddress
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
        # Each guards the fields below it, and on purpose is held over the disk: who else wants
        # an archive has to wait for its headers, and for its end before it is opened anew.
        self._reading = threading.Lock()
        self._read: dict[LayoutAddress, tuple[_Reader, LocalSource]] = {}
        self._outdated: list[_Reader] = []  # somebody may still read from them
        self._writing = threading.Lock()
        self._written: dict[LayoutAddress, tuple[_Writer, LocalTarget]] = {}
        self._writers = 0
        self._wanted = False  # one of the writers has ended well, so what is there is to appear

    def source(self, address: LayoutAddress) -> LocalSource:
        """Open an archive to read from, or return it if it is open and still what it was.

        Raises:
            NotFound: there is none.
            StoreError, UsageError, InvalidManifest: it cannot be read.
        """
        key = _key(address)
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

    def destination(self, address: LayoutAddress) -> LocalTarget:
        """Open an archive to write to, or return it if it is open. Within `writing` only.

        Raises:
            StoreError, UsageError, InvalidManifest: it cannot be written, or added to.
        """
        key = _key(address)
        with self._writing:
            if key not in self._written:
                path = Path(address.path)
                if address.kind == DOCKER_ARCHIVE:
                    docker = DockerArchiveWriter(path)
                    self._written[key] = docker, docker
                else:
                    archive = OCIArchive(path, writing=True, cancel=self._cancel)
                    self._written[key] = archive, self._layout(archive)
            return self._written[key][1]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold while images are copied: at the end of the last one archives appear.

        Raises:
            StoreError: one of them could not; it is as it was.
        """
        with self._writing:
            self._writers += 1
        try:
            yield
        except BaseException as error:
            # One call may be interrupted or cancelled alone, beside others that have ended well.
            self._leave(wanted=isinstance(error, Exception))
            raise
        self._leave(wanted=True)

    def close(self) -> None:
        """Let go of all; what is not finished is thrown away."""
        with self._reading:
            readers = [*self._outdated, *(one for one, _ in self._read.values())]
            self._read, self._outdated = {}, []
        with self._writing:
            writers = [one for one, _ in self._written.values()]
            self._written = {}
        for archive in (*readers, *writers):
            archive.close()

    def _leave(self, *, wanted: bool) -> None:
        """Finish the archives that were written to, if nobody copies any more.

        Whoever comes next opens them anew.
        """
        with self._writing, contextlib.ExitStack() as stack:
            self._writers -= 1
            self._wanted = self._wanted or (wanted and not self._cancel.is_set())
            if self._writers:
                return
            is_wanted, self._wanted = self._wanted, False
            written = [one for one, _ in self._written.values()]
            self._written = {}
            for archive in written:
                stack.callback(archive.close)
            if is_wanted:
                # Other calls have brought what is in it, be this one cancelled.
                with outside_of_calls():
                    for archive in written:
                        archive.finish()

    def _layout(self, archive: OCIArchive) -> LayoutStore:
        return LayoutStore(archive, manifest_limit=self._config.manifest_limit)


def _key(address: LayoutAddress) -> LayoutAddress:
    """The archive of an address, however its path is written."""
    return LayoutAddress(os.path.realpath(address.path), kind=address.kind)
