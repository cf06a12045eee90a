"""Traces of a command, if the usual variables of OpenTelemetry ask for them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from concil.cli.context import CommandContext

if TYPE_CHECKING:  # imported when it is asked for
    from concil.tracing.span_recorder import SpanRecorder

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTERS = ("otlp", "console")
_CLOSE_TIMEOUT = 5.0  # seconds for the last spans
_SHUTDOWN_TIMEOUT = 1.0  # seconds for them after SIGTERM or Ctrl-C


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Return whether traces are asked for.

    Source: OpenTelemetry, "Environment Variable Specification".
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter in _EXPORTERS
    return any(environment.get(name) for name in _ENDPOINTS)


@contextlib.contextmanager
def open_traces(command: CommandContext) -> Iterator[SpanRecorder | None]:
    """Record spans until the end of the ``with`` block; None: nobody has asked for them."""
    if not wants_traces(os.environ):
        yield None
        return
    try:
        from concil.tracing.exporting import Tracing  # noqa: PLC0415  # an extra, seldom asked for
    except ImportError:
        # The variables may be those of all programs of a machine.
        logger.info("there are no traces: they need pip install 'concil[otel]'")
        yield None
        return
    tracing = Tracing(os.environ)
    try:
        yield tracing.recorder
    finally:
        is_stopping = command.shutdown.event.is_set()
        tracing.close(_SHUTDOWN_TIMEOUT if is_stopping else _CLOSE_TIMEOUT)
