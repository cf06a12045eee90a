"""The relay counts every byte, and cuts where it should."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.support import images
from tests.support.faults import Action, Fault
from tests.support.relay import Relay
from tests.support.request_log import ProtocolError, RequestLog
from tests.support.tcp_peers import (
    connect,
    connect_and_read,
    read_all,
    receiving_server,
    sending_server,
    trigger_and_read,
)

SIZE = 3_000_000  # bytes: more than a socket holds


def send_for_ever(client: socket.socket, content: bytes) -> None:
    """Send until it fails: a small part may still fit into the socket."""
    while True:
        client.sendall(content)


def test_relay_counts_every_byte_of_both_directions() -> None:
    content = images.make_blob(1, SIZE)

    with sending_server(content) as host, Relay(host) as relay:
        answers = [trigger_and_read(relay.host) for _ in range(3)]
        relay.wait_for(lambda relay: relay.open_connections == 0)

        assert answers == [(content, None)] * 3
        assert (relay.connections, relay.bytes_up, relay.bytes_down) == (3, 3, 3 * SIZE)
        relay.reset_counters()
        assert (relay.connections, relay.bytes_up, relay.bytes_down) == (0, 0, 0)


@pytest.mark.parametrize("after", [1, 65_537, 1_000_000, SIZE - 1])
@pytest.mark.parametrize(("action", "error"), [("fin", None), ("rst", ConnectionResetError)])
def test_answer_is_cut_at_the_exact_byte(
    action: Action, error: type[OSError] | None, after: int
) -> None:
    content = images.make_blob(2, SIZE)

    with (
        sending_server(content) as host,
        Relay(host, faults=[Fault(action=action, after=after)]) as cut,
    ):
        assert trigger_and_read(cut.host) == (content[:after], error)
        assert trigger_and_read(cut.host) == (content, None)
        assert cut.fired_count == 1


@pytest.mark.parametrize("after", [1, 1_000_000, SIZE - 1])
@pytest.mark.parametrize(("action", "error"), [("fin", None), ("rst", ConnectionResetError)])
def test_upload_is_cut_at_the_exact_byte(
    action: Action, error: type[OSError] | None, after: int
) -> None:
    content = images.make_blob(3, SIZE)
    fault = Fault(action=action, after=after, direction="up")

    with receiving_server() as (host, received), Relay(host, faults=[fault]) as relay:
        with connect(relay.host) as client, pytest.raises(ConnectionError):
            send_for_ever(client, content)
        relay.wait_for(lambda relay: relay.open_connections == 0)

        assert relay.bytes_up == after
        assert received.get(timeout=30) == (content[:after], error)


def test_fault_hits_every_second_connection_and_as_often_as_said() -> None:
    fault = Fault(action="fin", after=10, every=2, times=2)

    with sending_server(b"a" * 100) as host, Relay(host, faults=[fault]) as relay:
        sizes = [len(trigger_and_read(relay.host)[0]) for _ in range(8)]

    assert sizes == [100, 10, 100, 10, 100, 100, 100, 100]


def test_fault_without_a_bound_hits_always() -> None:
    fault = Fault(action="rst", after=10, times=None)

    with sending_server(b"a" * 100) as host, Relay(host, faults=[fault]) as relay:
        assert [len(trigger_and_read(relay.host)[0]) for _ in range(3)] == [10, 10, 10]


def test_fault_counts_the_bytes_of_all_connections() -> None:
    fault = Fault(action="rst", after=250, total=True)

    with sending_server(b"a" * 100) as host, Relay(host, faults=[fault]) as relay:
        sizes = [len(trigger_and_read(relay.host)[0]) for _ in range(5)]

    assert sizes == [100, 100, 50, 100, 100]


def test_an_answer_is_lost_before_its_first_byte() -> None:
    with (
        sending_server(b"answer") as host,
        Relay(host, faults=[Fault(action="rst", after=0)]) as relay,
    ):
        assert trigger_and_read(relay.host) == (b"", ConnectionResetError)
        assert relay.bytes_up == 1


def test_stalled_connection_stays_open_and_goes_on_when_mended() -> None:
    content = images.make_blob(4, SIZE)

    with (
        sending_server(content) as host,
        Relay(host, faults=[Fault(action="stall", after=1_000_000)]) as relay,
        connect(relay.host) as client,
    ):
        client.sendall(b"x")
        first = b""
        while len(first) < 1_000_000:
            first += client.recv(65536)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(30)
        relay.clear_faults()

        assert first + read_all(client)[0] == content
        assert relay.fired_count == 1


def test_refused_connections_are_accepted_again_on_the_same_port() -> None:
    with sending_server(b"answer") as host, Relay(host) as relay:
        relay.stop_accepting()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connect(relay.host)
        relay.resume_accepting()

        assert trigger_and_read(relay.host) == (b"answer", None)
        assert relay.connections == 1


@pytest.mark.parametrize(("action", "error"), [("fin", None), ("rst", ConnectionResetError)])
def test_open_connections_are_cut_on_demand(action: Action, error: type[OSError] | None) -> None:
    with receiving_server() as (host, _), Relay(host) as relay, connect(relay.host) as client:
        relay.wait_for(lambda relay: relay.open_connections == 1)
        relay.break_connections(action)

        assert read_all(client) == (b"", error)


def test_relay_resets_a_client_when_the_server_is_not_there() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets the port
        target = f"127.0.0.1:{silent.getsockname()[1]}"

        with Relay(target) as relay, pytest.raises(ConnectionResetError):
            connect_and_read(relay.host)


def test_latency_is_added_to_each_direction() -> None:
    with sending_server(b"answer") as host, Relay(host, latency=50) as relay:
        started = time.monotonic()
        trigger_and_read(relay.host)

        assert time.monotonic() - started >= 0.1


def test_rate_bounds_what_a_connection_carries() -> None:
    content = images.make_blob(5, 200_000)

    with sending_server(content) as host, Relay(host, rate=1_000_000) as relay:
        started = time.monotonic()
        assert trigger_and_read(relay.host) == (content, None)

        assert time.monotonic() - started >= 0.2


def test_closing_a_relay_ends_its_thread_and_its_connections() -> None:
    before = threading.active_count()

    with sending_server(b"") as host:
        relay = Relay(host)
        client = connect(relay.host)
        relay.wait_for(lambda relay: relay.open_connections == 1)
        relay.close()
        relay.close()
        with client:
            assert read_all(client) == (b"", ConnectionResetError)
        with pytest.raises(RuntimeError, match="closed"):
            relay.stop_accepting()

    assert threading.active_count() == before


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_requests_are_parsed_however_they_are_cut(step: int) -> None:
    stream = (
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        b"PATCH /v2/a/blobs/uploads/1?_state=x HTTP/1.1\r\ncontent-length: 16\r\n\r\n"
        b"GET / HTTP/1.1\r\n"
        b"PUT /v2/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nGET \r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
        b"GET /v2/ HTTP/1.1\r\n\r\n"
    )
    log = RequestLog()

    for start in range(0, len(stream), step):
        log.upstream(1, stream[start : start + step])

    assert [(each.method, each.path, each.body_size) for each in log.requests] == [
        ("POST", "/v2/a/blobs/uploads/", 0),
        ("PATCH", "/v2/a/blobs/uploads/1?_state=x", 16),
        ("PUT", "/v2/a", 14),
        ("GET", "/v2/", 0),
    ]
    assert all(each.is_complete for each in log.requests)
    assert log.requests[1].headers["content-length"] == "16"


def test_what_is_not_http_is_reported() -> None:
    log = RequestLog()

    log.upstream(1, b"\x16\x03\x01 a TLS hello\r\n\r\n")

    with pytest.raises(ProtocolError):
        log.count()
