"""What became of the images of a mirror, as a JSON file that grows with it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from concil import __version__
from concil.errors import ConcilError, NotTried, StoreError
from concil.plan.registries import named
from concil.progress import State
from concil.reference import parse_address
from concil.report_file import ReportFile
from concil.transfer.mirror import Outcome
from concil.transfer.prune import Pruned

_OUTCOMES = {State.DONE: "copied", State.PRESENT: "present", State.WAITING: "would-copy"}
_ALWAYS = ("copied", "present", "failed", "untried")


class JSONReport:
    """One JSON document with an entry for each image, in the order in which they ended.

    It is written beside its place and appears there when it is closed, also after an
    interrupt. Any thread may call any method. Memory does not grow with the images.
    """

    def __init__(self, path: Path) -> None:
        """Begin the report.

        Raises:
            StoreError: the place cannot be written to; better said before a mirror begins.
        """
        self._counts: Counter[str] = Counter()
        self._sent = 0  # bytes
        self._first = True
        self._lock = threading.Lock()  # a second signal closes it while an image is added
        self._file = ReportFile(path)
        self._file.write(f'{{"concil": {json.dumps(__version__)}, "began": {_now()}, "images": [')

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish it; what went wrong before is more important than a report that did."""
        with contextlib.suppress(StoreError) if error is not None else contextlib.nullcontext():
            self.close(complete=error is None)

    def add(self, outcome: Outcome) -> None:
        """Write down what became of an image.

        Raises:
            StoreError: the disk does not take it.
        """
        with self._lock:
            self._sent += outcome.result.sent if outcome.result is not None else 0
        self._put(_entry(outcome))

    def add_unlisted(self, source: str, error: ConcilError) -> None:
        """Write down that a repository or registry could not be listed, or not to its end.

        Raises:
            StoreError: the disk does not take it.
        """
        name = named(source)
        outcome = "untried" if isinstance(error, NotTried) else "failed"
        self._put({"source": name, "outcome": outcome, **_failure(error)})

    def add_pruned(self, pruned: Pruned, *, dry_run: bool = False) -> None:
        """Write down what was deleted in a repository, what could not be, and why.

        Raises:
            StoreError: the disk does not take it.
        """
        gone = "would-prune" if dry_run else "pruned"
        for one in pruned.removals:
            entry: dict[str, object] = {
                "target": f"{pruned.name}:{one.tag}",
                "outcome": "kept" if one.kept else gone,
                "digest": str(one.digest),
            }
            self._put(entry | ({"error": one.kept} if one.kept else {}))
        if pruned.error is not None:
            failure = _failure(pruned.error)
            self._put({"target": pruned.name, "outcome": "prune-failed", **failure})

    def _put(self, entry: dict[str, object]) -> None:
        with self._lock:
            self._counts[str(entry["outcome"])] += 1
            comma, self._first = ("" if self._first else ","), False
            self._file.write(f"{comma}\n{json.dumps(entry)}")

    def close(self, *, complete: bool = True) -> None:
        """Let it appear in its place.

        Args:
            complete: whether the mirror came to its end.
        Raises:
            StoreError: the disk does not take it.
        """
        with self._lock, self._file as file:
            summary = {
                **{name: self._counts[name] for name in _ALWAYS},
                **{name: count for name, count in self._counts.items() if name not in _ALWAYS},
                "bytes": self._sent,
                "complete": complete,
            }
            file.write(f'\n], "ended": {_now()}, "summary": {json.dumps(summary)}}}\n')

    def discard(self) -> None:
        """Leave nothing behind; what was in its place before stays."""
        with self._lock:
            self._file.discard()


def _entry(outcome: Outcome) -> dict[str, object]:
    """One image as JSON; addresses without users and passwords."""
    item, result = outcome.item, outcome.result
    entry: dict[str, object] = {
        "source": str(parse_address(item.source)),
        "target": str(parse_address(item.destination)),
        "outcome": "failed",
    }
    if result is not None:
        blobs = Counter(landed.state for landed in result.blobs)
        entry |= {
            "outcome": _OUTCOMES[result.state],
            "digest": str(result.digest),
            "bytes": result.sent,
            "blobs": {
                "sent": blobs[State.DONE],
                "mounted": blobs[State.MOUNTED],
                "present": blobs[State.PRESENT],
            },
            "contents": list(dict.fromkeys(str(landed.blob.digest) for landed in result.blobs)),
            "manifests": result.manifests,
            "referrers": result.referrers,
            "foreign_layers_left_out": result.foreign,
            **({"missing": result.missing} if result.state is State.WAITING else {}),
            "seconds": round(result.seconds, 3),
            "notes": list(result.notes),
        }
    if outcome.error is not None:
        entry |= _failure(outcome.error)
    if isinstance(outcome.error, NotTried):
        entry["outcome"] = "untried"
    return entry


def _failure(error: ConcilError) -> dict[str, object]:
    return {"error": str(error), "kind": type(error).__name__}


def _now() -> str:
    return json.dumps(datetime.now(UTC).isoformat(timespec="seconds"))
