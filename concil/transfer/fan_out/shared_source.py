"""SharedSource: the source of an image as one of several lanes sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from concil.config import MIB
from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.ratelimit.bandwidth import ThrottledReader
from concil.store.base_store import BaseStore
from concil.transfer.context import TransferContext
from concil.transfer.fan_out.fan_out import FanOut
from concil.transfer.image.foreign_layers import source_for
from concil.transfer.image.job import ImageJob

_Result = TypeVar("_Result")
_MAX_CACHED_BYTES = 16 * MIB  # bytes of manifests


class SharedAnswers:
    """Answers of a source that all lanes share, so that they copy the same image. Any thread."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()  # guards the fields below
        self._locks: dict[Hashable, threading.Lock] = {}
        self._answers: dict[Hashable, Any] = {}
        self._size = 0  # bytes of manifests

    def get(self, key: Hashable, read: Callable[[], _Result]) -> _Result:
        """Return the answer to a request, which only one lane sends; an error is not kept."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._answers:
                answer: _Result = self._answers[key]
                return answer
            answer = read()
            size = len(answer.body) if isinstance(answer, Manifest) else 0
            with self._lock:
                if self._size + size <= _MAX_CACHED_BYTES:
                    self._size += size
                    self._answers[key] = answer
            return answer


class SharedSource(BaseStore):
    """A source whose blobs and manifests are read once for all lanes. Any thread."""

    is_shared = True

    def __init__(
        self,
        job: ImageJob,
        lane: str,
        fan_out: FanOut,
        answers: SharedAnswers,
        context: TransferContext,
    ) -> None:
        """Read the source of ``job`` for one lane."""
        source = job.source
        self.name = source.name
        self.host = source.host
        self.repository = source.repository
        self.lists_referrers = source.lists_referrers
        self._job = job
        self._source = source
        self._lane = lane
        self._fan_out = fan_out
        self._answers = answers
        self._context = context

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up a tag or digest, once for all lanes."""
        return self._answers.get(("find", reference), lambda: self._source.find_manifest(reference))

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest, once for all lanes."""
        return self._answers.get(("get", reference), lambda: self._source.get_manifest(reference))

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open a blob, whose bytes are read by the lane that needs them first."""
        opener = partial(source_for(self._job, blob).open_blob, blob)
        return self._fan_out.open_blob(self._lane, blob, self._throttled(opener), start, stop)

    def release_blob(self, blob: Descriptor) -> None:
        """Record that the lane has, or has given up, a blob."""
        self._fan_out.release_blob(self._lane, blob.digest)

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the listed referrers of ``subject``, listed once for all lanes."""
        key = "referrers", subject, image_reference
        return self._answers.get(key, lambda: self._source.referrers(subject, image_reference))

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return references made of a digest and a suffix."""
        return self._source.digest_tags(subject, image_reference)

    def is_access_denied(self) -> bool:
        """Return whether the source has denied all access."""
        return self._source.is_access_denied()

    def may_read_unannounced(self, *, is_single: bool) -> bool:
        """Return what the source returns."""
        return self._source.may_read_unannounced(is_single=is_single)

    def check_blob(self, blob: Descriptor, /) -> None:
        """Check that the source has a blob."""
        self._source.check_blob(blob)

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


def share_source(
    job: ImageJob, lane: str, fan_out: FanOut, answers: SharedAnswers, context: TransferContext
) -> ImageJob:
    """Return a job that reads its source together with the jobs of other lanes."""
    source = SharedSource(job, lane, fan_out, answers, context)
    return replace(job, source=source, open_foreign_layer=None)
