"""Builds the JSON data of the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from concil import __version__
from concil.progress.destinations import DestinationTotals
from concil.progress.events import State
from concil.report.html.records import ImageSpan, Transfer
from concil.report.html.sampling import QueueDepth, Throughput
from concil.runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TimelineData:
    """The recorded data of a run."""

    title: str
    start_time: datetime
    seconds: float
    complete: bool
    lanes: Sequence[str]  # thread names
    transfers: Sequence[Transfer]
    images: Sequence[ImageSpan]
    dropped_counts: tuple[int, int]  # (transfers, images)
    counts: dict[tuple[str, State], int]  # by kind and final state
    bytes: dict[State, int]  # of blobs, by final state
    destinations: DestinationTotals  # by final state of the images
    interruption_count: int
    expected_images: int
    throughput: Throughput
    queue_depth: QueueDepth


class _StringTable:
    """Stores each text once; columns refer to its index. Images of a mirror share most texts."""

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._indexes: dict[str, int] = {}

    def index_of(self, text: str) -> int:
        """Return the index of a text."""
        if text not in self._indexes:
            self._indexes[text] = len(self.strings)
            self.strings.append(text)
        return self._indexes[text]


def build_document(data: TimelineData, *, numbered: bool = False) -> dict[str, object]:
    """Return the data of the page; times are in milliseconds since the start of the run.

    Args:
        numbered: with the numbers of the records, by which later changes refer to them.
    """
    strings = _StringTable()
    document: dict[str, object] = {
        "concil": __version__,
        "title": data.title,
        "started": data.start_time.isoformat(timespec="seconds"),
        "milliseconds": _ms(data.seconds),
        "complete": data.complete,
        "lanes": [name.removeprefix("concil-") for name in data.lanes],
        "totals": _build_totals(data),
        "throughput": {
            "bucketWidth": _ms(data.throughput.bucket_width),
            "bytes": [round(count, 1) for count in data.throughput.buckets],
        },
        "queueDepth": {
            "bucketWidth": _ms(data.queue_depth.bucket_width),
            "maximum": data.queue_depth.buckets,
        },
        "transfers": _transfer_columns(data.transfers, strings),
        "images": _image_columns(data.images, strings),
        "strings": strings.strings,  # filled by the columns above
    }
    if numbered:
        document["transferNumbers"] = [transfer.number for transfer in data.transfers]
        document["imageNumbers"] = [image.number for image in data.images]
    return document


def _build_totals(data: TimelineData) -> dict[str, object]:
    def counts(kind: str) -> dict[str, int]:
        return {state: data.counts.get((kind, state), 0) for state in State if state.is_final}

    return {
        "images": counts("image"),
        "expectedImages": data.expected_images,
        "blobs": counts("blob"),
        "bytes": {state: data.bytes.get(state, 0) for state in State if state.is_final},
        "interruptions": data.interruption_count,
        "destinations": [
            {
                "name": name,
                **{state: count[state] for state in (State.DONE, State.PRESENT, State.FAILED)},
                "bytes": count["bytes_sent"],
            }
            for name, count in data.destinations.by_name().items()
            if data.destinations.are_several
        ],
        "droppedTransfers": data.dropped_counts[0],
        "droppedImages": data.dropped_counts[1],
    }


def _transfer_columns(transfers: Sequence[Transfer], strings: _StringTable) -> dict[str, object]:
    return {
        "digest": [transfer.digest for transfer in transfers],
        "target": [strings.index_of(transfer.target) for transfer in transfers],
        "state": [str(transfer.state) for transfer in transfers],
        "total": [transfer.total for transfer in transfers],
        "position": [transfer.position for transfer in transfers],
        "resumeOffset": [transfer.resume_offset for transfer in transfers],
        "lane": [transfer.lane for transfer in transfers],
        "queued": [_ms(transfer.queued) for transfer in transfers],
        "started": [_ms(transfer.started) for transfer in transfers],
        "ended": [_ms(transfer.ended) for transfer in transfers],
        "retries": [transfer.interruption_count for transfer in transfers],
        # By index in the columns: most transfers have none.
        "detail": {
            n: strings.index_of(transfer.detail)
            for n, transfer in enumerate(transfers)
            if transfer.detail
        },
        "interruptions": {
            n: [
                [
                    interruption.lane,
                    _ms(interruption.start),
                    _ms(interruption.end),
                    strings.index_of(interruption.detail),
                ]
                for interruption in transfer.interruptions
            ]
            for n, transfer in enumerate(transfers)
            if transfer.interruptions
        },
        "helpers": {
            # A copy: the run may go on meanwhile.
            n: [[lane, _ms(at), _ms(to)] for lane, (at, to) in list(transfer.helpers.items())]
            for n, transfer in enumerate(transfers)
            if transfer.helpers
        },
    }


def _image_columns(images: Sequence[ImageSpan], strings: _StringTable) -> dict[str, object]:
    return {
        "source": [image.source for image in images],
        "target": [image.target for image in images],
        "state": [str(image.state) for image in images],
        "started": [_ms(image.started) for image in images],
        "ended": [_ms(image.ended) for image in images],
        "sent": [image.sent for image in images],
        "detail": {
            n: strings.index_of(image.detail) for n, image in enumerate(images) if image.detail
        },
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
