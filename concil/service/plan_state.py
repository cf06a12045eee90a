"""What is remembered of a plan from one process to the next: successes, and what was notified."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from concil.errors import ConcilError, StoreError
from concil.fs.atomic_file import AtomicTextFile
from concil.oci.strict_json import parse_json
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

_VERSION = 1
_MAX_SIZE = 64 * 1024 * 1024  # bytes


@dataclass(slots=True)
class PlanState:
    """The state of one plan and destination, in a JSON file beside the journal.

    Losing it costs a notification that is sent again, and a time in the metrics.
    """

    path: Path
    last_success: dict[str, float] = field(default_factory=dict)  # seconds since the epoch
    notified: dict[str, str] = field(default_factory=dict)  # reason by cause
    _lock: threading.Lock = field(default_factory=threading.Lock)  # one write at a time

    @classmethod
    def load(cls, path: Path) -> PlanState:
        """Read the file; one that is missing or unreadable counts as empty."""
        state = cls(path)
        try:
            with path.open("rb") as file:
                document = parse_json(file.read(_MAX_SIZE))
        except (OSError, ConcilError):
            return state
        if isinstance(document, dict) and document.get("version") == _VERSION:
            successes = _mapping(document.get("last_success"))
            state.last_success = {k: v for k, v in successes.items() if _is_number(v)}
            notified = _mapping(document.get("notified"))
            state.notified = {k: v for k, v in notified.items() if isinstance(v, str)}
        return state

    def save(self) -> None:
        """Replace the file; a failure is logged. Any thread may call it."""
        document = {
            "version": _VERSION,
            "last_success": dict(self.last_success),
            "notified": dict(self.notified),
        }
        try:
            with self._lock, AtomicTextFile(self.path, "state of the plan") as file:
                file.write(json.dumps(document))
        except StoreError as error:
            logger.warning("%s; the mirror goes on", error)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
