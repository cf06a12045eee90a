"""What every transfer of one run shares: its settings, and the event that stops it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from concil.config import TransferConfig


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run, and its cancel event."""

    config: TransferConfig = field(default_factory=TransferConfig)
    cancel: threading.Event = field(default_factory=threading.Event)
