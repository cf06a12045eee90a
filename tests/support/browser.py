"""A real browser without a screen, asked over the WebDriver protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import requests

from tests.support.process import ServerError, ServerProcess
from tests.support.system import require_program

TIMEOUT = 60  # seconds of one command
READY = r"started successfully on port (\d+)"
Answer: TypeAlias = Any  # what the other side says: any JSON
_DRIVER_STARTS = 5
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of a reference
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
)
# What a page asks for from elsewhere; a file, a data: URL and the browser's own pages are not.
_EXTERNAL_URL = re.compile(r"(?!file:|data:|about:|chrome)")


class BrowserError(RuntimeError):
    """The browser refused a command; the message is its own."""


class Browser:
    """One chromium with an empty profile; it ends with the `with` block.

    Args:
        directory: Where its profile and the driver's log go.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._profile = tempfile.mkdtemp(prefix="profile-", dir=directory)
        self._chromium = require_program("chromium")
        # An environment without DISPLAY and proxies, and a home for what it leaves.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory)}
        self._driver = ServerProcess(
            [require_program("chromedriver"), "--port=0", "--allowed-origins=*"],
            READY,
            directory / "chromedriver.log",
            environment,
        )
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = ""

    def __enter__(self) -> Self:
        base = f"http://127.0.0.1:{self._start_driver()}/session"
        options = {
            "binary": self._chromium,
            "args": [*_FLAGS, f"--user-data-dir={self._profile}"],
        }
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        try:
            answer = self._send_command("POST", base, {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._url = f"{base}/{answer['sessionId']}"
        return self

    def _start_driver(self) -> str:
        """Return the port of the driver, which has the same one for both IP versions.

        It takes any free port of IPv6 and ends if another program has that one in IPv4.
        """
        for _ in range(_DRIVER_STARTS - 1):
            with contextlib.suppress(ServerError):
                return self._driver.start()[1]
        return self._driver.start()[1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._send_command("DELETE", self._url)  # ends chromium
        finally:
            self._session.close()
            self._driver.stop()

    def open(self, page: Path) -> None:
        """Load a page from disk and wait until it has run its scripts."""
        self.open_url(page.absolute().as_uri())

    def open_url(self, url: str) -> None:
        """Load a page and wait until it has run its scripts."""
        self._post("/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Answer:
        """Run the body of a function in the page; return what it returns."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: object) -> None:
        """Wait until an expression is true in the page.

        Raises:
            TimeoutError: it was not in TIMEOUT seconds.
        """
        until = time.monotonic() + TIMEOUT
        while not self.run(f"return Boolean({script})", *arguments):
            if time.monotonic() > until:
                raise TimeoutError(f"not in {TIMEOUT} s: {script}")
            # A frame: what the page does after an event, it does in the next one.
            self._async("requestAnimationFrame(() => arguments[0]())")

    def type(self, selector: str, text: str) -> None:
        """Type into an element, which gets the focus."""
        self._post(f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on the middle of an element, as a mouse does."""
        self._post(f"/element/{self._find(selector)}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._perform_actions({"type": "key", "id": "keys", "actions": steps})

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse at a place of the window and let it go at another."""

        def move(place: tuple[float, float]) -> dict[str, object]:
            return {"type": "pointerMove", "duration": 20, "x": int(place[0]), "y": int(place[1])}

        down, up = ({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp"))
        steps = [move(start), down, move(stop), up]
        self._perform_actions({"type": "pointer", "id": "mouse", "actions": steps})

    def move_mouse(self, position: tuple[float, float]) -> None:
        """Move the mouse to a place of the window."""
        step = {"type": "pointerMove", "duration": 0, "x": int(position[0]), "y": int(position[1])}
        self._perform_actions({"type": "pointer", "id": "mouse", "actions": [step]})

    def resize(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Give the page a window of so many CSS pixels and a colour scheme."""
        metrics: dict[str, object] = {
            "width": width,
            "height": height,
            "deviceScaleFactor": scale,
            "mobile": False,
        }
        self._cdp("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._get("/screenshot")))

    def console_messages(self) -> list[str]:
        """Return what the pages have logged since the last call: errors, and all they say."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def external_requests(self) -> list[str]:
        """Return the URLs outside of this disk that were asked for since the last call."""
        found = []
        for entry in self._post("/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return [url for url in found if _EXTERNAL_URL.match(url)]

    def measure(self, action: Callable[[], object]) -> float:
        """Return how many seconds an action takes until the page has drawn what it led to."""
        began = time.monotonic()
        action()
        self._async("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")
        return time.monotonic() - began

    def _find(self, selector: str) -> str:
        found = self._post("/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])

    def _perform_actions(self, source: dict[str, object]) -> None:
        self._post("/actions", {"actions": [source]})

    def _async(self, script: str) -> Answer:
        return self._post("/execute/async", {"script": script, "args": []})

    def _cdp(self, command: str, parameters: dict[str, object]) -> Answer:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _get(self, path: str) -> Answer:
        return self._send_command("GET", self._url + path)

    def _post(self, path: str, body: dict[str, object]) -> Answer:
        return self._send_command("POST", self._url + path, body)

    def _send_command(self, method: str, url: str, body: dict[str, object] | None = None) -> Answer:
        answer = self._session.request(method, url, json=body, timeout=TIMEOUT)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise BrowserError(f"{method} {url}: {value['error']}: {value['message']}")
        return value
