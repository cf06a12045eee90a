"""ImageResult: the outcome of copying one image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import field

from concil.oci.manifest import Digest
from concil.progress.events import State
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.findings import Condition, Finding
from concil.transfer.image.job import (
    ForeignLayers,
    ImageJob,
    ImagePlan,
    format_count,
)

__all__ = ["ImageResult", "build_result"]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The result of copying one image."""

    source: str
    destination: str
    state: State  # DONE or PRESENT; WAITING: a dry run or check found something to copy
    digest: Digest  # of the manifest under the destination's reference
    blobs: tuple[BlobResult, ...] = ()
    manifests: int = 0  # that were put
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())  # differences from the source
    referrers: int = 0  # signatures and the like that were copied
    skipped_foreign_layers: int = 0
    condition: Condition | None = None  # at the destination; None: it was not checked
    findings: tuple[Finding, ...] = ()  # of a check

    @property
    def missing_bytes(self) -> int:
        """Bytes of blobs that a dry run found missing at the destination."""
        return sum(result.blob.size for result in self.blobs if result.state is State.WAITING)

    @property
    def bytes_sent(self) -> int:
        """Bytes of blobs that were transferred for this image."""
        return sum(result.bytes_sent for result in self.blobs)


def build_result(
    job: ImageJob, plan: ImagePlan, digest: Digest, results: Sequence[BlobResult], start_time: float
) -> ImageResult:
    """Return the result of an executed plan."""
    is_present = not plan.missing_manifests and all(
        result.state is State.PRESENT for result in results
    )
    skipped = plan.foreign_layer_count if job.foreign_layers is ForeignLayers.SKIP else 0
    notes = (f"{format_count(skipped, 'foreign layer')} skipped",) if skipped else ()
    return ImageResult(
        job.source_name,
        job.destination_name,
        State.PRESENT if is_present else State.DONE,
        digest,
        () if is_present else tuple(results),
        manifests=plan.missing_manifests,
        seconds=0.0 if is_present else time.monotonic() - start_time,
        notes=plan.notes + notes,
        referrers=plan.new_referrers,
        skipped_foreign_layers=skipped,
    )
