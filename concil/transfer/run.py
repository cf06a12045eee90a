"""What every transfer of one run shares: settings, journal, and the events that stop it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from concil.config import TransferConfig
from concil.transfer.journal import Journal


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run, its journal, and how it is ended.

    ``cancel`` lets the chunk in flight end: a registry that cannot survive a broken
    chunk can then be gone on with. ``abandon`` ends that too.
    """

    config: TransferConfig = field(default_factory=TransferConfig)
    cancel: threading.Event = field(default_factory=threading.Event)
    abandon: threading.Event = field(default_factory=threading.Event)
    journal: Journal = field(default_factory=lambda: Journal(None))
