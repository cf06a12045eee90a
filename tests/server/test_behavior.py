"""A personality decides in place of the registry, without the rest noticing."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.server import (
    Chunk,
    DropConnection,
    EmbeddedRegistry,
    ErrorResponse,
    Exchange,
    RegistryBehavior,
    Request,
    Response,
    Upload,
)
from tests.server.client import Client, code_of
from tests.server.test_sessions import send_part, until
from tests.support.images import digest_of, make_blob

BLOB = make_blob(4, 50_000)
DIGEST = digest_of(BLOB)


class Strict(RegistryBehavior):
    """Behaves as other registries do, as far as a personality can."""

    min_chunk_length = 1000

    def before_request(self, request: Request) -> Response | None:
        return Response(429, {"Retry-After": "7"}) if "/busy/" in request.path else None

    def after_response(self, request: Request, reply: Response) -> Response:
        if request.headers.get("x-lose-answer"):
            raise DropConnection
        return reply

    def session_location(self, repository: str, session: str, offset: int) -> str:
        usual = super().session_location(repository, session, offset)
        return f"{usual}?_state={offset}"

    def session_range(self, offset: int) -> str:
        return f"bytes=0-{offset}"

    def check_session(self, request: Request, upload: Upload) -> None:
        if request.query_value("_state") != str(upload.offset):
            raise ErrorResponse("BLOB_UPLOAD_INVALID", "stale", status=404)

    def check_chunk(self, chunk: Chunk) -> None:
        super().check_chunk(chunk)
        if chunk.length is None or chunk.length > 100_000:
            raise ErrorResponse("SIZE_INVALID", "too much at once", status=413)

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        upload.truncate(0)

    def blob_range(self, header: str, size: int) -> tuple[int, int] | None:
        return None


@pytest.fixture
def registry(directory: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(directory, behavior=Strict()) as registry:
        yield registry


def test_it_announces_its_smallest_chunk(client: Client) -> None:
    assert client.post().headers["OCI-Chunk-Min-Length"] == "1000"


def test_it_answers_before_the_registry(client: Client) -> None:
    answer = client.ask("GET", "/v2/busy/tags/list")

    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "7"


def test_it_puts_a_state_into_locations_and_refuses_old_ones(client: Client) -> None:
    first = client.begin()

    second = client.patch(first, BLOB[:1000], 0)

    assert second.headers["Range"] == "bytes=0-1000"
    assert second.headers["Location"].endswith("?_state=1000")
    assert client.ask("GET", first).status_code == 404
    assert client.ask("GET", second.headers["Location"]).status_code == 204


def test_it_limits_chunks(client: Client) -> None:
    answer = client.patch(client.begin(), bytes(100_001))

    assert answer.status_code == 413
    assert code_of(answer) == "SIZE_INVALID"


def test_it_may_forget_a_broken_body(client: Client, registry: EmbeddedRegistry) -> None:
    location = client.begin()

    send_part(client, "PATCH", location, BLOB[:1000], "Content-Length: 50000").close()

    until(lambda: registry.requests[-1].method == "PATCH")
    assert registry.requests[-1].received == 1000
    assert client.patch(location, BLOB, 0).status_code == 202


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_it_may_lose_an_answer(client: Client, method: str) -> None:
    digest = client.push(BLOB)
    path = f"blobs/{digest}" if method == "GET" else client.begin()

    with pytest.raises(requests.ConnectionError):
        client.ask(method, path, data=BLOB[:1000], headers={"X-Lose-Answer": "1"})


def test_it_may_ignore_ranges(client: Client) -> None:
    digest = client.push(BLOB)

    answer = client.ask("GET", f"blobs/{digest}", headers={"Range": "bytes=5-9"})

    assert answer.status_code == 200
    assert answer.content == BLOB


def test_what_it_gets_wrong_is_a_500_and_not_the_end(directory: Path) -> None:
    class Broken(RegistryBehavior):
        def session_range(self, offset: int) -> str:
            raise ZeroDivisionError

    with (
        EmbeddedRegistry(directory, behavior=Broken()) as registry,
        Client(registry.url) as client,
    ):
        assert client.post().status_code == 500
        assert client.ask("GET", "/v2/").status_code == 200


def test_a_full_disk_is_a_500_that_says_so_and_keeps_the_session(directory: Path) -> None:
    class Full(RegistryBehavior):
        full = True

        def check_chunk(self, chunk: Chunk) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")

    personality = Full()
    with (
        EmbeddedRegistry(directory, behavior=personality) as registry,
        Client(registry.url) as client,
    ):
        location = client.begin()
        refused = client.patch(location, BLOB)
        personality.full = False

        assert refused.status_code == 500
        assert "disk of the registry is full" in refused.text
        assert str(directory) not in refused.text
        assert client.put(location, DIGEST, BLOB).status_code == 201


def test_exchanges_are_recorded_and_reported(directory: Path) -> None:
    told: list[Exchange] = []
    registry = EmbeddedRegistry(directory)
    registry.on_request = told.append
    with registry, Client(registry.url) as client:
        client.push(BLOB)
        client.ask("GET", f"blobs/{DIGEST}", headers={"Range": "bytes=0-99"})
        client.ask("HEAD", f"blobs/{DIGEST}")

    seen = [(e.method, e.status, e.received, e.sent) for e in registry.requests]
    assert seen[0][:2] == ("POST", 202)
    assert seen[1] == ("PUT", 201, len(BLOB), 0)
    assert seen[2] == ("GET", 206, 0, 100)
    assert seen[3] == ("HEAD", 200, 0, 0)
    assert told == registry.requests
    registry.clear_requests()
    assert registry.requests == []
