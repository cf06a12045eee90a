"""Compares an image at its source and destination."""

from __future__ import annotations

import logging

import requests

from concil.errors import StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.transfer.image.history import CopiedImage, History
from concil.transfer.image.job import (
    ImageJob,
)

logger = logging.getLogger(__name__)


def compare_image(
    job: ImageJob, history: History
) -> tuple[Descriptor | None, Descriptor | None, Digest | None]:
    """Compare an image at the source with its reference at the destination.

    Returns:
        The descriptor at the source, None for an immutable image that was copied before; the
        descriptor at the destination; and the destination's digest if it is up to date.
    Raises:
        NotFound: the source has no such image.
    """
    # With referrers it is always checked: it may have been signed meanwhile.
    may_be_recorded = (job.immutable or bool(job.platforms)) and not job.referrers
    recorded = history.find_image(job.key) if may_be_recorded else None
    may_skip = job.immutable and not job.recheck
    if may_skip and recorded is not None and is_still_present(job, recorded):
        return None, None, recorded.destination
    source = job.source.find_manifest(job.source_reference)
    if source is None:
        # This raises NotFound with a specific message, such as the names in a layout.
        source = job.source.get_manifest(job.source_reference).descriptor
    existing = find_at_destination(job)
    if existing is None:
        return source, None, None
    is_same = existing.digest == source.digest and not job.platforms
    if is_same or recorded == CopiedImage(source.digest, existing.digest):
        return source, existing, existing.digest
    return source, existing, None


def find_at_destination(job: ImageJob) -> Descriptor | None:
    """Find the image's reference at the destination; None: missing or unreadable."""
    try:
        return job.destination.find_manifest(job.destination_reference)
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
