"""A clock that moves only when a test says so."""

from __future__ import annotations

import pytest

from concil.service.run_times import Clock


class FakeClock(Clock):
    """Two clocks: one that people set, and one that they cannot set."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall = 1_767_225_600.0  # 2026-01-01 00:00 UTC

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.wall

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
