"""Traces of commands: off unless the usual variables ask for them, and never in the way."""

from __future__ import annotations

import gzip
import queue
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from concil.cli import traces
from concil.cli.traces import wants_traces
from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Cli
from tests.support.images import make_image, put_image

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector:
    """An OTLP/HTTP listener."""

    def __init__(self) -> None:
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_gzip = self.headers.get("Content-Encoding") == "gzip"
                outer.received.put((self.path, gzip.decompress(body) if is_gzip else body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.01,))
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join(PATIENCE)
    collector.server.server_close()


@pytest.fixture
def image(registry: EmbeddedRegistry) -> str:
    put_image(registry.url, "app", "v1", make_image(1, (3000,)))
    return f"{registry.host}/app:v1"


def test_spans_arrive_at_a_collector(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch, collector: Collector, image: str
) -> None:
    monkeypatch.setenv(ENDPOINT, collector.url)

    assert cli_here("copy", image, "oci:copy").code == 0

    path, body = collector.received.get(timeout=PATIENCE)
    (spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    resource = {each.key: each.value.string_value for each in spans.resource.attributes}
    names = [span.name for scope in spans.scope_spans for span in scope.spans]
    assert path == "/v1/traces"
    assert resource["service.name"] == "concil"
    assert names.count("copy image") == 1
    assert names.count("transfer blob") == 2


def test_a_collector_that_is_gone_is_one_line_and_no_failure(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch, collector: Collector, image: str
) -> None:
    monkeypatch.setattr(traces, "_CLOSE_TIMEOUT", 0.5)
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9/S3CRET")

    done = cli_here("copy", image, "oci:copy")

    assert done.code == 0
    assert done.err.count("cannot be exported") <= 1
    assert "S3CRET" not in done.err


def test_without_the_packages_there_are_no_traces_and_no_failure(
    cli_here: Cli, monkeypatch: pytest.MonkeyPatch, collector: Collector, image: str
) -> None:
    monkeypatch.setenv(ENDPOINT, collector.url)
    monkeypatch.setitem(sys.modules, "concil.tracing.exporting", None)

    done = cli_here("copy", image, "oci:copy", "-v")

    assert done.code == 0
    assert "pip install 'concil[otel]'" in done.err
    assert collector.received.empty()


@pytest.mark.parametrize(
    ("environment", "is_wanted"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "zipkin", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://c:4318"}, False),
    ],
)
def test_the_usual_variables_ask_for_traces(environment: dict[str, str], is_wanted: bool) -> None:
    assert wants_traces(environment) == is_wanted
