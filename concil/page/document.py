"""The data of the page: columns of plain values, for they are small and quick to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from concil import __version__
from concil.page.bounded import Depth, Throughput
from concil.page.records import ImageSpan, Transfer
from concil.progress import State


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that is known of a run."""

    title: str
    began: datetime
    seconds: float
    complete: bool
    lanes: Sequence[str]  # names of threads
    transfers: Sequence[Transfer]
    images: Sequence[ImageSpan]
    left_out: tuple[int, int]  # transfers, images
    counts: dict[tuple[str, State], int]  # by kind
    bytes: dict[State, int]  # of blobs, by how they ended
    losses: int
    expected: int  # images
    moved: Throughput
    waiting: Depth


class _Texts:
    """Each text once; columns have its number. Images of one mirror share most of theirs."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


def document(account: Account) -> dict[str, object]:
    """Return what the page is drawn from; times are milliseconds since the run began."""
    texts = _Texts()
    return {
        "concil": __version__,
        "title": account.title,
        "began": account.began.isoformat(timespec="seconds"),
        "milliseconds": _ms(account.seconds),
        "complete": account.complete,
        "lanes": [name.removeprefix("concil-") for name in account.lanes],
        "totals": _totals(account),
        "throughput": {
            "width": _ms(account.moved.width),
            "bytes": [round(count, 1) for count in account.moved.buckets],
        },
        "waiting": {"width": _ms(account.waiting.width), "most": account.waiting.buckets},
        "transfers": _transfers(account.transfers, texts),
        "images": _images(account.images, texts),
        "texts": texts.all,  # filled by the lines above
    }


def _totals(account: Account) -> dict[str, object]:
    def counts(kind: str) -> dict[str, int]:
        return {state: account.counts.get((kind, state), 0) for state in State if state.final}

    return {
        "images": counts("image"),
        "expected": account.expected,
        "blobs": counts("blob"),
        "bytes": {state: account.bytes.get(state, 0) for state in State if state.final},
        "losses": account.losses,
        "transfersLeftOut": account.left_out[0],
        "imagesLeftOut": account.left_out[1],
    }


def _transfers(transfers: Sequence[Transfer], texts: _Texts) -> dict[str, object]:
    return {
        "digest": [one.digest for one in transfers],
        "target": [texts.number(one.target) for one in transfers],
        "state": [str(one.state) for one in transfers],
        "total": [one.total for one in transfers],
        "position": [one.position for one in transfers],
        "resumed": [one.resumed for one in transfers],
        "lane": [one.lane for one in transfers],
        "seen": [_ms(one.seen) for one in transfers],
        "started": [_ms(one.started) for one in transfers],
        "ended": [_ms(one.ended) for one in transfers],
        "lost": [one.lost for one in transfers],
        # By the place in the columns: most have none.
        "why": {n: texts.number(one.why) for n, one in enumerate(transfers) if one.why},
        "losses": {
            n: [
                [loss.lane, _ms(loss.at), _ms(loss.until), texts.number(loss.why)]
                for loss in one.losses
            ]
            for n, one in enumerate(transfers)
            if one.losses
        },
        "helped": {
            n: [[lane, _ms(first), _ms(last)] for lane, (first, last) in one.helped.items()]
            for n, one in enumerate(transfers)
            if one.helped
        },
    }


def _images(images: Sequence[ImageSpan], texts: _Texts) -> dict[str, object]:
    return {
        "source": [one.source for one in images],
        "target": [one.target for one in images],
        "state": [str(one.state) for one in images],
        "started": [_ms(one.started) for one in images],
        "ended": [_ms(one.ended) for one in images],
        "sent": [one.sent for one in images],
        "why": {n: texts.number(one.why) for n, one in enumerate(images) if one.why},
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
