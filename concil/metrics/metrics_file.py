"""Writes the metrics to a file while a mirror runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Self

from concil.errors import StoreError
from concil.fs.atomic_file import AtomicTextFile
from concil.metrics.collector import MetricsCollector
from concil.runtime.limits import start_thread

logger = logging.getLogger(__name__)

INTERVAL = 15.0  # seconds between two writes
_JOIN_TIMEOUT = 2.0  # seconds; a file system may hang
TEXT_SUFFIX = ".prom"  # the only files that node_exporter reads; in the text format of Prometheus


class MetricsFile:
    """A file that has the metrics of a collector, written at an interval and at the end.

    It is replaced as a whole. A write that fails is logged once, until one succeeds again; the
    mirror goes on. Any thread may call `write`.
    """

    def __init__(self, path: Path, collector: MetricsCollector, interval: float = INTERVAL) -> None:
        """Write nothing yet.

        Args:
            path: OpenMetrics, or with the suffix .prom the text format of Prometheus.
            interval: seconds between two writes while the ``with`` block runs.
        """
        self._path = path
        self._render = collector.render_text if path.suffix == TEXT_SUFFIX else collector.render
        self._interval = interval
        self._wake = threading.Event()
        self._is_ending = False
        self._lock = threading.Lock()  # held during a write: one at a time
        self._has_failed = False
        self._is_started = False
        self._thread = threading.Thread(target=self._run, name="concil-metrics", daemon=True)

    def __enter__(self) -> Self:
        """Write the file, and begin to write it at the interval."""
        self.write()
        self._is_started = start_thread(
            self._thread, "the metrics are written at the beginning and the end only"
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Write the file for the last time."""
        self._is_ending = True
        self._wake.set()
        if self._is_started:
            self._thread.join(_JOIN_TIMEOUT)
        if not self._thread.is_alive():
            self.write()

    def write_soon(self) -> None:
        """Let the file be written now, without waiting for it."""
        self._wake.set()

    def write(self) -> None:
        """Write the file; a failure is logged."""
        with self._lock:
            try:
                text = self._render().decode()
                with AtomicTextFile(self._path, "metrics") as file:
                    file.write(text)
            except StoreError as error:
                if not self._has_failed:
                    logger.warning("%s; the mirror goes on", error)
                self._has_failed = True
            else:
                self._has_failed = False

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._is_ending:
                return
            self.write()
