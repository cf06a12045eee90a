"""Exports spans as the OTEL_ variables say; the SDK of OpenTelemetry is imported here only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)

from concil import __version__
from concil.runtime.limits import start_thread
from concil.tracing.span_recorder import SpanRecorder

logger = logging.getLogger(__name__)


class Tracing:
    """The spans of one command, and their export."""

    def __init__(
        self, environment: Mapping[str, str], exporter: SpanExporter | None = None
    ) -> None:
        """Set up the export.

        Args:
            environment: OTEL_TRACES_EXPORTER and OTEL_SERVICE_NAME are read here, all others by
                the SDK.
            exporter: None: as the environment says.
        """
        resource = Resource.create({"service.version": __version__})
        if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            resource = resource.merge(Resource({"service.name": "concil"}))
        self._log = _OneLine()
        self._sdk_logger = logging.getLogger("opentelemetry")
        self._sdk_logger.addHandler(self._log)
        self._sdk_logger.propagate = False
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(_create_processor(environment, exporter))
        self.recorder = SpanRecorder(self._provider.get_tracer("concil", __version__))

    def close(self, timeout: float) -> None:
        """Export what is left, for at most ``timeout`` seconds."""
        self.recorder.close()
        # The SDK repeats an export for longer than a command may take to end.
        thread = threading.Thread(target=self._provider.shutdown, name="concil-traces", daemon=True)
        is_started = start_thread(thread, "the last traces are not exported")
        if is_started:
            thread.join(timeout)
        if thread.is_alive():
            logger.warning("some traces were not exported before the end")
        self._sdk_logger.removeHandler(self._log)
        self._sdk_logger.propagate = True


def _create_processor(
    environment: Mapping[str, str], exporter: SpanExporter | None
) -> SpanProcessor:
    if exporter is not None:
        return SimpleSpanProcessor(exporter)
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        return SimpleSpanProcessor(ConsoleSpanExporter())
    return BatchSpanProcessor(OTLPSpanExporter())


class _OneLine(logging.Handler):
    """Logs one line for all warnings of the SDK, which repeats each of them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._has_warned = False

    def emit(self, _record: logging.LogRecord) -> None:
        """Log the first warning, without its text, which may have the URL of the collector."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "traces cannot be exported to the collector of OpenTelemetry; concil goes on"
            )
