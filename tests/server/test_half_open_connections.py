"""Many clients at once: who is silent makes room, and who works is served."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from concil.runtime import limits
from concil.server import EmbeddedRegistry, connection_table, listener
from concil.server.connection_table import network_of
from tests.server.client import Client, RawClient
from tests.server.half_open_connections import Crowd, many_descriptors
from tests.support.images import digest_of, make_blob
from tests.support.process import ServerProcess
from tests.support.scale import FULL
from tests.support.tls import CertificateAuthority

pytestmark = pytest.mark.slow

TIMEOUT = 30  # seconds
HEAD = "GET /v2/ HTTP/1.1\nHost: x\n"
BLOB = make_blob(7, 200_000)


NOTHING, SOME = b"", b"GET /v2/ HTTP/1.1\r\nHost"
# How many clients work beside those that do not, and what the latter have sent.
CROWDS = [
    pytest.param(1, NOTHING, id="nothing-1"),
    pytest.param(16, SOME, id="some-16"),
]
if FULL:
    CROWDS += [pytest.param(1, SOME, id="some-1"), pytest.param(16, NOTHING, id="nothing-16")]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make room for three connections, of which two may have one address."""
    monkeypatch.setattr(connection_table, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connection_table, "MAX_PER_ADDRESS", 2)
    monkeypatch.setattr(
        listener, "network_of", lambda address: "" if address == "127.0.0.1" else address
    )


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def uploading(stack: contextlib.ExitStack, registry: EmbeddedRegistry, source: str = "") -> Raw:
    """A client whose upload the server has begun to read."""
    raw = stack.enter_context(Raw(registry.host, source))
    raw.send("POST /v2/a/blobs/uploads/ HTTP/1.1\nHost: x\n\n")
    location = raw.answer().headers["location"]
    target = location[location.index("/v2/") :]
    expect = f"Host: x\nContent-Length: {len(BLOB)}\nExpect: 100-continue\n\n"
    raw.send(f"PATCH {target} HTTP/1.1\n{expect}")
    assert raw.answer().status == 100
    return raw


class Raw(RawClient):
    """A bare connection from an address of its own."""

    def __init__(self, host: str, source: str = "") -> None:
        name, _, port = host.rpartition(":")
        self.sock = socket.create_connection(
            (name, int(port)), TIMEOUT, (source, 0) if source else None
        )
        self._file = self.sock.makefile("rb")


def wait_until_nothing_moves(registry: EmbeddedRegistry) -> None:
    """Wait until the buffers between the registry and its only client are full."""
    assert registry._listener is not None
    connections = registry._listener._connections._open
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        activities = [each.activity for each in list(connections)]
        since = activities[0].silent_since if len(activities) == 1 else None
        if since is not None and activities[0].is_in_request and time.monotonic() - since > 1:
            return
        time.sleep(0.02)
    pytest.fail(f"the registry still sends after {TIMEOUT} s")


