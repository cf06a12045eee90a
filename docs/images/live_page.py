# ruff: noqa: INP001  # a script, not a package
"""Takes the picture of docs/live-page.md: the page of a real mirror, in Chromium.

    python docs/images/live_page.py [DIRECTORY]

Run it in the root of the repository; chromium and chromedriver have to be installed, and ports 5001
to 5003 and 8080 of loopback must be free. A mirror is interrupted in the middle of a large blob and
started again, one of its sources pauses, and one image does not exist. DIRECTORY gets pictures in
other sizes, to look at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from concil.server import EmbeddedRegistry  # noqa: E402  # of this checkout
from concil.server.behavior import RegistryBehavior  # noqa: E402
from concil.server.http import Request, Response  # noqa: E402
from tests.support.browser import Browser  # noqa: E402
from tests.support.images import make_image, put_image  # noqa: E402

PAGE = "http://127.0.0.1:8080/"
TARGET = "127.0.0.1:5002/mirror"
MIB = 1 << 20
LARGE = {2: 48 * MIB, 5: 30 * MIB, 9: 36 * MIB}  # bytes of a layer, by number of the image
SMALL = 700_000
PAUSE = 90  # seconds
TIMEOUT = 60.0  # seconds until something is seen
SIZES = ((400, 1800, False), (900, 1600, True), (1600, 1900, False), (1600, 1900, True))


class PausingRegistry(RegistryBehavior):
    """A registry that pauses after some requests."""

    requests_left = 8

    def before_request(self, request: Request) -> Response | None:  # noqa: ARG002
        """Refuse the request if there were too many."""
        self.requests_left -= 1
        return None if self.requests_left >= 0 else Response(429, {"Retry-After": str(PAUSE)})


def main() -> None:
    """Write docs/images/live-page.png, and pictures of other sizes into a directory."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        pausing = PausingRegistry()
        pausing.requests_left = 1 << 30
        registries = [
            stack.enter_context(
                EmbeddedRegistry(directory / str(port), address=("127.0.0.1", port), behavior=each)
            )
            for port, each in ((5001, None), (5002, None), (5003, pausing))
        ]
        write_plan(directory / "plan.txt", registries[0], registries[2])
        with mirror(directory):
            wait_for(lambda run: any(MIB < t["position"] < 20 * MIB for t in run["transfers"]))
        pausing.requests_left = 8
        with mirror(directory), Browser(directory / "browser") as browser:
            wait_for(lambda run: bool(run["paused_hosts"]) and run["failed"])
            browser.open_url(PAGE)
            browser.resize(860, 1030)
            browser.wait("document.querySelectorAll('#active .note').length")
            time.sleep(2)  # a rate is known after some time
            browser.screenshot(ROOT / "docs" / "images" / "live-page.png")
            for width, height, dark in SIZES if len(sys.argv) > 1 else ():
                browser.resize(width, height, dark=dark)
                time.sleep(1.5)
                scheme = "dark" if dark else "light"
                browser.screenshot(Path(sys.argv[1]) / f"live-{width}-{scheme}.png")


def write_plan(path: Path, source: EmbeddedRegistry, other: EmbeddedRegistry) -> None:
    """Put the images into the sources, and write the list of them."""
    lines = []
    for number in range(14):
        registry = other if number % 4 == 3 else source
        repository, tag = f"team/service-{number % 5}", f"1.{number}"
        put_image(
            registry.url, repository, tag, make_image(number, (LARGE.get(number, SMALL), 9000))
        )
        lines.append(f"{registry.host}/{repository}:{tag}\n")
    lines.insert(1, f"{source.host}/team/service-1:2.0\n")
    path.write_text("".join(lines))


@contextlib.contextmanager
def mirror(directory: Path) -> Iterator[None]:
    """Run the mirror until the end of the ``with`` block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(directory)}
    command = [sys.executable, "-m", "concil", "mirror", str(directory / "plan.txt"), TARGET]
    options = ["--every=10m", "--http=127.0.0.1:8080", "--limit-rate=6M", "--jobs=6"]
    log = (directory / "log").open("ab")
    process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)  # noqa: S603
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)
        log.close()


def wait_for(is_reached: Callable[[dict[str, Any]], object]) -> None:
    """Wait until the run that goes on is as a function wants it."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            run = requests.get(f"{PAGE}api/status", timeout=TIMEOUT).json()["run"]
            if run is not None and is_reached(run):
                return
        time.sleep(0.1)
    raise TimeoutError("the mirror does something else")


if __name__ == "__main__":
    main()
