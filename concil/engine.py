"""The engine: what a library user holds to push, pull, copy and mirror."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from concil import arguments, layer
from concil.cancellation import SupportsIsSet, calling
from concil.config import Timeouts, TransferConfig
from concil.content import OCTETS, Descriptor, Digest
from concil.engine_parts import EngineParts
from concil.errors import UsageError
from concil.forking import renew_in_child
from concil.opening import Sides
from concil.progress import ProgressSink
from concil.reference import parse_address
from concil.registry.warning_header import RegistryWarning
from concil.store.files import LocalFile, writable
from concil.stores import listing
from concil.transfer.blob import Begin
from concil.transfer.image import ImageResult
from concil.transfer.job import ForeignLayers
from concil.transfer.journal import Journal
from concil.transfer.mirror import (
    Manner,
    MirrorItem,
    MirrorReport,
    Outcome,
    checked,
    copied,
)
from concil.transfer.prune import Pruned, Pruning

__all__ = ["OCTETS", "Engine", "Sides"]

GRACE = 10.0  # seconds for chunks in flight after an error
LAST_GRACE = 2.0  # seconds for threads to notice that they are abandoned


class Engine:
    """Worker threads, connections and settings of one run. Any thread may call any method.

    Use it in a ``with``, or call `close`. A call from a worker's progress callback back
    into the engine waits for itself: do not.

    A call that ends by an exception, be it KeyboardInterrupt, leaves nothing of it running: a
    chunk in flight may end, for some seconds. ``cancel``, a ``threading.Event``, ends one call
    when it is set; the call raises Cancelled. Either way the engine can be used again, and what
    was interrupted goes on where it stopped when it is asked for again. What a callback raises
    ends its call, which raises it.

    After a fork the child has workers and connections of its own.
    """

    def __init__(
        self,
        config: TransferConfig | None = None,
        *,
        progress: ProgressSink | None = None,
        sides: Sides | None = None,
        timeouts: Timeouts | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Make the engine; it connects to nobody yet.

        Args:
            progress: gets an `Event` for every change, from any thread.
            sides: TLS settings and credentials; what an address itself says comes first.
            journal: what makes an interrupted transfer resumable in another process;
                None: the user's own. ``Journal(None)`` remembers nothing. Whoever
                gives one closes it.
        """
        arguments.callback("progress", progress)
        arguments.options(config=(config, TransferConfig), sides=(sides, Sides))
        arguments.options(timeouts=(timeouts, Timeouts), journal=(journal, Journal))
        self.config = config or TransferConfig()
        self._closed = True  # until it is made
        self._progress = progress
        self._sides = sides or Sides()
        self._timeouts = timeouts
        self._owns_journal = journal is None
        self._journal = journal or Journal(Journal.default_path())
        self._begin()
        self._maker = os.getpid()
        self._closed = False
        renew_in_child(self, Engine._after_fork)

    def _begin(self) -> None:
        """Make what the calls share; no thread and no connection is begun yet."""
        self._parts = EngineParts.assembled(
            self.config, self._journal, self._sides, self._timeouts, self._progress
        )

    def _after_fork(self) -> None:
        """Begin anew in a forked child: workers and connections are the parent's."""
        parent = self._parts
        cancelled = parent.run.cancel.is_set()
        parent.abandon_after_fork()
        if self._closed:
            return
        self._begin()
        self._parts.copier.blobs.begin = parent.copier.blobs.begin
        if cancelled:
            self.cancel()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: threads and connections do not travel."""
        raise TypeError("an Engine cannot be pickled: make one in the process that uses it")

    def __del__(self) -> None:
        """End the workers of an engine that nobody has closed, and say so."""
        if getattr(self, "_closed", True):
            return
        if self._maker == os.getpid():  # else it may have been made for another process to use
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        if not sys.is_finalizing():  # else the threads have ended, with locks in their hands
            self._parts.stop()
            self._parts.release(journal=self._owns_journal)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; after an error nothing that waits is begun, and nobody waits for long."""
        if error is not None:
            self.cancel()
        self.close(None if error is None else GRACE)

    def push_blob(
        self,
        path: str | os.PathLike[str],
        repository: str,
        *,
        digest: Digest | str | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> Descriptor:
        """Upload a local file as a blob.

        Args:
            repository: ``[docker://|http://]host[:port]/name``.
            digest: what it must hash to, which is always verified; None: whatever it hashes
                to. Then a file that was pushed before and has not changed is not read if
                the registry has it.
            cancel: ends this call when it is set, and no other.
        Returns:
            A descriptor of the blob, of type application/octet-stream.
        Raises:
            UsageError: no such file, or no such kind of address.
            DigestMismatch, FileChanged: nothing was committed.
            Cancelled: somebody cancelled; push it again to go on.
        """
        name = arguments.text("repository", repository)
        asked = None if digest is None else Digest.argument("digest", digest)
        with calling(cancel):
            return self._parts.files.push(
                LocalFile(path), self._parts.opening.repository(name), asked
            )

    def pull_blob(
        self, address: str, path: str | os.PathLike[str], *, cancel: SupportsIsSet | None = None
    ) -> Descriptor:
        """Download a blob into a local file, by parallel ranges, verified before it appears.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
            cancel: ends this call when it is set, and no other.
        Raises:
            UsageError: the address has no digest, or the path is a directory.
            NotFound, DigestMismatch, StoreError: no file appears.
            Cancelled: somebody cancelled; pull it again to go on.
        """
        reference = parse_address(address)
        if reference.digest is None:
            raise UsageError(f"{address}: no digest", remedy="write REPOSITORY@sha256:...")
        with calling(cancel):
            store = self._parts.opening.source(reference)
            target = writable(Path(arguments.path("path", path)))
            return self._parts.files.pull(store, reference, target)

    def copy(  # noqa: PLR0913 - each an option of its own
        self,
        source: str,
        destination: str,
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        cancel: SupportsIsSet | None = None,
    ) -> ImageResult:
        """Copy one image with all its platforms, or only some; tags and digests stay.

        Args:
            source, destination: store addresses.
            platforms: ``os/architecture[/variant]`` each; none: all.
            referrers: with its signatures, attestations and SBOMs, and theirs.
            foreign_layers: "skip", "source" or "urls": whether layers that are not to be
                distributed are copied, and from where.
            recheck: ask for everything of an image that is up to date, and copy what is gone.
            cancel: ends this call when it is set, and no other.
        Raises:
            NotFound: the source has no such image or platform.
            Cancelled: somebody cancelled; copy it again to go on.
        """
        foreign = ForeignLayers.argument("foreign_layers", foreign_layers)
        wanted = arguments.texts("platforms", platforms)
        item = MirrorItem(source, destination, wanted, referrers, foreign, recheck=recheck)
        self._parts.stores.referrers.forget()
        with calling(cancel), self._parts.stores.writing(self._progress) as archives:
            result = self._parts.copier.copy(self._parts.prepare(item, archives))
            archives.finish(strict=True)
            return result

    def copy_item(self, item: MirrorItem, *, cancel: SupportsIsSet | None = None) -> ImageResult:
        """Copy one image of a mirror that somebody else keeps the list of. Raises as `copy`."""
        with calling(cancel):
            return copied(self._parts.copier, self._parts.prepare(item))

    def mirror(  # noqa: PLR0913 - each an option of its own
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep: bool = True,
        fail_fast: bool = False,
        dry_run: bool = False,
        cancel: SupportsIsSet | None = None,
    ) -> MirrorReport:
        """Copy many images; one that fails is an entry of the report.

        Args:
            items: taken lazily, a few at a time.
            on_image: gets what became of each image, as soon as it has; from several
                threads, one at a time; for images in archives once these are in place. What it
                raises ends the mirror and is raised.
            keep: False: images that did not fail are only counted, so that the report is small.
            fail_fast: begin no more images after one that failed.
            dry_run: write nothing; what would be copied is WAITING, with blobs that are missing.
            cancel: ends this call when it is set, and no other.
        Raises:
            Cancelled: somebody cancelled; run it again to go on.
            ConcilError: an archive could not be written; it is as it was.
        """
        arguments.callback("on_image", on_image)
        items = checked(items)
        self._parts.stores.referrers.forget()
        with calling(cancel), self._parts.stores.writing(self._progress) as archives:
            manner = Manner(on_image, keep, fail_fast, self._parts.refusals, archives)
            mirror = self._parts.mirror(manner, archives, dry_run=dry_run)
            return mirror.run(items, max(1, self.config.images if self.config.workers else 1))

    def prune(
        self, repository: str, pruning: Pruning, *, cancel: SupportsIsSet | None = None
    ) -> Pruned:
        """Delete tags of a repository or layout whose source is gone; blobs stay.

        Args:
            repository: ``[docker://|http://]host[:port]/name`` or ``oci:DIR``.
            cancel: ends this call when it is set, and no other.
        Returns:
            What became of it; an error of the registry is in it.
        Raises:
            Cancelled: somebody cancelled.
        """
        address = parse_address(arguments.text("repository", repository))
        arguments.instance("pruning", pruning, Pruning)
        with calling(cancel), self._parts.stores.writing(self._progress) as writing:
            return self._parts.prune(address, pruning, writing)

    def tags(self, address: str) -> Iterator[str]:
        """Yield the tags of a repository, or the names in a layout or archive, page by page.

        Raises:
            NotFound: there is no such repository, layout or archive.
        """
        yield from self._parts.opening.tags(parse_address(address), self._parts.refusals)

    def repositories(self, registry: str) -> Iterator[str]:
        """Yield the repositories of ``[http://]host[:port]``, if it lists them."""
        return self._parts.opening.repositories(
            arguments.text("registry", registry), self._parts.refusals
        )

    def open_layer(self, address: str) -> layer.LayerArchive:
        """Open a layer as a `tarfile.TarFile` in stream mode; its end verifies all bytes.

        Use it in a ``with``, in the thread that called: no worker is used.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest`` or ``oci:DIR@digest``.
        Raises:
            NotFound, UsageError: there is no such blob, or the address has no digest.
            ContentError: it is not a tar archive.
        """
        reference = parse_address(address)
        return layer.open_stored(
            self._parts.opening.source(reference), reference, self._parts.run, self._progress
        )

    @property
    def warnings(self) -> tuple[RegistryWarning, ...]:
        """What registries have said in Warning headers so far, once for each host and text."""
        return self._parts.stores.warnings.all()

    def begin_blobs_by(self, begin: Begin) -> None:
        """Let ``begin`` decide when a blob of an image is moved, beside other engines."""
        self._parts.copier.blobs.begin = begin

    def listing(self, address: str) -> Iterator[tuple[str, Digest | None]]:
        """Yield images by name as `tags` does, "" for none; digests where that costs nothing."""
        yield from listing(self._parts.opening.source(parse_address(address)))

    def cancel(self) -> None:
        """Stop soon; calls under way raise Cancelled, chunks in flight may end until `close`."""
        self._parts.run.cancel.set()

    def close(self, timeout: float | None = None) -> bool:
        """End the workers and close the connections, and the journal unless it was given.

        Args:
            timeout: seconds to let chunks in flight end after `cancel`; None: until all
                that runs has ended.
        Returns:
            Whether all of it has ended.
        """
        self._closed = True
        ended = self._parts.pool.close(timeout)
        if not ended:
            self._parts.run.abandon.set()
            ended = self._parts.pool.close(LAST_GRACE)
        self._parts.release(journal=self._owns_journal)
        return ended