def open_descriptors() -> set[tuple[str, str]]:
    """Return number and target of each; what an earlier test left may be closed at any time."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add((path.name, str(path.readlink())))
    return found


def work(registry: EmbeddedRegistry, number: int, rounds: int) -> list[int]:
    """Push and pull, half of it over new connections; return the statuses."""
    statuses = []
    with Client(registry.url, f"team/app{number}") as kept:
        for turn in range(rounds):
            blob = BLOB + f"{number} {turn}".encode()
            with Client(registry.url, f"team/app{number}") as fresh:
                client = kept if turn % 2 else fresh
                client.push(blob)
                answer = client.ask("GET", f"blobs/{digest_of(blob)}")
                statuses.append(answer.status_code)
                assert answer.content == blob
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "sent"), CROWDS)
def test_thousand_half_open_connections_do_not_block_new_clients(
    registry: EmbeddedRegistry, clients: int, sent: bytes
) -> None:
    with many_descriptors(4096), Crowd(registry.host, 1000, sent) as crowd:
        assert crowd.complete.wait(TIMEOUT)
        with ThreadPoolExecutor(clients) as pool:
            rounds = 3 if clients > 1 else 12  # each new client waits for room
            running = [pool.submit(work, registry, number, rounds) for number in range(clients)]
            statuses = [status for each in running for status in each.result(TIMEOUT * 2)]

    assert statuses == [200] * rounds * clients
    assert crowd.seen > 1000


def test_close_ends_a_thousand_half_open_connections(directory: Path) -> None:
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    registry = EmbeddedRegistry(directory)
    registry.start()
    with many_descriptors(4096), Crowd(registry.host, 1000) as crowd:
        assert crowd.complete.wait(TIMEOUT)

        registry.close()

        left = {thread.name for thread in set(threading.enumerate()) - threads}
        assert len(left) == 1  # that of the crowd
        assert "registry" not in "".join(left)
    assert open_descriptors() <= descriptors


@pytest.mark.usefixtures("few")
def test_connection_that_has_been_idle_longest_is_closed(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (stack.enter_context(RawClient(registry.host)) for _ in range(3))
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")

    assert newcomer.answer().status == 200
    assert first.closed()
    for raw in (second, third):
        raw.send(f"{HEAD}\n")
        assert raw.answer().status == 200
    assert "more than 3 connections: closing the one that has been idle longest" in caplog.text


@pytest.mark.usefixtures("few")
def test_a_byte_now_and_then_is_silence_until_the_header_is_complete(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack
) -> None:
    slow, other, third = (stack.enter_context(RawClient(registry.host)) for _ in range(3))
    for letter in HEAD:
        slow.send(letter)
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")

    assert newcomer.answer().status == 200
    assert slow.closed()
    for raw in (other, third):
        raw.send(f"{HEAD}\n")
        assert raw.answer().status == 200


@pytest.mark.usefixtures("few")
def test_an_upload_and_a_kept_connection_stay(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack
) -> None:
    upload = uploading(stack, registry)
    kept = stack.enter_context(RawClient(registry.host))
    kept.send(f"{HEAD}\n")
    assert kept.answer().status == 200
    silent = [stack.enter_context(RawClient(registry.host)) for _ in range(5)]
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")

    assert newcomer.answer().status == 200
    assert all(raw.closed() for raw in silent)
    upload.send("", BLOB)
    assert upload.answer().status == 202
    kept.send(f"{HEAD}\n")
    assert kept.answer().status == 200


@pytest.mark.usefixtures("few")
def test_an_upload_that_stands_still_is_silent(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_table, "_PAUSE", 0.0)
    uploads = [uploading(stack, registry) for _ in range(3)]
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")

    assert newcomer.answer().status == 200
    assert uploads[0].closed()


@pytest.mark.usefixtures("few")
def test_download_that_is_not_read_counts_as_idle(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_table, "_PAUSE", 0.0)
    large = make_blob(8, 64_000_000)
    with Client(registry.url) as client:
        client.push(large)
    download = stack.enter_context(RawClient(registry.host))
    download.send(f"GET /v2/team/app/blobs/{digest_of(large)} HTTP/1.1\nHost: x\n\n")
    wait_until_nothing_moves(registry)
    for _ in range(2):
        uploading(stack, registry)
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")

    assert newcomer.answer().status == 200
    assert len(download._file.read()) < len(large)


@pytest.mark.usefixtures("few")
def test_a_newcomer_waits_where_everybody_works(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack
) -> None:
    uploads = [uploading(stack, registry) for _ in range(3)]
    newcomer = stack.enter_context(RawClient(registry.host))
    newcomer.send(f"{HEAD}\n")
    uploads[1].send("", BLOB)
    assert uploads[1].answer().status == 202
    uploads[1].close()

    assert newcomer.answer().status == 200


@pytest.mark.usefixtures("few")
def test_an_address_has_a_limit_of_its_own(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack
) -> None:
    neighbour = stack.enter_context(Raw(registry.host))
    first, second, third = (stack.enter_context(Raw(registry.host, "127.0.0.9")) for _ in range(3))

    assert first.closed()
    for raw in (neighbour, second, third):
        raw.send(f"{HEAD}\n")
        assert raw.answer().status == 200


@pytest.mark.usefixtures("few")
def test_an_address_whose_connections_all_work_gets_no_more(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack
) -> None:
    for _ in range(2):
        uploading(stack, registry, "127.0.0.9")
    more = stack.enter_context(Raw(registry.host, "127.0.0.9"))
    neighbour = stack.enter_context(Raw(registry.host))
    neighbour.send(f"{HEAD}\n")

    refused = more.answer()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert neighbour.answer().status == 200


@pytest.mark.usefixtures("few")
def test_a_tls_handshake_that_does_not_begin_is_silence(
    directory: Path, ca: CertificateAuthority, stack: contextlib.ExitStack
) -> None:
    registry = EmbeddedRegistry(directory, ssl_context=ca.issue().server_context())
    with registry:
        silent = [stack.enter_context(RawClient(registry.host)) for _ in range(6)]
        with Client(registry.url) as client:
            client._session.verify = str(ca.path)
            client.push(BLOB)

        assert all(raw.closed() for raw in silent[:3])


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_is_one_host_or_one_network_of_ipv6(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.process
def test_a_process_of_few_descriptors_takes_few_connections(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    command = 'ulimit -n 64; exec "$0" -m concil serve "$1" --addr 127.0.0.1:0'
    server = ServerProcess(
        ["sh", "-c", command, sys.executable, str(layout)],
        r"at (http://\S+)",
        tmp_path / "log",
        {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    url = server.start()[1]
    try:
        with Crowd(url.removeprefix("http://"), 100) as crowd, Client(url) as client:
            assert crowd.complete.wait(TIMEOUT)
            for number in range(8):
                client.push(BLOB + bytes([number]))
    finally:
        server.stop()
    assert (
        "8 connections, the limit of open files (ulimit -n): closing the one that has "
        "been idle longest" in (tmp_path / "log").read_text()
    )


def test_where_the_process_has_no_descriptor_left_the_silent_make_room(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    assert registry._listener is not None
    real = registry._listener._socket

    class Scarce:
        """A listening socket of a process that may have two more sockets."""

        def accept(self) -> tuple[socket.socket, object]:
            clients = [each for each in threading.enumerate() if each.name == "registry-client"]
            if len(clients) >= 2:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    registry._listener._socket = Scarce()  # type: ignore[assignment]
    silent = [stack.enter_context(RawClient(registry.host)) for _ in range(2)]
    with Client(registry.url) as client:
        assert client.ask("GET", "/v2/").status_code == 200

    assert silent[0].closed()
    assert "Too many open files" in caplog.text


def test_where_threads_end_the_silent_make_room(
    registry: EmbeddedRegistry, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = limits.start_thread

    def start(thread: threading.Thread, what: str, *, is_required: bool = False) -> bool:
        clients = [each for each in threading.enumerate() if each.name == "registry-client"]
        return len(clients) < 2 and begin(thread, what, is_required=is_required)

    monkeypatch.setattr(listener, "start_thread", start)
    silent = [stack.enter_context(RawClient(registry.host)) for _ in range(2)]
    with Client(registry.url) as client:
        assert client.ask("GET", "/v2/").status_code == 200

    assert silent[0].closed()
