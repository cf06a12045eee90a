"""Describes what an interrupted command has done, and what can be resumed."""

from __future__ import annotations

from collections.abc import Sequence

from concil.cli.output.errors import INTERRUPTED_MESSAGE, RESUME_REMEDY
from concil.runtime.quantities import count_of, format_size

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from concil.progress.snapshot import BlobProgress, ImageCounts, ProgressSnapshot


def describe_interruption(snapshot: ProgressSnapshot | None) -> str:
    """Return the last line of an interrupted command.

    Args:
        snapshot: the totals at its end; None: nothing was transferred.
    """
    if snapshot is None:
        return INTERRUPTED_MESSAGE
    images = snapshot.images
    parts = [_count_images(images)] if images.total is not None or images.ended > 1 else []
    if snapshot.resumable_blobs:
        parts.append(_describe_resumable(snapshot.resumable_blobs))
    cut_off = sum(blob.position > 0 for blob in snapshot.active_blobs)
    if cut_off:
        parts.append(f"{count_of(cut_off, 'transfer')} cut off")
    if not parts:
        return INTERRUPTED_MESSAGE
    return f"concil: interrupted: {'; '.join(parts)}; {RESUME_REMEDY}"


def _count_images(images: ImageCounts) -> str:
    """Return how many images are done."""
    if images.total is None:
        text = f"{count_of(images.done, 'image')} done"
    else:
        text = f"{images.done} of {count_of(images.total, 'image')} done"
    if images.up_to_date:
        text += f" ({images.up_to_date} up to date)"
    return f"{text}, {images.failed} failed" if images.failed else text


def _describe_resumable(blobs: Sequence[BlobProgress]) -> str:
    """Return how many transfers can be resumed, and where."""
    present = format_size(sum(blob.position for blob in blobs))
    size = format_size(sum(blob.total or blob.position for blob in blobs))
    return f"{count_of(len(blobs), 'transfer')} can be resumed at {present} of {size}"
