"""Time that passes only when somebody waits."""

from __future__ import annotations

import threading
import time

import pytest


class Clock:
    """Stands in for the monotonic clock, and for the waits of an event."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cancel: threading.Event) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cancel, "wait", self.wait)

    def wait(self, seconds: float | None = None) -> bool:
        """Let the time pass."""
        self.waits.append(seconds or 0)
        self.now += seconds or 0
        return False
