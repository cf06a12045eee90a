"""Compares an image at its source and destination."""

from __future__ import annotations

import logging

import requests

from concil.errors import StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.transfer.image.history import CopiedImage, History
from concil.transfer.image.job import ImageJob
from concil.transfer.image.manifest_cache import ManifestCache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PresentImage:
    """An image that is up to date, and of which nothing else has to be checked."""

    digest: Digest  # at the destination
    source_digest: Digest | None  # None: the source was not asked
    # What the source had when the image was copied, of an image that is never checked again.
    recorded_source_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class ComparedImage:
    """An image that has to be copied, or checked further."""

    source: Descriptor
    existing: Descriptor | None  # what the destination has under the image's reference
    present_digest: Digest | None  # at the destination, if it is up to date

    def is_tagged(self, digest: Digest) -> bool:
        """Return whether the image's reference at the destination has this digest."""
        return self.existing is not None and self.existing.digest == digest


def compare_image(
    job: ImageJob, history: History, manifest_cache: ManifestCache
) -> PresentImage | ComparedImage:
    """Compare an image at the source with its reference at the destination.

    If the destination lacks it, its manifest is needed, and is read without a lookup before.

    Raises:
        NotFound: the source has no such image.
    """
    # With referrers it is always checked: it may have been signed meanwhile.
    may_be_recorded = (job.immutable or bool(job.platforms)) and not job.referrers
    recorded = history.find_image(job.key) if may_be_recorded else None
    may_skip = job.immutable and not job.recheck
    if may_skip and recorded is not None and is_still_present(job, recorded):
        return PresentImage(recorded.destination, None, recorded.source)
    existing = find_at_destination(job, history)
    if existing is not None and not job.overwrite:
        return PresentImage(existing.digest, None)
    if existing is None and job.source.may_read_unannounced(is_single=job.is_single):
        return ComparedImage(manifest_cache.find_and_read(job), None, None)
    return _compare_with_source(job, existing, recorded)


def _compare_with_source(
    job: ImageJob, existing: Descriptor | None, recorded: CopiedImage | None
) -> PresentImage | ComparedImage:
    """Look the image up at the source, and compare it with ``existing``."""
    source = job.source.find_manifest(job.source_reference)
    if source is None:
        # This raises NotFound with a specific message, such as the names in a layout.
        source = job.source.get_manifest(job.source_reference).descriptor
    if existing is None:
        return ComparedImage(source, None, None)
    is_same = existing.digest == source.digest and not job.platforms
    if not is_same and recorded != CopiedImage(source.digest, existing.digest):
        return ComparedImage(source, existing, None)
    if job.referrers or job.recheck:
        return ComparedImage(source, existing, existing.digest)
    return PresentImage(existing.digest, source.digest)


def find_at_destination(job: ImageJob, history: History) -> Descriptor | None:
    """Find the image's reference at the destination; None: missing or unreadable.

    Tags that must not be replaced are always looked up by name, because a list of tags may be
    out of date.
    """
    may_be_listed = (
        bool(job.destination.host) and job.overwrite and not (job.is_single or job.immutable)
    )
    is_probably_new = may_be_listed and history.find_image(job.key) is None
    try:
        return job.destination.find_existing(
            job.destination_reference, is_probably_new=is_probably_new
        )
    except StatusError as error:
        # Distribution's response for a damaged file or link, which can be rewritten.
        if error.status != requests.codes.server_error:
            raise
        logger.warning("%s: %s; copying the image again", job.destination_name, error)
        return None


def is_still_present(job: ImageJob, copied: CopiedImage) -> bool:
    """Whether an immutable image is still present; only local destinations are checked."""
    if job.destination.host:
        return True
    existing = job.destination.find_manifest(job.destination_reference)
    return existing is not None and existing.digest == copied.destination
