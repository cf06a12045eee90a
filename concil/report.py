"""What became of the images of a mirror, as a JSON file that grows with it."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from concil import __version__
from concil.errors import ConcilError, StoreError
from concil.progress import State
from concil.reference import parse_address
from concil.transfer.mirror import Outcome


class JSONReport:
    """One JSON document with an entry for each image, in the order in which they ended.

    It is written beside its place and appears there when it is closed, also after an
    interrupt. One thread at a time. Memory does not grow with the images.
    """

    def __init__(self, path: Path) -> None:
        """Begin the report.

        Raises:
            StoreError: the place cannot be written to; better said before a mirror begins.
        """
        self._path = path
        self._counts: Counter[str] = Counter()
        self._sent = 0  # bytes
        self._first = True
        try:
            if path.is_dir():
                raise IsADirectoryError(21, "Is a directory")
            self._growing = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            self._file: TextIO = self._growing.open("x", encoding="utf-8")
            self._write(f'{{"concil": {json.dumps(__version__)}, "began": {_now()}, "images": [')
        except OSError as error:
            raise self._refused(error) from error

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
        self._sent += outcome.result.sent if outcome.result is not None else 0
        self._put(_entry(outcome))

    def add_unlisted(self, source: str, error: ConcilError) -> None:
        """Write down that the tags of a repository could not be had, or not all.

        Raises:
            StoreError: the disk does not take it.
        """
        name = str(parse_address(source))
        self._put({"source": name, "outcome": "failed", **_failure(error)})

    def _put(self, entry: dict[str, object]) -> None:
        self._counts[str(entry["outcome"])] += 1
        comma, self._first = ("" if self._first else ","), False
        try:
            self._write(f"{comma}\n{json.dumps(entry)}")
        except OSError as error:
            raise self._refused(error) from error

    def close(self, *, complete: bool = True) -> None:
        """Let it appear in its place.

        Args:
            complete: whether the mirror came to its end.
        Raises:
            StoreError: the disk does not take it.
        """
        summary = {
            **{name: self._counts[name] for name in ("copied", "present", "failed")},
            "bytes": self._sent,
            "complete": complete,
        }
        try:
            self._write(f'\n], "ended": {_now()}, "summary": {json.dumps(summary)}}}\n')
            self._file.close()
            self._growing.replace(self._path)
        except OSError as error:
            raise self._refused(error) from error

    def _write(self, text: str) -> None:
        self._file.write(text)

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write the report {self._path}: {error.strerror}",
            remedy="choose another place with --report",
        )


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
            "outcome": "present" if result.state is State.PRESENT else "copied",
            "digest": str(result.digest),
            "bytes": result.sent,
            "blobs": {
                "sent": blobs[State.DONE],
                "mounted": blobs[State.MOUNTED],
                "present": blobs[State.PRESENT],
            },
            "contents": list(dict.fromkeys(str(landed.blob.digest) for landed in result.blobs)),
            "manifests": result.manifests,
            "seconds": round(result.seconds, 3),
        }
    if outcome.error is not None:
        entry |= _failure(outcome.error)
    return entry


def _failure(error: ConcilError) -> dict[str, object]:
    return {"error": str(error), "kind": type(error).__name__}


def _now() -> str:
    return json.dumps(datetime.now(UTC).isoformat(timespec="seconds"))
