"""What an observer receives: each request, retry, token and quota."""

from __future__ import annotations

import pytest

from concil.http.transport import Transport
from concil.progress.request_observer import Exchange, TeeObserver
from concil.registry.client import RegistryClient
from tests.support.scripted_server import NO_RESPONSE, ScriptedServer, reply

TAGS = "/v2/team/app/tags/list.*"
ANSWER = reply(200, '{"name": "team/app", "tags": ["v1"]}')


class Recorder:
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.retries: list[str] = []
        self.tokens: list[str] = []
        self.quotas: list[tuple[str, int, int | None]] = []

    def record_request(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def record_retry(self, host: str) -> None:
        self.retries.append(host)

    def record_token(self, host: str) -> None:
        self.tokens.append(host)

    def record_quota(self, host: str, remaining: int, limit: int | None) -> None:
        self.quotas.append((host, remaining, limit))

    @property
    def statuses(self) -> list[int | None]:
        return [exchange.status for exchange in self.exchanges]


@pytest.fixture
def recorder(transport: Transport) -> Recorder:
    recorder = Recorder()
    transport.host_limiters.observer = recorder
    return recorder


def test_each_request_is_reported_with_its_retries(
    server: ScriptedServer, client: RegistryClient, recorder: Recorder
) -> None:
    server.respond("GET", TAGS, reply(503), NO_RESPONSE, ANSWER)

    assert list(client.list_tags()) == ["v1"]

    assert recorder.statuses == [503, None, 200]
    assert recorder.retries == [server.host] * 2
    assert {exchange.method for exchange in recorder.exchanges} == {"GET"}
    assert {exchange.host for exchange in recorder.exchanges} == {server.host}
    assert all(exchange.seconds >= 0 for exchange in recorder.exchanges)


def test_each_redirect_is_a_request_of_its_host(
    server: ScriptedServer, storage: ScriptedServer, client: RegistryClient, recorder: Recorder
) -> None:
    server.respond("GET", TAGS, reply(307, Location=f"{storage.url}/list"))
    storage.respond("GET", "/list", ANSWER)

    assert list(client.list_tags()) == ["v1"]

    reported = [(exchange.host, exchange.status) for exchange in recorder.exchanges]
    assert reported == [(server.host, 307), (storage.host, 200)]


def test_a_token_is_reported_once(
    server: ScriptedServer, client: RegistryClient, recorder: Recorder
) -> None:
    challenge = f'Bearer realm="{server.url}/token",service="r"'
    server.respond("GET", TAGS, reply(401, WWW_Authenticate=challenge), ANSWER)
    server.respond("GET", "/token.*", reply(200, '{"token": "x"}'))

    for _ in range(2):
        assert list(client.list_tags()) == ["v1"]

    assert recorder.tokens == [server.host]
    assert recorder.statuses == [401, 200, 200, 200]


def test_a_quota_is_reported_with_each_answer_that_has_one(
    server: ScriptedServer, client: RegistryClient, recorder: Recorder
) -> None:
    headers = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "97;w=21600"}
    server.respond("GET", TAGS, reply(200, ANSWER.body, **headers), ANSWER)

    for _ in range(2):
        list(client.list_tags())

    assert recorder.quotas == [(server.host, 97, 100)]


def test_several_observers_receive_the_same() -> None:
    both = Recorder(), Recorder()
    tee = TeeObserver(*both)

    tee.record_request(Exchange("GET", "https://r", "r", 200, 0.0, 0.1))
    tee.record_retry("r")
    tee.record_token("r")
    tee.record_quota("r", 1, 2)

    for recorder in both:
        assert recorder.statuses == [200]
        assert (recorder.retries, recorder.tokens) == (["r"], ["r"])
        assert recorder.quotas == [("r", 1, 2)]
