"""Puts the manifests of an image and its referrers in order."""

from __future__ import annotations

import logging

from concil.errors import RegistryError, StatusError
from concil.oci.manifest import Manifest
from concil.transfer.image.graph import Node
from concil.transfer.image.job import ForeignLayers, ImageJob, ImagePlan, ReferrerNode

logger = logging.getLogger(__name__)

# Refusals of a referrer whose subject does not exist yet, against the specification.
_MISSING_SUBJECT_STATUS = frozenset({400, 404, 409, 412, 422})


def publish(job: ImageJob, plan: ImagePlan) -> None:
    """Put the manifests: referrers before their subjects, the tag last.

    A policy that admits only signed images looks for the signature as soon as the image
    appears. So the image must not be visible earlier, neither by tag nor by digest: its
    signatures are put first, and signatures of an SBOM before the SBOM. The specification
    allows a manifest whose subject does not exist yet. If a registry refuses that, the image
    is put by digest before its referrers, and its tag is still written last.

    Source: distribution-spec, "Pushing Manifests with Subject".
    """
    postponed = []
    for referrer in sorted(plan.referrers, key=lambda referrer: -referrer.depth):
        try:
            _put_referrer(job, referrer)
        except StatusError as error:
            if error.status not in _MISSING_SUBJECT_STATUS or "BLOB_UNKNOWN" in str(error):
                raise
            logger.debug("%s: %s; writing it again after its subject", job.source_name, error)
            postponed.append(referrer)
    node = plan.node
    if node is not None:
        _put_children(job, node)
        if postponed and not node.is_present:
            _put_manifest(job, node.manifest, str(node.digest))
    for referrer in reversed(postponed):
        _put_referrer(job, referrer)
    if node is not None and not node.is_present:
        _put_manifest(job, node.manifest, job.destination_reference or "")


def _put_referrer(job: ImageJob, referrer: ReferrerNode) -> None:
    _put_children(job, referrer.node)
    if not referrer.node.is_present:
        _put_manifest(job, referrer.node.manifest, referrer.reference)


def _put_children(job: ImageJob, node: Node) -> None:
    for child in node.children:
        for descendant in child.walk():
            if not descendant.is_present:
                _put_manifest(job, descendant.manifest, str(descendant.digest))


def _put_manifest(job: ImageJob, manifest: Manifest, reference: str) -> None:
    try:
        job.destination.put_manifest(manifest, reference)
    except StatusError as error:
        has_foreign_layers = any(blob.is_foreign for blob in manifest.blobs())
        if not has_foreign_layers or "BLOB_UNKNOWN" not in str(error):
            raise
        if error.is_permanent:
            # No transfer of a blob would help.
            raise RegistryError(
                f"{job.destination_name}: the registry refuses its foreign layers: {error}",
                remedy="distribution 2.8 requires URLs for each of them, which "
                "validation.manifests.urls.allow in its configuration must allow",
            ) from error
        if job.foreign_layers is ForeignLayers.SKIP:
            error.remedy = 'the registry requires foreign layers, too: foreign_layers="source"'
        raise
