"""Engine: pushes, pulls, copies and mirrors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from concil.engine.artifact_methods import ArtifactMethods
from concil.engine.blob_methods import BlobMethods
from concil.engine.check import Check
from concil.engine.copy_methods import CopyMethods
from concil.engine.image_methods import ImageMethods
from concil.engine.lifecycle import EngineLifecycle
from concil.engine.processes.process_settings import ProcessCount, count_processes
from concil.engine.store_factory import list_images
from concil.http.warning_header import RegistryWarning
from concil.oci.address import parse_address
from concil.oci.manifest import Digest
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet
from concil.store.layout.garbage import GarbageReport, collect_garbage, open_layout
from concil.transfer.blob.transfer import BlobStarter
from concil.transfer.check.check_run import CheckOptions
from concil.transfer.mirror.mirror import MirrorOptions, check_items
from concil.transfer.mirror.prune import PruneOptions, PruneResult
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome


class Engine(EngineLifecycle, CopyMethods, ImageMethods, BlobMethods, ArtifactMethods):
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

    def mirror(  # noqa: PLR0913 - each an option of its own
        self,
        items: Iterable[MirrorItem],
        *,
        on_image: Callable[[Outcome], object] | None = None,
        keep_outcomes: bool = True,
        fail_fast: bool = False,
        dry_run: bool = False,
        processes: ProcessCount = 1,
        cancel: SupportsIsSet | None = None,
    ) -> MirrorReport:
        """Copy many images; a failure is an entry of the report.

        An image with several destinations is read from its source once (`copy_to`).

        Args:
            items: taken lazily, a few at a time.
            on_image: called with the outcome of each copy when it is in place, for images in
                archives at the end; from several threads, one call at a time. An exception
                ends the mirror and is raised.
            keep_outcomes: False: only count images that did not fail, to keep the report small.
            fail_fast: start no further images after a failure.
            dry_run: write nothing; images to copy are WAITING, with their missing blobs.
            processes: new processes that share the work and the limits, or "auto"; not more
                than there are images, workers or jobs of a host. A dry run uses none.
            cancel: when set, cancels this call only.
        Raises:
            Cancelled: the call was cancelled; run it again to resume.
            ConcilError: an archive could not be written and is unchanged.
        """
        arguments.check_callable("on_image", on_image)
        components, items = self._components, check_items(items)
        components.store_factory.forget_tags()
        options = MirrorOptions(on_image, keep_outcomes, fail_fast, components.denied_hosts)
        # Not for one image.
        from concil.engine.copies.mirror_run import plan_mirror, run_mirror  # noqa: PLC0415

        if dry_run:
            return plan_mirror(components, items, options, cancel)
        return run_mirror(
            components, items, options, cancel, count_processes(processes, self.config)
        )

    def check(  # noqa: PLR0913 - each an option of its own
        self,
        items: Iterable[MirrorItem | str],
        *,
        deep: bool = False,
        repair: bool = False,
        resume: bool = True,
        on_image: Callable[[Outcome], object] | None = None,
        keep_outcomes: bool = True,
        cancel: SupportsIsSet | None = None,
    ) -> MirrorReport:
        """Check whether images are complete and whole at their destinations.

        Args:
            items: images with their sources, or addresses of images without any: then only the
                content is checked. A layout or archive means every image in it.
            deep: read and hash every blob; False: read the manifests, and look the blobs up.
            repair: copy again what is missing, damaged or behind.
            resume: a deep check does not read again what an interrupted one has verified within
                the last day.
            on_image, keep_outcomes, cancel: as for `mirror`.
        Returns:
            A report whose results have a ``condition`` and ``findings``.
        Raises:
            UsageError: ``repair`` without a source, or in an archive.
            Cancelled: the call was cancelled; check again to resume.
        """
        arguments.check_callable("on_image", on_image)
        options = CheckOptions(deep, repair, resume)
        with self._components.archive_call(cancel) as archives:
            mirror_options = MirrorOptions(
                on_image,
                keep_outcomes,
                denied_hosts=self._components.denied_hosts,
                pending_destinations=archives,
            )
            coordinators = self.config.concurrent_images if self.config.workers else 1
            check = Check(self._components, options, archives)
            return check.run(items, mirror_options, max(1, coordinators))

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

    def collect_garbage(
        self, layout: str, *, dry_run: bool = True, min_age: float = 3600.0
    ) -> GarbageReport:
        """Remove the files of a layout that no image in its index needs.

        Args:
            layout: ``oci:DIR``.
            dry_run: only list them.
            min_age: seconds; younger files are kept, as another program may be about to name them.
        Raises:
            StoreError: something is writing to the layout, or a manifest in it is damaged.
            UsageError: the address is not that of a layout directory.
        """
        return collect_garbage(
            open_layout(arguments.check_str("layout", layout)), dry_run=dry_run, min_age=min_age
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
