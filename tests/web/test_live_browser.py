"""The live page in a real browser: it follows a mirror, and shows names as text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from concil.errors import NotFound, StoreError
from concil.oci.manifest import Digest
from concil.progress.events import Event, State
from concil.service.service_status import RunKind
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome
from concil.web import streams
from concil.web.live_mirror import MirrorNames
from concil.web.live_server import LiveServer
from tests.support.browser import Browser
from tests.web.conftest import Serve
from tests.web.live_setup import HOST, TOKEN, LiveSetup

pytestmark = pytest.mark.real

MANY = 10_000  # transfers
HOSTILE = "<img src=x onerror=window.owned=1></script><b>\u202egnp\u2028\x1b[2J\x00" + "n" * 900
IS_LIVE = "document.getElementById('link')?.className === 'live'"


@pytest.fixture(scope="session")
def live_chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(live_chromium: Browser) -> Browser:
    live_chromium.open_url("about:blank")
    live_chromium.resize(1280, 800)
    live_chromium.console_messages()
    live_chromium.external_requests()
    return live_chromium


def text_of(browser: Browser, identifier: str) -> str:
    return str(browser.run("return document.getElementById(arguments[0]).innerText", identifier))


def wait_for(browser: Browser, identifier: str, text: str) -> None:
    script = "document.getElementById(arguments[0])?.innerText.includes(arguments[1])"
    browser.wait(script, identifier, text)


def send_many(setup: LiveSetup, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        name = f"{number:064x}"
        for state, position in ((State.STARTED, 0), (State.DONE, 1000)):
            event = Event(
                "blob", f"sha256:{name}", f"{HOST}/app-{number % 50}", state, position, 1000,
                worker=f"worker-{number % 8}",
            )  # fmt: skip
            setup.live.record_event(event)


def test_it_follows_a_run_with_many_transfers_and_stays_small(
    browser: Browser, serve: Serve, setup: LiveSetup
) -> None:
    setup.begin()
    setup.live.set_expected_images(400)
    send_many(setup, MANY - 500)
    for number in range(300):
        setup.image(f"app:{number}")
    server = serve()
    browser.open_url(server.url)
    wait_for(browser, "transfer-count", "9,500")
    before = browser.run("return document.getElementsByTagName('*').length")

    send_many(setup, 500, MANY - 500)
    for number in range(300, 400):
        setup.image(f"app:{number}")
    wait_for(browser, "transfer-count", "10,000")
    wait_for(browser, "age-count", "400")
    wait_for(browser, "verdict", "400 of 400 images")
    browser.type("#search", "app-7")
    wait_for(browser, "transfer-count", "200 of 10,000")
    setup.end()
    wait_for(browser, "verdict", "All 400 images are up to date")
    wait_for(browser, "runs", "complete")
    setup.begin(RunKind.RETRY)
    setup.fail("app:5")
    wait_for(browser, "transfer-count", "0")
    wait_for(browser, "age-count", "0 of 400")  # the search goes on
    wait_for(browser, "failed", "check the tag")
    browser.click("#legend [data-kind=failed]")
    browser.wait("document.querySelectorAll('#legend [aria-pressed=true]').length === 1")

    after = browser.run("return document.getElementsByTagName('*').length")
    assert after < 2 * before < 4000
    assert browser.console_messages() == []
    assert all(url.startswith(server.url) for url in browser.external_requests())


def test_names_are_text_whatever_is_in_them(
    browser: Browser, serve: Serve, setup: LiveSetup
) -> None:
    hostile = setup.live
    hostile.names = MirrorNames(HOSTILE, HOSTILE, HOSTILE)
    setup.begin()
    error = NotFound(f"404 {HOSTILE}", remedy=HOSTILE)
    hostile.record_event(Event("image", HOSTILE, HOSTILE, State.FAILED, 0, None, HOSTILE))
    hostile.record_event(
        Event("blob", HOSTILE, HOSTILE, State.RETRYING, 5, 10, HOSTILE, HOSTILE, HOSTILE)
    )
    hostile.record_event(Event("host", HOSTILE, "", State.PAUSED, 0, None, HOSTILE, seconds=100))
    setup.fail("app:1", error)
    setup.status.record_failed_listing("quay.io/gone", StoreError(HOSTILE, remedy=HOSTILE))
    setup.status.record_plan_problem(HOSTILE)
    browser.open_url(serve().url)
    wait_for(browser, "failed", "404")
    wait_for(browser, "paused", "\\u{202e}")
    wait_for(browser, "active", "retrying")
    wait_for(browser, "plan-problem", "the last good one goes on: <img")

    for width in (400, 900, 1600):
        browser.resize(width, 900, dark=width == 900)
        browser.wait("document.documentElement.scrollWidth <= innerWidth")
    body = browser.run("return document.body.innerText")
    assert browser.run("return window.owned === undefined")
    assert browser.run("return document.images.length + document.querySelectorAll('b').length") == 0
    assert not set("\u202e\u2028\x1b\x00") & set(body)
    assert "\\u{202e}gnp" in body
    assert browser.console_messages() == []


def test_it_connects_again_and_shows_the_mirror_of_another_process(
    browser: Browser, setup: LiveSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RETRY_DELAY", 50)
    with LiveServer(setup.live, ("127.0.0.1", 0)) as first:
        browser.open_url(first.url)
        browser.wait(IS_LIVE)
        port = int(first.url.rpartition(":")[2].rstrip("/"))
    browser.wait("document.getElementById('link').innerText === 'No connection, trying again'")
    other = LiveSetup(setup.clock)
    other.begin(RunKind.RETRY)
    item = MirrorItem("quay.io/new:1", f"{HOST}/new:1")
    digest = Digest.parse(f"sha256:{'0' * 64}")
    other.status.record_outcome(
        Outcome(item, ImageResult(item.source, item.destination, State.DONE, digest))
    )

    with LiveServer(other.live, ("127.0.0.1", port)):
        browser.wait(IS_LIVE)
        wait_for(browser, "ages", "quay.io/new:1")
        browser.open_url("about:blank")


def test_a_login_and_a_click_let_a_run_begin(
    browser: Browser, serve: Serve, setup: LiveSetup
) -> None:
    server = serve(token=TOKEN)
    browser.open_url(server.url)
    browser.type("#token", "wrong-token-of-20-bytes")
    browser.click("button")
    wait_for(browser, "message", "This is not the token.")
    browser.type("#token", TOKEN)
    browser.click("button")
    browser.wait(IS_LIVE)
    browser.wait("document.getElementById('run-now')?.hidden === false")

    browser.click("#run-now")

    browser.wait("document.getElementById('run-now').disabled")
    setup.begin()
    wait_for(browser, "verdict", "Running")
    assert setup.requested_runs == 1
    assert TOKEN not in browser.run("return location.href + document.cookie")
