"""Bytes that a bad line changes once are fetched once more, whatever they are copied into."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from concil import TransferConfig
from concil.errors import DigestMismatch
from tests.engine.engine_setup import engine_of
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image

pytestmark = pytest.mark.real

IMAGE = make_image(1, (200_000, 500))
LARGEST = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))


class BadLine:
    """Passes requests on, and changes one byte of the first answers to a path.

    Args:
        part: of the paths whose bodies are changed.
        places: the byte of each such answer, in turn; then nothing is changed.
    """

    def __init__(self, registry: str, part: str, places: list[int]) -> None:
        self.part = part
        self.places = places
        self.asked: Counter[str] = Counter()  # GETs of that path
        line, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                names = ("Accept", "Range")
                headers = {n: self.headers[n] for n in names if self.headers[n]}
                headers["Accept-Encoding"] = "identity"
                with requests.Session() as session:
                    session.trust_env = False
                    answer = session.request(
                        self.command, registry + self.path, headers=headers, timeout=30
                    )
                body = bytearray(answer.content)
                with lock:
                    if self.command == "GET" and line.part in self.path:
                        if line.asked[line.part] < len(line.places):
                            body[line.places[line.asked[line.part]]] ^= 0x01
                        line.asked[line.part] += 1
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "date", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - of http.server

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def bad_line(registry: DockerRegistry, part: str, *places: int) -> Iterator[BadLine]:
    """Put a bad line in front of a registry."""
    line = BadLine(registry.url, part, list(places))
    thread = threading.Thread(target=line.server.serve_forever)
    thread.start()
    try:
        yield line
    finally:
        line.server.shutdown()
        thread.join(30)
        line.server.server_close()


@dataclass(frozen=True)
class Source:
    """A repository with an image, and what copies of it need."""

    registry: DockerRegistry
    repository: str
    directory: Path
    workers: int

    @property
    def config(self) -> TransferConfig:
        """Settings of one request for a blob."""
        return TransferConfig(workers=self.workers)

    def target(self, kind: str) -> str:
        """Return an address to copy to."""
        if kind == "registry":
            return f"{self.registry.url}/{self.repository}-copy:v1"
        return f"{kind}:{self.directory / 'there'}:app:v1"


@pytest.fixture
def source(
    docker_registry: DockerRegistry, repository: str, tmp_path: Path, workers: int
) -> Source:
    put_image(docker_registry.url, repository, "v1", IMAGE)
    return Source(docker_registry, repository, tmp_path, workers)


@pytest.mark.parametrize("kind", ["registry", "oci", "oci-archive", "docker-archive"])
@pytest.mark.parametrize("part", [f"/blobs/{LARGEST}", "/manifests/"])
def test_bytes_that_are_wrong_once_do_not_fail_an_image(
    source: Source, kind: str, part: str
) -> None:
    url, target = source.registry.url, source.target(kind)

    with bad_line(source.registry, part, 150) as line, engine_of(source.config) as engine:
        engine.copy(f"{line.url}/{source.repository}:v1", target)
    back = f"{source.repository}-back"
    with engine_of(source.config) as engine:
        engine.copy(target, f"{url}/{back}:v1")

    assert line.asked[part] == 2
    if kind != "docker-archive":  # which keeps no digests; its layers were verified by them
        assert_same_image(url, back, "v1", IMAGE)


SAME = ((9, 9), "a second attempt gave the same bytes", "the content of the source is damaged")
OTHER = ((9, 99), "an earlier attempt hashed to sha256:", "the source or the network")


@pytest.mark.parametrize("kind", ["registry", "oci", "oci-archive", "pull"])
@pytest.mark.parametrize("wrong", [SAME, OTHER])
def test_bytes_that_are_wrong_twice_say_whose_they_are(
    source: Source, kind: str, wrong: tuple[tuple[int, int], str, str]
) -> None:
    (places, says, remedy), file = wrong, source.directory / "file"

    with (
        bad_line(source.registry, f"/blobs/{LARGEST}", *places) as line,
        engine_of(source.config) as engine,
    ):
        address = f"{line.url}/{source.repository}"

        def bring() -> object:
            if kind == "pull":
                return engine.pull_blob(f"{address}@{LARGEST}", file)
            return engine.copy(f"{address}:v1", source.target(kind))

        with pytest.raises(DigestMismatch, match=says) as excinfo:
            bring()

    assert remedy in excinfo.value.remedy
    assert line.asked[line.part] == 2
    assert not file.exists()
    with requests.Session() as session:
        session.trust_env = False
        url = f"{source.registry.url}/v2/{source.repository}-copy"
        assert session.head(f"{url}/blobs/{LARGEST}", timeout=30).status_code == 404
        assert session.head(f"{url}/manifests/v1", timeout=30).status_code == 404


def test_a_layer_of_a_layout_that_is_wrong_is_read_twice(source: Source) -> None:
    layout = source.directory / "layout"
    with engine_of(source.config) as engine:
        engine.copy(f"{source.registry.url}/{source.repository}:v1", f"oci:{layout}:v1")
        file = layout / "blobs/sha256" / LARGEST.removeprefix("sha256:")
        file.write_bytes(bytes(len(IMAGE.blobs[LARGEST])))

        with pytest.raises(DigestMismatch, match="a second attempt gave the same bytes") as excinfo:
            engine.copy(f"oci:{layout}:v1", source.target("registry"))

    assert "the content of the source is damaged" in excinfo.value.remedy
