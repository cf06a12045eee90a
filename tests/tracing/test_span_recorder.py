"""The spans of real copies: one for each image, blob and request, and no secret in any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from concil.engine.engine import Engine
from concil.errors import ConcilError
from concil.progress.events import Event, State
from concil.progress.request_observer import Exchange
from concil.server import EmbeddedRegistry
from concil.tracing.exporting import Tracing
from concil.tracing.url_template import digest_in, url_template
from concil.transfer.journal import Journal
from concil.transfer.mirror.report import MirrorItem
from tests.support.images import make_image, put_image

IMAGE = make_image(1, (3000, 40))
BLOBS = set(map(str, IMAGE.all_blobs()))


class Spans:
    """Spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing({}, self.exporter)
        self.recorder = self.tracing.recorder

    def named(self, prefix: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(prefix)]

    def parent(self, span: ReadableSpan) -> str:
        """Return the name of the parent; "" for none."""
        names = {each.context.span_id: each.name for each in self.named("") if each.context}
        return "" if span.parent is None else names[span.parent.span_id]


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.tracing.close(60)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def engine(spans: Spans) -> Iterator[Engine]:
    recorder = spans.recorder
    with Engine(journal=Journal(None), progress=recorder, observer=recorder) as engine:
        yield engine


def text_of(spans: Spans) -> str:
    return "".join(span.to_json() for span in spans.named(""))


def test_a_copy_has_a_span_for_each_image_blob_and_request(
    spans: Spans, engine: Engine, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)

    engine.copy(f"{registry.host}/app:v1", f"{registry.host}/copy/app:v1")

    (image,) = spans.named("copy image")
    blobs = spans.named("transfer blob")
    assert spans.parent(image) == ""
    assert image.attributes is not None
    assert image.attributes["concil.state"] == "done"
    assert {str((blob.attributes or {})["concil.digest"]) for blob in blobs} == BLOBS
    assert {spans.parent(blob) for blob in blobs} == {"copy image"}
    requests = [span for span in spans.named("") if span not in (image, *blobs)]
    assert Counter(spans.parent(span) for span in requests) == {
        "copy image": len(spans.named("GET /v2/{name}/manifests"))
        + len(spans.named("HEAD /v2/{name}/manifests"))
        + len(spans.named("PUT /v2/{name}/manifests")),
        "transfer blob": len(spans.named("POST /v2/{name}/blobs/uploads/")),
    }
    assert min(span.start_time or 0 for span in requests) >= (image.start_time or 0)


def test_requests_of_a_download_belong_to_its_blob(
    spans: Spans, engine: Engine, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)

    engine.copy(f"{registry.host}/app:v1", f"oci:{tmp_path}/layout:app")

    gets = spans.named("GET /v2/{name}/blobs/{digest}")
    assert len(gets) == len(BLOBS)
    assert {spans.parent(span) for span in gets} == {"transfer blob"}


def test_an_image_that_fails_has_a_span_with_an_error(
    spans: Spans, engine: Engine, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    engine.mirror([MirrorItem(f"{registry.host}/none:v1", f"oci:{tmp_path}/layout:app")])

    (image,) = spans.named("copy image")
    assert not image.status.is_ok
    assert "404" in str(image.status.description)
    (request,) = spans.named("HEAD ") or spans.named("GET ")
    assert (request.attributes or {})["http.response.status_code"] == 404
    assert spans.parent(request) == "copy image"


def test_no_span_has_a_query_a_session_or_a_password(spans: Spans) -> None:
    recorder = spans.recorder
    names = ("user:hunter2@r.example/app:v1", "r.example/app:v1")
    recorder(Event("image", *names, State.STARTED, 0, None))
    for url in (
        "https://r.example/v2/app/blobs/uploads/0000-S3SSION?_state=S3CRET&digest=x",
        "https://storage.example/bucket/object?X-Amz-Signature=S3CRET",
        "https://auth.example/T0KEN?service=x",
        "https://[broken",
    ):
        recorder.record_request(Exchange("PUT", url, "r.example:5000", 201, 0.0, 0.1))
    recorder(Event("image", *names, State.FAILED, 0, None, "refused"))

    text = text_of(spans)
    for secret in ("hunter2", "S3CRET", "S3SSION", "T0KEN", "Signature", "bucket"):
        assert secret not in text
    assert len(spans.named("PUT")) == 4
    assert '"server.port": 5000' in text


def test_what_was_interrupted_is_ended_and_nothing_is_kept(spans: Spans) -> None:
    recorder = spans.recorder
    recorder(Event("image", "a", "b", State.STARTED, 0, None))
    recorder(Event("blob", "sha256:1", "b", State.STARTED, 5, 10, image="a"))
    recorder(Event("blob", "sha256:1", "b", State.RETRYING, 7, 10, "lost", image="a"))

    recorder.close()
    recorder(Event("blob", "sha256:1", "b", State.MOVING, 8, 10, image="a"))

    (blob,) = spans.named("transfer blob")
    assert spans.parent(blob) == "copy image"
    assert [event.name for event in blob.events] == ["resumed", "retrying"]
    assert {span.status.description for span in spans.named("")} == {"interrupted"}
    assert not recorder._images
    assert not recorder._blobs


def test_requests_outside_of_any_image_are_spans_of_their_own(
    spans: Spans, engine: Engine, registry: EmbeddedRegistry
) -> None:
    put_image(registry.url, "app", "v1", IMAGE)

    assert list(engine.list_tags(f"{registry.host}/app")) == ["v1"]
    with pytest.raises(ConcilError):
        list(engine.list_tags(f"{registry.host}/none"))

    assert [spans.parent(span) for span in spans.named("GET /v2/{name}/tags/list")] == ["", ""]


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v2/", "/v2/"),
        ("/v2/a/b/manifests/v1", "/v2/{name}/manifests/{reference}"),
        ("/v2/a/blobs/uploads/", "/v2/{name}/blobs/uploads/"),
        ("/v2/a/blobs/uploads/x/y?z", "/v2/{name}/blobs/uploads/{session}"),
        (f"/v2/a/blobs/sha256:{'0' * 64}", "/v2/{name}/blobs/{digest}"),
        ("/token?scope=x", ""),
    ],
)
def test_urls_have_templates(path: str, template: str) -> None:
    assert url_template(f"https://r.example{path}") == template


def test_a_storage_host_names_the_digest_of_a_blob() -> None:
    digest = f"{'ab' * 32}"

    found = digest_in(f"https://cdn.example/registry/v2/blobs/sha256/ab/{digest}/data?x=1")

    assert found == f"sha256:{digest}"
    assert digest_in(f"https://r.example/x?digest={digest}") == ""
