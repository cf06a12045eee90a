"""The bars in a terminal multiplexer, whose window changes its width."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.cli.runner import PATIENCE, Program
from tests.support.images import make_image, put_image
from tests.support.relay import Relay
from tests.support.system import require_program

pytestmark = [pytest.mark.process, pytest.mark.real]


class Window:
    """A tmux server with one window, in which a command runs."""

    def __init__(self, tmux: str, directory: Path, columns: int) -> None:
        self._server = [tmux, "-S", str(directory / "tmux.socket")]
        self._directory, self._columns = directory, columns

    def start(self, argv: list[str], environment: dict[str, str]) -> None:
        """Run a command; the window stays when it has ended."""
        size = ["-x", str(self._columns), "-y", "20"]
        shell = f"{shlex.join(argv)}; sleep 1000"
        command = [*self._server, "-f", "/dev/null", "new-session", "-d", *size, shell]
        subprocess.run(command, cwd=self._directory, env=environment, check=True)

    def resize(self, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns))

    def wait_for(self, pattern: str) -> list[str]:
        """Return the lines of the window once they show a pattern."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            shown = self._tmux("capture-pane", "-p").rstrip()
            if re.search(pattern, shown, re.MULTILINE):
                return shown.splitlines()
            time.sleep(0.05)
        raise AssertionError(self._tmux("capture-pane", "-p"))

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = [*self._server, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    window = Window(require_program("tmux"), tmp_path, 100)
    yield window
    window.close()


def test_the_bars_follow_the_window(
    program: Program, registry: EmbeddedRegistry, window: Window, tmp_path: Path
) -> None:
    for number in range(3):
        put_image(registry.url, f"team/app{number}", "v1", make_image(number, (20_000_000,)))
    names = [f"{registry.host}/team/app{number}:v1" for number in range(3)]
    (tmp_path / "list").write_text("\n".join(names))
    with EmbeddedRegistry(tmp_path / "there") as there, Relay(there.host, rate=1_000_000) as link:
        environment = {**program.environment(), "LC_ALL": "C.UTF-8", "HOME": os.environ["HOME"]}
        window.start(program.argv("mirror", "list", f"{link.url}/m"), environment)
        wide = window.wait_for(r"^0/3 images .* left$(\n.*/19\.1 MiB.*){3}")
        window.resize(40)
        narrow = window.wait_for(r"^0/3 .*(\n\S+app\d:v1 +\d+%.*){3}\Z")
        window.resize(80)
        usual = window.wait_for(r"^0/3 images .*(\n\S+ \w{8} \|.*\| .*){3}\Z")
        window.press("C-c")
        window.wait_for(r"^stopping: 3 chunks to finish \(\d+ s at most\); Ctrl-C again quits$")
        link.rate = None
        last = window.wait_for(r"same command again to resume")

    for lines, width in ((wide, 100), (narrow, 40), (usual, 80)):
        assert len([line for line in lines if re.match(r"0/3", line)]) == 1, lines
        assert len([line for line in lines if "app" in line]) == 3, lines
        assert all(len(line) < width for line in lines)
    assert " ".join(last).startswith("concil: interrupted: ")
    assert "of 3 images done; " in " ".join(last)
