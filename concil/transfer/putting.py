"""In which order the manifests of an image are put, and of what refers to it."""

from __future__ import annotations

import logging

from concil.content import Manifest
from concil.errors import RegistryError, StatusError
from concil.transfer.graph import Node
from concil.transfer.job import Attached, ForeignLayers, ImageJob, Load

logger = logging.getLogger(__name__)

# How registries refuse a referrer before its subject is there, against the specification.
_NO_SUBJECT = frozenset({400, 404, 409, 412, 422})


def put(job: ImageJob, load: Load) -> None:
    """Put the manifests, what is referred to after what refers to it, the tag last.

    A policy that admits only signed images looks for the signature as soon as it sees the
    image. So nobody may see it earlier, neither by tag nor by digest: signatures come
    first, and signatures of an SBOM before the SBOM. The specification lets a manifest
    have a subject that is not there yet. Where a registry does not, the image comes before
    them by its digest, and its tag, which is what people look for, is still the last.

    Source: distribution-spec, "Pushing Manifests with Subject".
    """
    late = []
    for one in sorted(load.attached, key=lambda one: -one.depth):
        try:
            _put_attached(job, one)
        except StatusError as error:
            if error.status not in _NO_SUBJECT or "BLOB_UNKNOWN" in str(error):
                raise
            logger.debug("%s: %s; once more behind its subject", job.subject, error)
            late.append(one)
    node = load.node
    if node is not None:
        _put_below(job, node)
        if late and not node.is_there:
            _put(job, node.manifest, str(node.digest))
    for one in reversed(late):
        _put_attached(job, one)
    if node is not None and not node.is_there:
        _put(job, node.manifest, job.destination_reference or "")


def _put_attached(job: ImageJob, attached: Attached) -> None:
    _put_below(job, attached.node)
    if not attached.node.is_there:
        _put(job, attached.node.manifest, attached.reference)


def _put_below(job: ImageJob, node: Node) -> None:
    for child in node.children:
        for each in child.walk():
            if not each.is_there:
                _put(job, each.manifest, str(each.digest))


def _put(job: ImageJob, manifest: Manifest, reference: str) -> None:
    try:
        job.destination.put_manifest(manifest, reference)
    except StatusError as error:
        foreign = any(blob.is_foreign for blob in manifest.blobs())
        if not foreign or "BLOB_UNKNOWN" not in str(error):
            raise
        if error.final:
            # No blob is missing that could be moved.
            raise RegistryError(
                f"{job.target}: the registry does not want its foreign layers: {error}",
                remedy="distribution 2.8 wants each to have URLs, and those to be allowed by"
                " validation.manifests.urls.allow in its configuration",
            ) from error
        if job.foreign is ForeignLayers.SKIP:
            error.remedy = 'the registry wants foreign layers, too: foreign_layers="source"'
        raise
