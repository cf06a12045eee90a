"""A live page for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests

from concil.web import page_feed
from concil.web.endpoints import RenderMetrics
from concil.web.live_server import LiveServer
from tests.service.conftest import FakeClock
from tests.web.live_setup import TIMEOUT, LiveSetup

Serve = Callable[..., LiveServer]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def setup(clock: FakeClock) -> LiveSetup:
    return LiveSetup(clock)


@pytest.fixture
def serve(setup: LiveSetup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Return what serves the page of `setup`; its messages come at once."""
    monkeypatch.setattr(page_feed, "INTERVAL", 0.02)
    with ExitStack() as stack:

        def start(token: str = "", metrics: RenderMetrics | None = None) -> LiveServer:
            server = LiveServer(setup.live, ("127.0.0.1", 0), token=token, metrics=metrics)
            return stack.enter_context(server)

        yield start


class Client:
    """Asks a page; without redirects, proxies and cookies of earlier answers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, path: str, method: str = "GET", **options: object) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            url = self.url.rstrip("/") + path
            return session.request(
                method,
                url,
                timeout=TIMEOUT,
                allow_redirects=False,
                **options,  # type: ignore[arg-type]
            )


@pytest.fixture
def ask(serve: Serve) -> Client:
    """Ask a page without a token."""
    return Client(serve().url)
