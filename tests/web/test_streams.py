"""Streams: readers that come back, that are too slow, and that are too many."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests

from concil.progress.events import State
from concil.server import connection_table
from concil.server.connection import Connection
from concil.service.service_status import RunKind
from concil.web import endpoints, live_server, page_feed, streams
from concil.web.event_log import MAX_EVENTS
from tests.server.half_open_connections import Crowd
from tests.web.conftest import Client, Serve
from tests.web.live_setup import TOKEN, LiveSetup, SentEvent, follow


def number_of(event: SentEvent) -> int:
    return int(event.identifier.partition("-")[2])


def test_a_new_page_gets_the_whole_state_and_then_what_changes(
    serve: Serve, setup: LiveSetup
) -> None:
    setup.begin()
    setup.image("app:1")
    setup.blob("a", State.STARTED)

    with follow(serve().url, "/api/live") as reader:
        first = reader.next()
        setup.blob("b", State.STARTED)
        setup.fail("app:2")
        second = reader.next_with("update", "app:2")

    assert first.event == "state"
    assert len(first.data["report"]["transfers"]["digest"]) == 1
    assert first.data["ages"]["source"] == ["quay.io/app:1"]
    assert [name[-1] for name in second.data["changes"]["transfers"]["digest"]] in ([], ["b"])
    assert second.data["changes"]["images"]["source"] == ["quay.io/app:2"]
    assert second.data["ages"]["failure"]["0"][:2] == ["404 not there", "check the tag"]


def test_the_next_run_comes_as_a_whole(serve: Serve, setup: LiveSetup) -> None:
    setup.begin()
    setup.blob("a", State.STARTED)
    setup.end()
    with follow(serve().url, "/api/live") as reader:
        reader.next()
        setup.begin()
        found = reader.next_with("run", '"running"')

    assert found.data["report"]["transfers"]["digest"] == []
    assert [run["result"] for run in found.data["service"]["runs"]] == ["done"]


def test_a_run_that_was_left_out_leaves_what_is_shown(serve: Serve, setup: LiveSetup) -> None:
    setup.begin()
    setup.blob("a", State.STARTED)
    setup.end()
    with follow(serve().url, "/api/live") as reader:
        first = reader.next()
        setup.live.leave_out_run(RunKind.PLAN)
        found = reader.next_with("update", "left_out")

    assert first.data["progress"]["number"] == found.data["progress"]["number"] == 1
    assert [run["result"] for run in found.data["service"]["runs"]] == ["left_out", "done"]


def test_a_page_that_comes_back_gets_what_it_has_missed(serve: Serve, setup: LiveSetup) -> None:
    url = serve().url
    setup.begin()
    with follow(url, "/api/live") as reader:
        first = reader.next()
        with follow(url, "/api/live") as other:
            other.next()
            setup.image("app:1")
            seen = reader.next_with("update", "app:1")

            with follow(url, "/api/live", {"Last-Event-ID": first.identifier}) as again:
                missed = again.next_with("update", "app:1")

    assert missed == seen


@pytest.mark.parametrize(
    "identifier", ["{instance}-9999999", "0badcafe-1", "nonsense", "{instance}-x"]
)
def test_a_page_of_another_process_or_too_far_behind_gets_the_whole_state(
    serve: Serve, setup: LiveSetup, identifier: str
) -> None:
    headers = {"Last-Event-ID": identifier.replace("{instance}", setup.live.instance)}

    with follow(serve().url, "/api/live", headers) as reader:
        assert reader.next().event == "state"


def test_a_page_that_was_away_for_long_gets_the_whole_state(
    serve: Serve, setup: LiveSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_feed, "_MAX_KEPT", 2)
    url = serve().url
    setup.begin()
    with follow(url, "/api/live") as reader:
        first = reader.next()
        for number in range(5):
            setup.image(f"app:{number}")
            reader.next_with("update", f"app:{number}")

        with follow(url, "/api/live", {"Last-Event-ID": first.identifier}) as again:
            found = again.next()

    assert found.event == "state"
    assert len(found.data["ages"]["source"]) == 5


def test_many_changes_come_in_parts(
    serve: Serve, setup: LiveSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_feed, "_MAX_RECORDS", 10)
    setup.begin()
    with follow(serve().url, "/api/live") as reader:
        reader.next()
        for number in range(35):
            setup.image(f"app:{number}")
        seen: set[str] = set()
        ages: set[str] = set()
        while len(seen) < 35 or len(ages) < 35:
            update = reader.next()
            found = update.data["changes"]["images"]["source"]
            assert len(found) <= 10
            seen.update(found)
            ages.update(update.data["ages"]["source"])

    assert seen == ages == {f"quay.io/app:{number}" for number in range(35)}


def test_images_that_left_the_plan_leave_the_page(serve: Serve, setup: LiveSetup) -> None:
    setup.begin()
    setup.image("app:1")
    setup.image("app:2")
    setup.end()
    with follow(serve().url, "/api/live") as reader:
        [gone, _] = reader.next().data["ages"]["number"]
        setup.begin()
        setup.image("app:2")
        reader.next_with("run", '"running"')
        setup.end()
        while not (removed := reader.next().data["removedAges"]):
            pass

    assert removed == [gone]


def test_a_reader_of_events_continues_where_it_was(serve: Serve, setup: LiveSetup) -> None:
    url = serve().url
    with follow(url, "/api/events") as reader:
        setup.live.record_message("info", "one")
        setup.live.record_message("info", "two")
        first = reader.next()
    setup.live.record_message("info", "three")

    with follow(url, "/api/events", {"Last-Event-ID": first.identifier}) as again:
        found = [again.next() for _ in range(2)]

    assert [event.data["message"] for event in found] == ["two", "three"]
    assert [number_of(event) for event in found] == [2, 3]


def test_a_reader_of_events_is_told_how_many_it_has_missed(serve: Serve, setup: LiveSetup) -> None:
    for number in range(MAX_EVENTS + 10):
        setup.live.record_message("info", str(number))

    with follow(serve().url, "/api/events", {"Last-Event-ID": "0badcafe-1"}) as reader:
        missed, first = reader.next(), reader.next()

    assert (missed.event, missed.data) == ("missed", {"missed": 10})
    assert first.data["message"] == "10"


def test_the_stream_that_is_open_longest_ends_for_a_new_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_server, "StreamTable", lambda _: streams.StreamTable(2))
    url = serve().url
    with (
        follow(url, "/api/live") as first,
        follow(url, "/api/events"),
        follow(url, "/api/live") as third,
    ):
        assert first.is_at_end()
        assert third.next().event == "state"


def test_readers_that_do_not_read_neither_hold_the_mirror_up_nor_keep_others_away(
    serve: Serve, setup: LiveSetup
) -> None:
    url = serve().url
    address = urlsplit(url)
    threads = threading.active_count()
    setup.begin()
    with ExitStack() as stack:
        for number in range(3 * streams.MAX_STREAMS):
            sock = socket.create_connection((address.hostname, address.port or 0), timeout=30)
            stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            path = ("/api/events", "/api/live")[number % 2]
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        for number in range(2 * MAX_EVENTS):  # more than all buffers hold
            setup.blob(f"{number % 500:x}", State.MOVING, number)

        with follow(url, "/api/events") as reader:
            setup.end()
            assert reader.next_with("message", '"run"').data["state"] == "done"
        assert Client(url)("/healthz").status_code == 200
        assert threading.active_count() - threads <= live_server.MAX_CONNECTIONS + 1


def test_streams_leave_room_for_others_if_there_are_few_descriptors(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_table, "_max_connections", lambda: 8)
    url = serve().url
    address = urlsplit(url)
    with ExitStack() as stack:
        for _ in range(30):
            sock = socket.create_connection((address.hostname, address.port or 0), timeout=30)
            stack.enter_context(sock)
            sock.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert Client(url)("/healthz").status_code == 200


def test_connections_without_a_request_do_not_keep_others_away(serve: Serve) -> None:
    server = serve()
    host = urlsplit(server.url).netloc
    with Crowd(host, live_server.MAX_CONNECTIONS + 50, b"GET / HTT") as crowd:
        crowd.complete.wait(30)

        answer = Client(server.url)("/healthz")

    assert answer.status_code == 200


def test_the_end_of_the_server_ends_the_streams(serve: Serve) -> None:
    server = serve()
    with follow(server.url, "/api/live") as reader:
        reader.next()
        server.close()

        assert reader.is_at_end()
    with pytest.raises(requests.ConnectionError):
        Client(server.url)("/healthz")


def test_a_reader_that_takes_too_long_for_a_message_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = streams.Stream(Connection(ours))

        with pytest.raises(TimeoutError):
            stream.send(b"x" * 10_000_000)


def test_a_body_that_nobody_wants_is_not_waited_for(ask: Client) -> None:
    address = urlsplit(ask.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as sock:
        sock.sendall(
            b"POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        )
        answer = sock.makefile("rb").read()  # to the end of the answer

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Connection: close" in answer


def test_a_form_that_takes_too_long_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "FORM_TIMEOUT", 0.0)
    address = urlsplit(serve(token=TOKEN).url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as sock:
        sock.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nt")
        answer = sock.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_stream_ends_when_its_reader_has_left() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        stream = streams.Stream(Connection(ours))
        assert stream.wait(0)
        theirs.close()

        assert not stream.wait(30)
