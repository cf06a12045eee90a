"""The end of a command that was interrupted."""

from __future__ import annotations

import time

from concil.runtime.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Stopping:
    """A command was interrupted, and waits for what must not be cut off."""

    deadline: float  # monotonic seconds at which it ends in any case
    hint: str  # what a second interrupt does

    @property
    def seconds_left(self) -> float:
        """Seconds until the command ends in any case."""
        return max(0.0, self.deadline - time.monotonic())
