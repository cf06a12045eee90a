"""One browser for all tests of the page: its start takes longer than any of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run a browser; `browser` is what a test uses of it."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Return the browser in a usual size; no page may log anything or ask for anything."""
    chromium.resize(1280, 800)
    chromium.console_messages()
    chromium.external_requests()
    yield chromium
    assert chromium.console_messages() == []
    assert chromium.external_requests() == []
