"""Limits of a mirror hold for all of its processes together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from concil.config import HostLimits, TransferConfig
from concil.errors import NotTried, QuotaExceeded, RegistryDenied
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from concil.transfer.mirror.report import MirrorItem, MirrorReport
from tests.engine.engine_setup import QUICK, engine_of
from tests.engine.processes.conftest import IMAGES, Destination, Source
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image
from tests.support.proxy import Proxy
from tests.support.rate_limited_front import FixedWindow, Limit, RateLimitedFront, TokenBucket
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.tokens.conftest import PASSWORD, USER

pytestmark = [pytest.mark.real, pytest.mark.process]
RATE = 40  # requests a second
# With so many, processes that do not share a rate are refused, and one that stalls is not.
LOW = 20


def mirror(
    source: Source, destination: str, config: TransferConfig = QUICK, processes: int = 2
) -> MirrorReport:
    with engine_of(config) as engine:
        return engine.mirror(source.items(destination), processes=processes)


def test_a_request_rate_is_that_of_all_processes(source: Source, destination: Destination) -> None:
    limit = TokenBucket(LOW, LOW)
    with RateLimitedFront(destination.registry.host, limit) as front:
        report = mirror(source, front.url, replace(QUICK, requests=0.8 * LOW))

    assert report.failed == []
    assert len(front.requests) > 4 * LOW
    assert front.rejected_requests == []


def test_a_rate_of_a_host_is_that_of_all_processes(
    source: Source, destination: Destination
) -> None:
    limit = TokenBucket(LOW, LOW)
    with RateLimitedFront(destination.registry.host, limit) as front:
        limits = {front.host: HostLimits(requests=0.8 * LOW)}
        report = mirror(source, front.url, replace(QUICK, host_limits=limits))

    assert report.failed == []
    assert front.rejected_requests == []


@pytest.mark.parametrize("kind", ["window", "bucket"])
def test_a_refusal_slows_all_processes_down(
    source: Source, destination: Destination, kind: str
) -> None:
    limit: Limit = FixedWindow(RATE) if kind == "window" else TokenBucket(RATE, RATE // 2)
    with RateLimitedFront(destination.registry.host, limit, retry_after=kind == "window") as front:
        report = mirror(source, front.url, replace(QUICK, concurrent_images=4))

    assert report.failed == []
    source.assert_copied(destination.registry.url)
    # As for one process: when the first is refused, up to eight are under way.
    assert len(front.rejected_requests) <= 8 + 0.06 * len(front.requests)


def test_jobs_of_a_host_are_those_of_all_processes(
    source: Source, destination: Destination
) -> None:
    with RateLimitedFront(destination.registry.host, TokenBucket(100_000, 100_000)) as front:
        limits = {front.host: HostLimits(jobs=3)}
        report = mirror(source, front.url, replace(QUICK, host_limits=limits), processes=4)

    assert report.failed == []
    assert 0 < front.max_concurrent <= 3


def test_bandwidth_is_that_of_all_processes(source: Source, destination: Destination) -> None:
    items = source.items(destination.relay.url)
    rate = 1 << 20  # bytes a second
    with engine_of(replace(QUICK, bandwidth=rate)) as engine:
        start_time = time.monotonic()
        report = engine.mirror(items, processes=2)
        seconds = time.monotonic() - start_time

    assert report.failed == []
    # A slow machine takes longer, but nothing makes this faster.
    assert seconds >= 0.9 * report.bytes_sent / rate


class Pulls(RegistryBehavior):
    """Allows so many GETs of a manifest, and tells how many are left."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.refused = 0
        self._lock = threading.Lock()  # guards all above

    def before_request(self, request: Request) -> Response | None:
        if request.method == "GET" and "/manifests/" in request.path:
            with self._lock:
                if self.left == 0:
                    self.refused += 1
                    return Response(429, {"Retry-After": "3000"}, b"pull rate limit")
                self.left -= 1
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        if "/manifests/" in request.path:
            reply.headers["ratelimit-limit"] = "100;w=21600"
            reply.headers["ratelimit-remaining"] = f"{self.left};w=21600"
            reply.headers["docker-ratelimit-source"] = "192.0.2.1"
        return reply


def test_no_pull_beyond_a_quota_is_sent(
    source: Source, destination: Destination, tmp_path: Path
) -> None:
    pulls = Pulls(1000)
    with EmbeddedRegistry(tmp_path / "limited", behavior=pulls) as limited:
        for number in range(IMAGES):
            put_image(limited.url, "app", f"v{number}", make_image(number, [10, 20]))
        pulls.left = 5
        with engine_of() as engine:
            report = engine.mirror(
                (
                    MirrorItem(f"{limited.url}/app:v{n}", f"{destination.relay.url}/app:v{n}")
                    for n in range(IMAGES)
                ),
                processes=3,
            )

    assert (len(report.copied), len(report.failed)) == (5, IMAGES - 5)
    assert (pulls.left, pulls.refused) == (0, 0)
    assert all(isinstance(outcome.error, QuotaExceeded) for outcome in report.failed)


class Counting(RegistryBehavior):
    """Counts the uploads that are open at once, and keeps each open for a moment."""

    def __init__(self) -> None:
        self.most = 0
        self._open = 0
        self._lock = threading.Condition()  # guards all above

    def before_request(self, request: Request) -> Response | None:
        if request.method == "PUT" and "/uploads/" in request.path:
            with self._lock:  # until one upload too many would be seen
                self._lock.wait_for(lambda: self._open > 1, 0.05)
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        with self._lock:
            if request.method == "POST" and reply.status == 202:
                self._open += 1
                self.most = max(self.most, self._open)
                self._lock.notify_all()
            elif request.method == "PUT" and "/uploads/" in request.path:
                self._open -= 1
        return reply


def test_uploads_at_once_are_those_of_all_processes(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    with Proxy() as proxy, EmbeddedRegistry(tmp_path / "t", behavior=counting) as target:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", source.url.removeprefix("http://"))
        report = mirror(source, f"http://public.ecr.aws:{target.host.rpartition(':')[2]}")

        assert report.failed == []
        source.assert_copied(target.url)
    assert counting.most == 1


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[Relay, RequestLog]]:
    log = RequestLog()
    with (
        DockerRegistry(tmp_path / "closed", users={USER: PASSWORD}) as registry,
        Relay(registry.host, observer=log) as relay,
    ):
        yield relay, log


@pytest.mark.parametrize("user", ["", f"{USER}:wrong@"])
def test_a_wrong_password_is_sent_once_and_one_image_fails(
    source: Source, closed: tuple[Relay, RequestLog], user: str
) -> None:
    relay, log = closed
    report = mirror(source, f"http://{user}{relay.host}", processes=3)

    assert len(report.failed) == IMAGES
    first = [o.error for o in report.failed if not isinstance(o.error, NotTried)]
    assert len(first) == 1
    assert isinstance(first[0], RegistryDenied)
    sent = [request for request in log.requests if "authorization" in request.headers]
    assert len(sent) == bool(user)


def test_a_right_password_is_sent_by_all_processes(
    source: Source, closed: tuple[Relay, RequestLog]
) -> None:
    relay, log = closed
    report = mirror(source, f"http://{USER}:{quote(PASSWORD, safe='')}@{relay.host}")

    assert (report.failed, len(report.copied)) == ([], IMAGES)
    assert all("authorization" in r.headers for r in log.matching("PUT"))
