"""Writes the JSON report of a mirror while it runs."""

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
from concil.fs.atomic_file import AtomicTextFile
from concil.oci.address import parse_address
from concil.plan.registry_rules import display_name
from concil.plan.report_schema import CHECK_VERB, MIRROR_VERB, SCHEMA_VERSION
from concil.progress.destinations import DestinationTotals
from concil.progress.events import State
from concil.transfer.findings import Condition
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.prune import PruneResult
from concil.transfer.mirror.report import Outcome

_ALWAYS_COUNTED = {
    MIRROR_VERB: ("copied", "present", "failed", "not_tried"),
    CHECK_VERB: (*Condition, "failed", "not_tried"),
}


class JSONReport:
    """A JSON document with an entry for each image, in the order of completion.

    It is written to a temporary file, and renamed when it is closed, also after an
    interrupt. Thread-safe. Memory does not grow with the number of images.
    """

    def __init__(self, path: Path, verb: str = MIRROR_VERB) -> None:
        """Start the report.

        Args:
            verb: that is reported on: `mirror` or `check`.
        Raises:
            StoreError: the path cannot be written to; checked before the mirror starts.
        """
        self._counts: Counter[str] = Counter()
        self._counted = _ALWAYS_COUNTED[verb]
        self._bytes_sent = 0
        self._destinations = DestinationTotals()
        self._is_empty = True
        # A second signal may close the report while an image is added.
        self._lock = threading.Lock()
        self._file = AtomicTextFile(path)
        self._file.write(
            f'{{"schema_version": {SCHEMA_VERSION}, "concil": {json.dumps(__version__)}, '
            f'"verb": "{verb}", '
            f'"started": {_timestamp()}, "images": ['
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the report; an error in the block takes precedence over one of the report."""
        with contextlib.suppress(StoreError) if error is not None else contextlib.nullcontext():
            self.close(complete=error is None)

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of an image.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            bytes_sent = outcome.result.bytes_sent if outcome.result is not None else 0
            self._bytes_sent += bytes_sent
            self._destinations.add(outcome.item.destination, outcome.name, bytes_sent)
        self._write_entry(image_entry(outcome))

    def add_listing_failure(self, source: str, error: ConcilError) -> None:
        """Add a repository or registry that could not be listed completely.

        Raises:
            StoreError: the file cannot be written.
        """
        name = display_name(source)
        outcome = "not_tried" if isinstance(error, NotTried) else "failed"
        self._write_entry({"source": name, "outcome": outcome, **_error_fields(error)})

    def add_pruned(self, pruned: PruneResult, *, dry_run: bool = False) -> None:
        """Add the deleted tags of a repository, the tags kept, and a failure to prune.

        Raises:
            StoreError: the file cannot be written.
        """
        removed_outcome = "would_prune" if dry_run else "pruned"
        for removal in pruned.removals:
            entry: dict[str, object] = {
                "target": f"{pruned.name}:{removal.tag}",
                "outcome": "kept" if removal.kept_reason else removed_outcome,
                "digest": str(removal.digest),
            }
            self._write_entry(
                entry | ({"reason": removal.kept_reason} if removal.kept_reason else {})
            )
        if pruned.error is not None:
            failure = _error_fields(pruned.error)
            self._write_entry({"target": pruned.name, "outcome": "prune_failed", **failure})

    def _write_entry(self, entry: dict[str, object]) -> None:
        with self._lock:
            self._counts[str(entry["outcome"])] += 1
            comma, self._is_empty = ("" if self._is_empty else ","), False
            self._file.write(f"{comma}\n{json.dumps(entry)}")

    def close(self, *, complete: bool = True) -> None:
        """Finish the report and rename it to its path.

        Args:
            complete: whether the mirror ran to its end.
        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock, self._file as file:
            summary = {
                **{str(name): self._counts[name] for name in self._counted},
                **{
                    name: count for name, count in self._counts.items() if name not in self._counted
                },
                "bytes_sent": self._bytes_sent,
                "complete": complete,
            }
            by_destination = ""
            if self._destinations.are_several:
                by_destination = f', "destinations": {json.dumps(self._destinations.by_name())}'
            totals = f'"summary": {json.dumps(summary)}{by_destination}'
            file.write(f'\n], "ended": {_timestamp()}, {totals}}}\n')

    def discard(self) -> None:
        """Remove the temporary file; a previous report stays."""
        with self._lock:
            self._file.abort()


def image_entry(outcome: Outcome) -> dict[str, object]:
    """Return the entry of an image, with addresses without credentials."""
    item, result = outcome.item, outcome.result
    entry: dict[str, object] = {
        "source": str(parse_address(item.source)),
        "target": str(parse_address(item.destination)),
        "outcome": outcome.name,
    }
    if result is not None:
        blobs = Counter(blob_result.state for blob_result in result.blobs)
        entry |= {
            "digest": str(result.digest),
            "bytes_sent": result.bytes_sent,
            "blobs": {
                "sent": blobs[State.DONE],
                "mounted": blobs[State.MOUNTED],
                "present": blobs[State.PRESENT],
            },
            "blob_digests": list(
                dict.fromkeys(str(blob_result.blob.digest) for blob_result in result.blobs)
            ),
            "manifests": result.manifests,
            "referrers": result.referrers,
            "skipped_foreign_layers": result.skipped_foreign_layers,
            **({"missing_bytes": result.missing_bytes} if result.state is State.WAITING else {}),
            "seconds": round(result.seconds, 3),
            "notes": list(result.notes),
        }
        if result.condition is not None:
            entry |= _condition_fields(result)
    if outcome.error is not None:
        entry |= _error_fields(outcome.error)
    return entry


def _condition_fields(result: ImageResult) -> dict[str, object]:
    """Return the fields of an image that was checked."""
    findings = [
        {
            "condition": finding.condition,
            "kind": finding.kind,
            "digest": str(finding.digest),
            "size": finding.size,
            **({"platform": finding.platform} if finding.platform else {}),
            "detail": finding.detail,
            "repaired": finding.is_repaired,
            **({"remedy": finding.remedy} if finding.remedy else {}),
        }
        for finding in result.findings
    ]
    is_repaired = result.state is State.DONE
    return {"repaired": is_repaired, "findings": findings}


def _error_fields(error: ConcilError) -> dict[str, object]:
    return {"error": str(error), "error_type": type(error).__name__}


def _timestamp() -> str:
    return json.dumps(datetime.now(UTC).isoformat(timespec="seconds"))
