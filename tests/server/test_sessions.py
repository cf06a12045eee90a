"""Sessions that outlive broken bodies, killed servers and rivals."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry, RegistryBehavior
from tests.server.client import Client, RawClient
from tests.support.images import digest_of, make_blob
from tests.support.process import ServerProcess

BLOB = make_blob(3, 3_000_000)
DIGEST = digest_of(BLOB)
HALF = 1_234_567
PATIENCE = 30  # seconds
SERVE = """
import sys, threading
from concil.server import EmbeddedRegistry
with EmbeddedRegistry(sys.argv[1]) as registry:
    print("ready at", registry.url, flush=True)
    threading.Event().wait(600)
"""


class Impatient(RegistryBehavior):
    """Does not wait for a rival."""

    session_lock_timeout = 0.01


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come true"


def offset(client: Client, location: str) -> int:
    answer = client.ask("GET", location)
    assert answer.status_code == 204
    last = int(answer.headers["Range"].removeprefix("0-"))
    return last + 1 if last else 0


def holds(client: Client, location: str, size: int) -> bool:
    return offset(client, location) == size


def send_part(client: Client, method: str, location: str, part: bytes, headers: str) -> RawClient:
    """Send the head of a request and a part of its body."""
    raw = RawClient(client.url.removeprefix("http://"))
    raw.send(f"{method} {location} HTTP/1.1\nHost: x\n{headers}\n\n", part)
    return raw


def finish(client: Client, location: str, start: int) -> None:
    """Send the rest, close the session, read the blob back."""
    answer = client.patch(location, BLOB[start:], start)
    assert answer.status_code == 202
    assert client.put(answer.headers["Location"], DIGEST).status_code == 201
    assert client.ask("GET", f"blobs/{DIGEST}").content == BLOB


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("chunked", [False, True])
def test_what_arrived_of_a_broken_body_is_kept(client: Client, method: str, chunked: bool) -> None:
    location = client.begin()
    part = BLOB[:HALF]
    headers = f"Content-Length: {len(BLOB)}"
    if chunked:
        part = b"%x\r\n" % len(BLOB) + part
        headers = "Transfer-Encoding: chunked"
    target = f"{location}?digest={DIGEST}" if method == "PUT" else location

    send_part(client, method, target, part, headers).close()
    until(lambda: offset(client, location) == HALF)

    finish(client, location, HALF)


def test_session_resumes_after_several_lost_connections(client: Client) -> None:
    location, position = client.begin(), 0
    for stop in (2, 3, 65_536, 1_048_577, 2_999_999):
        headers = f"Content-Range: {position}-2999999\nContent-Length: {len(BLOB) - position}"
        send_part(client, "PATCH", location, BLOB[position:stop], headers).close()
        until(functools.partial(holds, client, location, stop))
        position = stop

    finish(client, location, position)


def test_a_broken_monolithic_post_leaves_nothing(
    client: Client, registry: EmbeddedRegistry, directory: Path
) -> None:
    target = f"/v2/team/app/blobs/uploads/?digest={DIGEST}"

    headers = f"Content-Length: {len(BLOB)}"
    send_part(client, "POST", target, BLOB[:HALF], headers).close()
    until(lambda: any(seen.method == "POST" for seen in registry.requests))

    assert list((directory / ".concil/uploads").iterdir()) == []


@pytest.fixture
def server(directory: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = ServerProcess(
        [sys.executable, "-c", SERVE, str(directory)],
        r"ready at (\S+)",
        tmp_path / "server.log",
        environment,
    )
    yield process
    process.kill()


def test_session_resumes_after_the_server_was_killed(
    server: ServerProcess, directory: Path
) -> None:
    with Client(server.start()[1]) as client:
        location = client.begin()
        session = directory / ".concil/uploads" / location.rpartition("/")[2]
        headers = f"Content-Length: {len(BLOB)}"
        with send_part(client, "PATCH", location, BLOB[:HALF], headers):
            until(lambda: session.stat().st_size == HALF)
            server.kill()

    with Client(server.start()[1]) as client:
        assert offset(client, location) == HALF
        finish(client, location, HALF)
    assert not session.exists()


def test_a_durable_registry_takes_and_serves_blobs(directory: Path) -> None:
    registry = EmbeddedRegistry(directory)
    registry.durable = True
    with registry, Client(registry.url) as client:
        client.push(BLOB)

        assert client.ask("GET", f"blobs/{DIGEST}").content == BLOB


def test_blobs_and_tags_outlive_the_server(server: ServerProcess) -> None:
    with Client(server.start()[1]) as client:
        digest, body = client.push_image("v1")
        server.kill()

    with Client(server.start()[1]) as client:
        assert client.tags() == ["v1"]
        assert client.ask("GET", f"manifests/{digest}").content == body


def test_sessions_unused_for_a_week_are_removed_at_the_start(directory: Path) -> None:
    with EmbeddedRegistry(directory) as registry, Client(registry.url) as client:
        old, young = client.begin(), client.begin()
    week = time.time() - 8 * 24 * 3600
    os.utime(directory / ".concil/uploads" / old.rpartition("/")[2], (week, week))

    with EmbeddedRegistry(directory) as registry, Client(registry.url) as client:
        assert client.ask("GET", old).status_code == 404
        assert client.ask("GET", young).status_code == 204


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_a_second_request_on_a_session_is_turned_away(directory: Path, method: str) -> None:
    with (
        EmbeddedRegistry(directory, behavior=Impatient()) as registry,
        Client(registry.url) as client,
    ):
        location = client.begin()
        headers = f"Content-Length: {len(BLOB)}"
        with send_part(client, "PATCH", location, BLOB[:HALF], headers) as first:
            until(lambda: offset(client, location) == HALF)

            second = client.ask(method, location, params={"digest": DIGEST}, data=BLOB[HALF:])
            first.send("", BLOB[HALF:])
            answer = first.answer()

        assert second.status_code == 409
        assert answer.status == 202
        assert client.put(location, DIGEST).status_code == 201


def test_a_second_request_waits_for_the_end_of_a_broken_one(client: Client) -> None:
    location = client.begin()
    headers = f"Content-Length: {len(BLOB)}"
    first = send_part(client, "PATCH", location, BLOB[:HALF], headers)
    until(lambda: offset(client, location) == HALF)

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(client.patch, location, BLOB[HALF:], HALF)
        first.close()
        assert second.result(PATIENCE).status_code == 202

    assert client.put(location, DIGEST).status_code == 201


class Quick(Impatient):
    """Gives up a silent writer at once."""

    writer_idle_timeout = 0.0


def test_a_writer_that_fell_silent_gives_way(directory: Path) -> None:
    with (
        EmbeddedRegistry(directory, behavior=Quick()) as registry,
        Client(registry.url) as client,
    ):
        location = client.begin()
        headers = f"Content-Length: {len(BLOB)}"
        # Nothing tells the server that this one will never send the rest.
        with send_part(client, "PATCH", location, BLOB[:HALF], headers):
            until(lambda: offset(client, location) == HALF)

            until(lambda: client.patch(location, BLOB[HALF:], HALF).status_code == 202)
            assert client.put(location, DIGEST).status_code == 201


def test_rival_chunks_never_mix(client: Client, registry: EmbeddedRegistry) -> None:
    location = client.begin()
    start = threading.Barrier(8, timeout=PATIENCE)

    def rival(_number: int) -> int:
        with Client(registry.url) as own:
            start.wait()
            return own.patch(location, BLOB, 0).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(rival, range(8)))

    assert statuses[0] == 202
    assert set(statuses[1:]) <= {409, 416}
    assert client.put(location, DIGEST).status_code == 201


def test_one_blob_pushed_by_many_at_once_is_whole(registry: EmbeddedRegistry) -> None:
    start = threading.Barrier(12, timeout=PATIENCE)

    def push(number: int) -> None:
        with Client(registry.url, f"team/app{number % 3}") as client:
            start.wait()
            client.push(BLOB)
            assert client.ask("GET", f"blobs/{DIGEST}").content == BLOB

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(push, range(12)))


def test_no_tag_is_lost_when_sixteen_push_at_once(
    client: Client, registry: EmbeddedRegistry, directory: Path
) -> None:
    start = threading.Barrier(16, timeout=PATIENCE)

    def push(number: int) -> None:
        with Client(registry.url) as own:
            start.wait()
            for turn in range(4):
                own.push_image(f"t{number}-{turn}", f"{number}-{turn}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(push, range(16)))

    assert len(client.tags()) == 64
    with EmbeddedRegistry(directory) as other, Client(other.url) as again:
        assert len(again.tags()) == 64
