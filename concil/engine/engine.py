"""Engine: pushes, pulls, copies and mirrors."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from concil.config import Timeouts, TransferConfig
from concil.engine import layer
from concil.engine.components import EngineComponents
from concil.engine.copy_methods import CopyMethods
from concil.engine.image_methods import ImageMethods
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import list_images
from concil.errors import UsageError
from concil.fs.local_file import LocalFile, check_writable
from concil.http.warning_header import RegistryWarning
from concil.oci.address import parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.progress.events import ProgressSink
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.runtime.forking import register_after_fork
from concil.transfer.blob.transfer import BlobStarter
from concil.transfer.journal import Journal
from concil.transfer.mirror.mirror import MirrorOptions, check_items
from concil.transfer.mirror.prune import PruneOptions, PruneResult
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome

GRACE_PERIOD = 10.0  # seconds for chunks in flight after an error
ABANDON_GRACE_PERIOD = 2.0  # seconds for threads to notice that they are abandoned


class Engine(CopyMethods, ImageMethods):
    """Worker threads, connections and settings of one run. Any thread may call any method.

    Use it in a ``with`` block, or call `close`. Do not call the engine from a progress callback
    that runs in a worker: this deadlocks.

    A call that ends by an exception, including KeyboardInterrupt, leaves nothing running, except
    that a chunk in flight may finish for some seconds. Setting ``cancel``, a ``threading.Event``,
    ends one call, which raises Cancelled. In both cases the engine remains usable, and repeating
    the call resumes the interrupted transfers. An exception in a callback ends its call and is
    raised by it.

    After a fork the child creates its own workers and connections.
    """

    def __init__(
        self,
        config: TransferConfig | None = None,
        *,
        progress: ProgressSink | None = None,
        endpoints: Endpoints | None = None,
        timeouts: Timeouts | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Create the engine without opening connections.

        Args:
            progress: called with an `Event` for every change, from any thread.
            endpoints: TLS settings and credentials; those in an address take precedence.
            journal: makes interrupted transfers resumable in another process; None: the
                user's default journal. ``Journal(None)`` records nothing. The caller closes
                a journal that is passed in.
        """
        arguments.check_callable("progress", progress)
        arguments.check_optional(config=(config, TransferConfig), endpoints=(endpoints, Endpoints))
        arguments.check_optional(timeouts=(timeouts, Timeouts), journal=(journal, Journal))
        self.config = config or TransferConfig()
        self._closed = True  # until it is fully created
        self._progress = progress
        self._endpoints = endpoints or Endpoints()
        self._timeouts = timeouts
        self._owns_journal = journal is None
        self._journal = journal or Journal(Journal.default_path())
        self._create_components()
        self._owner_pid = os.getpid()
        self._closed = False
        register_after_fork(self, Engine._after_fork)

    def _create_components(self) -> None:
        """Create the objects that calls share, without threads or connections."""
        self._components = EngineComponents.create(
            self.config, self._journal, self._endpoints, self._timeouts, self._progress
        )

    def _after_fork(self) -> None:
        """Create new components in a forked child, which cannot use the parent's."""
        parent = self._components
        is_cancelled = parent.transfer_context.cancel.is_set()
        parent.abandon_after_fork()
        if self._closed:
            return
        self._create_components()
        self._components.copier.deduplicator.starter = parent.copier.deduplicator.starter
        if is_cancelled:
            self.cancel()

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: threads and connections cannot be pickled."""
        raise TypeError("an Engine cannot be pickled: create one in the process that uses it")

    def __del__(self) -> None:
        """Stop the workers of an unclosed engine, with a ResourceWarning."""
        if getattr(self, "_closed", True):
            return
        # Otherwise it may have been created for use in another process.
        if self._owner_pid == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        if not sys.is_finalizing():  # else the threads have ended while holding locks
            self._components.stop_workers()
            self._components.close_resources(close_journal=self._owns_journal)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine; after an error cancel queued jobs, and wait only briefly."""
        if error is not None:
            self.cancel()
        self.close(None if error is None else GRACE_PERIOD)

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
            digest: expected digest, which is always verified; None: compute it. In that case
                a file that was pushed before and has not changed is not read if the registry
                has the blob.
            cancel: when set, cancels this call only.
        Returns:
            A descriptor of the blob, of type application/octet-stream.
        Raises:
            UsageError: the file does not exist, or the address is not of a registry.
            DigestMismatch, FileChanged: nothing was committed.
            Cancelled: the call was cancelled; push again to resume.
        """
        name = arguments.check_str("repository", repository)
        expected_digest = None if digest is None else Digest.from_argument("digest", digest)
        with call_scope(cancel):
            return self._components.file_blobs.push(
                LocalFile(path),
                self._components.image_resolver.open_repository(name),
                expected_digest,
            )

    def pull_blob(
        self, address: str, path: str | os.PathLike[str], *, cancel: SupportsIsSet | None = None
    ) -> Descriptor:
        """Download a blob into a local file by parallel ranges, verified before it appears.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest``.
            cancel: when set, cancels this call only.
        Raises:
            UsageError: the address has no digest, or the path is a directory.
            NotFound, DigestMismatch, StoreError: no file was created.
            Cancelled: the call was cancelled; pull again to resume.
        """
        reference = parse_address(address)
        if reference.digest is None:
            raise UsageError(f"{address} has no digest", remedy="write REPOSITORY@sha256:...")
        with call_scope(cancel):
            store = self._components.image_resolver.open_source(reference)
            target = check_writable(Path(arguments.to_path("path", path)))
            return self._components.file_blobs.pull(store, reference, target)

    def mirror(  # noqa: PLR0913 - each an option of its own
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep_outcomes: bool = True,
        fail_fast: bool = False,
        dry_run: bool = False,
        cancel: SupportsIsSet | None = None,
    ) -> MirrorReport:
        """Copy many images; a failure is an entry of the report.

        Args:
            items: taken lazily, a few at a time.
            on_image: called with the outcome of each image when it is in place, for images in
                archives at the end; from several threads, one call at a time. An exception
                ends the mirror and is raised.
            keep_outcomes: False: only count images that did not fail, to keep the report small.
            fail_fast: start no further images after a failure.
            dry_run: write nothing; images to copy are WAITING, with their missing blobs.
            cancel: when set, cancels this call only.
        Raises:
            Cancelled: the call was cancelled; run it again to resume.
            ConcilError: an archive could not be written and is unchanged.
        """
        arguments.check_callable("on_image", on_image)
        items = check_items(items)
        self._components.store_factory.shared_referrers.clear()
        with self._components.archive_call(cancel) as archives:
            options = MirrorOptions(
                on_image, keep_outcomes, fail_fast, self._components.denied_hosts, archives
            )
            mirror = self._components.create_mirror(options, archives, dry_run=dry_run)
            coordinators = self.config.concurrent_images if self.config.workers else 1
            return mirror.run(items, max(1, coordinators))

    def prune(
        self, repository: str, pruning: PruneOptions, *, cancel: SupportsIsSet | None = None
    ) -> PruneResult:
        """Delete tags of a repository or layout that no longer exist at the source; keep blobs.

        Args:
            repository: ``[docker://|http://]host[:port]/name`` or ``oci:DIR``.
            cancel: when set, cancels this call only.
        Returns:
            The result, which includes an error of the registry.
        Raises:
            Cancelled: the call was cancelled.
        """
        address = parse_address(arguments.check_str("repository", repository))
        arguments.check_instance("pruning", pruning, PruneOptions)
        with self._components.archive_call(cancel) as archives:
            return self._components.prune(address, pruning, archives)

    def open_layer(self, address: str) -> layer.LayerArchive:
        """Open a layer as a `tarfile.TarFile` in stream mode; closing it verifies all bytes.

        Use it in a ``with`` block, in the calling thread; no worker is used.

        Args:
            address: ``[docker://|http://]host[:port]/name@digest`` or ``oci:DIR@digest``.
        Raises:
            NotFound, UsageError: there is no such blob, or the address has no digest.
            ContentError: it is not a tar archive.
        """
        reference = parse_address(address)
        return layer.open_layer(
            self._components.image_resolver.open_source(reference),
            reference,
            self._components.transfer_context,
            self._progress,
        )

    @property
    def warnings(self) -> tuple[RegistryWarning, ...]:
        """Warnings that registries sent in Warning headers so far, once per host and text."""
        return self._components.store_factory.warnings.list()

    def set_blob_starter(self, starter: BlobStarter) -> None:
        """Let ``starter`` schedule the transfers of blobs, to coordinate several engines."""
        self._components.copier.deduplicator.starter = starter

    def list_images(self, address: str) -> Iterator[tuple[str, Digest | None]]:
        """Yield image names, "" for unnamed ones, with digests where these need no request."""
        yield from list_images(self._components.image_resolver.open_source(parse_address(address)))

    def cancel(self) -> None:
        """Cancel all calls, which raise Cancelled; chunks in flight may finish until `close`."""
        self._components.transfer_context.cancel.set()

    def close(self, timeout: float | None = None) -> bool:
        """Stop the workers and close the connections, and the journal unless it was passed in.

        Args:
            timeout: seconds to wait for running jobs to finish; None: without limit.
        Returns:
            Whether all workers have ended.
        """
        self._closed = True
        has_ended = self._components.pool.close(timeout)
        if not has_ended:
            self._components.transfer_context.abandon.set()
            has_ended = self._components.pool.close(ABANDON_GRACE_PERIOD)
        self._components.close_resources(close_journal=self._owns_journal)
        return has_ended
