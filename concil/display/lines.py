"""Composes the lines of the progress display: the header, blobs, paused hosts and images."""

from __future__ import annotations

import math
import re

from concil.display.style import Color, Field, Segment, Style, fit, printable
from concil.progress.events import Event, State
from concil.progress.snapshot import BlobProgress, ImageCounts, PausedHost, ProgressSnapshot
from concil.runtime.quantities import count_of, format_rate, format_size, format_time_left

LARGE_BLOB = 1 << 20  # bytes; smaller blobs count in the header only
_IMAGE_WORDS = {
    State.DONE: ("copied", Color.GREEN),
    State.PRESENT: ("up to date", Color.DIM),
    State.FAILED: ("failed", Color.RED),
}
_STATUS = r"(?:^|: )[45][0-9]{2} [A-Z][A-Za-z' -]*[a-z]"  # "404 Not Found"
_SHORT_DIGEST = 12  # hexadecimal digits
_WORD_WIDTH = max(len(word) for word, _ in _IMAGE_WORDS.values())


def is_shown(blob: BlobProgress) -> bool:
    """Return whether a blob has a row: it is large, or nobody knows how large."""
    return blob.total is None or blob.total >= LARGE_BLOB


def is_resumption(event: Event) -> bool:
    """Return whether the transfer of a large blob is resumed."""
    is_large = event.total is None or event.total >= LARGE_BLOB
    return event.kind == "blob" and event.state is State.STARTED and event.position > 0 and is_large


def compose_resumption(event: Event, *, is_short: bool = False) -> list[Segment]:
    """Return the line of a blob that is resumed.

    Args:
        is_short: with the start of its digest only, as in its row.
    """
    subject = event.subject
    if is_short and event.image:
        subject = subject.rpartition(":")[2][:_SHORT_DIGEST]
    name = printable(f"{event.image} {subject}".strip())
    at, size = format_size(event.position), format_size(event.total or event.position)
    return [Segment("resuming    ", Color.CYAN), Segment(f"{name} at {at} of {size}")]


def compose_header(snapshot: ProgressSnapshot, width: int) -> list[Segment]:
    """Return the line of the totals, in at most ``width`` columns.

    A percentage and a time are shown only once all blobs are known.
    """
    fields = [*_image_fields(snapshot.images), *_byte_fields(snapshot)]
    return fit(fields, width)


def compose_stopping(
    snapshot: ProgressSnapshot, seconds_left: float, hint: str, width: int = 1000
) -> list[Segment]:
    """Return the line that answers an interrupt.

    Args:
        seconds_left: until the command ends at the latest.
        hint: what a second interrupt does.
    """
    count = running_count(snapshot)
    what = f"{count_of(count, 'chunk')} to finish" if count else "waiting for the last requests"
    limit = f"({max(0, math.ceil(seconds_left))} s at most)"
    variants = (
        f"stopping: {what} {limit}; {hint}",
        f"stopping: {what} {limit}",
        f"stopping: {what}",
        "stopping",
    )
    return fit([Field(variants, Color.YELLOW)], width)


def running_count(snapshot: ProgressSnapshot) -> int:
    """Return the number of blobs that are moving."""
    return sum(blob.state is not State.RETRYING for blob in snapshot.active_blobs)


def compose_pause(pause: PausedHost, width: int) -> list[Segment]:
    """Return the line of a paused host, with a countdown."""
    seconds = f"{math.ceil(pause.seconds_left)} s"
    host, reason = printable(pause.host), printable(pause.reason)
    variants = (
        f"{host} paused: {reason}; resuming in {seconds}",
        f"{host} paused: resuming in {seconds}",
        f"{host} paused: {seconds}",
        f"paused: {seconds}",
    )
    return fit([Field(variants, Color.YELLOW)], width)


def compose_image(event: Event, style: Style, width: int) -> list[Segment]:
    """Return the line of an image that has ended; empty if it was cancelled.

    It has at most ``width`` columns, except for the reason of a failure, which is whole.
    """
    if event.state not in _IMAGE_WORDS:
        return []
    word, color = _IMAGE_WORDS[event.state]
    source, target = printable(event.subject), printable(event.target)
    start = Segment(f"{word:<{_WORD_WIDTH}}  ", color)
    if event.state is State.FAILED:
        return [start, Segment(f"{source}: {_short_reason(source, printable(event.detail))}")]
    has_moved = event.state is State.DONE and event.position > 0
    size = f" ({format_size(event.position)})" if has_moved else ""
    room = width - len(start.text)
    shortened = style.shorten_name(source, room - len(size)) + size
    names = Field((f"{source} {style.arrow} {target}{size}", f"{source}{size}", shortened))
    return [start, *fit([names], room)]


def _short_reason(source: str, message: str) -> str:
    """Return why an image failed, without its name and what a registry adds to a status.

    The end of the command says the rest, once for all images with the same reason.
    """
    name = source.rpartition("://")[2]
    reason = message.removeprefix(f"{source}: ").removeprefix(f"cannot read {name}: ")
    status = re.search(_STATUS, reason)
    return reason[: status.end()] if status is not None else reason


def _image_fields(images: ImageCounts) -> list[Field]:
    if images.total is None:
        if images.ended < 2:
            return []
        counted: tuple[str, ...] = (count_of(images.done, "image"), str(images.done))
    else:
        done, total = images.done, images.total
        counted = (f"{done}/{count_of(total, 'image')}", f"{done}/{total}")
    fields = [Field(counted, Color.BOLD, (4,))]
    if images.up_to_date:
        fields.append(Field((f"{images.up_to_date} up to date", ""), Color.DIM, (3,)))
    if images.failed:
        fields.append(Field((f"{images.failed} failed", ""), Color.RED, (9,)))
    return fields


def _byte_fields(snapshot: ProgressSnapshot) -> list[Field]:
    done, total = snapshot.bytes_done, snapshot.bytes_total
    is_known = snapshot.is_total_known and total > 0
    fields = [Field((format_size(done), ""), order=(5,))]
    if is_known:
        sizes = (f"{format_size(done)} of {format_size(total)}", format_size(done), "")
        fields = [Field(sizes, order=(2, 5))]
    if is_known:
        fields.append(Field((f"{100 * done // total}%", ""), Color.BOLD, (8,)))
    if snapshot.is_stalled:
        fields.append(Field(("stalled", ""), Color.YELLOW, (7,)))
    elif snapshot.rate:
        fields.append(Field((format_rate(snapshot.rate), ""), order=(7,)))
    is_moving = not (snapshot.is_stalled or snapshot.paused_hosts)
    if is_known and is_moving and snapshot.rate and done < total:
        left = format_time_left((total - done) / snapshot.rate)
        fields.append(Field((f"{left} left", left, ""), order=(1, 6)))
    return fields
