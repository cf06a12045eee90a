"""SharedSource: the source of an image as one of several lanes sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.ratelimit.bandwidth import ThrottledReader
from concil.store.source_wrapper import SourceWrapper
from concil.transfer.context import TransferContext
from concil.transfer.fan_out.fan_out import FanOut
from concil.transfer.fan_out.shared_image import SharedImage
from concil.transfer.image.foreign_layers import source_for
from concil.transfer.image.job import ImageJob


class SharedSource(SourceWrapper):
    """A source whose blobs and manifests are read once for all lanes. Any thread."""

    is_shared = True
    reads_in_order = True

    def __init__(  # noqa: PLR0913, PLR0917 - an image, and who shares it
        self,
        job: ImageJob,
        lane: str,
        fan_out: FanOut,
        image: SharedImage,
        context: TransferContext,
        finish: Callable[[], None],
    ) -> None:
        """Read the source of ``job`` for one lane."""
        super().__init__(job.source)
        self._job = job
        self._lane = lane
        self._fan_out = fan_out
        self._image = image
        self._answers = image.answers
        self._context = context
        self.finish = finish  # call it once the lane reads the image no more

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up a tag or digest, once for all lanes."""
        return self._answers.get(("find", reference), lambda: self._source.find_manifest(reference))

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest, once for all lanes."""
        return self._answers.get(("get", reference), lambda: self._source.get_manifest(reference))

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open a blob, whose bytes are read by the lane that needs them first."""
        opener = partial(source_for(self._job, blob).open_blob, blob)
        return self._fan_out.open_blob(
            self._image, self._lane, blob, self._throttled(opener), start, stop
        )

    def release_blob(self, blob: Descriptor) -> None:
        """Record that the lane has, or has given up, a blob."""
        self._fan_out.release_blob(self._image, self._lane, blob.digest)

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the listed referrers of ``subject``, listed once for all lanes."""
        key = "referrers", subject, image_reference
        return self._answers.get(key, lambda: self._source.referrers(subject, image_reference))

    def _throttled(self, opener: RangeOpener) -> RangeOpener:
        """Return an opener within the bandwidth limit of the source's host.

        The limit of the run and that of a destination apply to what each lane reads.
        """
        limiter = self._context.bandwidth.limiter_for(self.host) if self.host else None
        if limiter is None:
            return opener

        def open_throttled(start: int, stop: int | None = None, /) -> BlobReader:
            return ThrottledReader(opener(start, stop), (limiter,), self._context.abandon)

        return open_throttled


def share_source(  # noqa: PLR0913, PLR0917 - an image, and who shares it
    job: ImageJob,
    lane: str,
    fan_out: FanOut,
    image: SharedImage,
    context: TransferContext,
    finish: Callable[[], None],
) -> ImageJob:
    """Return a job that reads its source together with the jobs of other lanes."""
    source = SharedSource(job, lane, fan_out, image, context, finish)
    return replace(job, source=source, open_foreign_layer=None)
