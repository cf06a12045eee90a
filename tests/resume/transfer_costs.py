"""What transfers cost on the wire: held against what they may, and told as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

_KEY = "bytes on the wire"
_MIB = 1024 * 1024


class WireBudget:
    """The bytes that one test counts."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def assert_at_most(self, what: str, counted: int, size: int, allowed: int) -> None:
        """Take note of what was counted, and fail if it is more than may be.

        Args:
            what: which way, and what happened on it.
            size: bytes of the content.
            allowed: bytes beside it, for what happened.
        """
        self._record(_KEY, (what, counted, size, allowed))
        assert counted <= size + allowed, f"{what}: {counted} of {size} + {allowed} bytes"


def summary_lines(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return a table: the size, what was counted beyond it, and what may be."""
    rows = []
    for report in reports:
        name = report.nodeid.rpartition("::")[2]
        for key, value in report.user_properties if report.when == "call" else ():
            if key == _KEY and isinstance(value, tuple):
                what, counted, size, allowed = value
                beyond = f"{(counted - size) / _MIB:+8.3f}, at most {allowed / _MIB:+8.3f}"
                rows.append(f"{size / _MIB:7.1f} MiB {beyond}  {name}: {what}")
    return sorted(rows, key=lambda row: row.rpartition("  ")[2])
