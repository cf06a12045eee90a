# ruff: noqa: INP001  # a script, not a package
"""Captures the screens of docs/progress.md from a real terminal: a mirror in tmux.

    python docs/images/screens.py [PAGE.md]

Run it with an interpreter beside which `concil` is installed; tmux has to be installed too. It
mirrors images between two embedded registries that pause, stall and lose a session when
told to, and writes what the terminal showed into the blocks of the page that are marked with
`<!-- screen: NAME -->`. Ports 5001 and 5002 of loopback must be free.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from concil import DockerHub
from concil.server import EmbeddedRegistry
from concil.server.behavior import Chunk, RegistryBehavior
from concil.server.errors import DropConnection, ErrorResponse
from concil.server.http import Request, Response

SOURCE, DESTINATION = ("127.0.0.1", 5001), ("127.0.0.1", 5002)
MIB = 1 << 20
SHOWN, LOGGED = 12, 30  # images of a mirror on a terminal, and of one with a log
LARGE_LAYERS = {3: 40 * MIB, 7: 56 * MIB, 11: 24 * MIB}  # bytes, by number of the image
SMALL_LAYER = 150_000  # bytes
PAUSE, STALL = 20, 12  # seconds
TIMEOUT = 120  # seconds for a screen to appear
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"


class UnreliableRegistry(RegistryBehavior):
    """A registry that misbehaves once each time it is told to."""

    def __init__(self) -> None:
        """Behave well."""
        self.pauses, self.stalls = threading.Event(), threading.Event()
        self.loses = threading.Event()
        self.drops = threading.Event()  # every chunk but the first of a blob, until it is cleared

    def before_request(self, request: Request) -> Response | None:
        """Refuse a request because of too many, or answer a chunk late."""
        if _take(self.pauses):
            return Response(429, {"Retry-After": str(PAUSE)}, b"")
        if request.method == "PATCH" and _take(self.stalls):
            time.sleep(STALL)
        return None

    def check_chunk(self, chunk: Chunk) -> None:
        """Break a connection, or lose a session."""
        if chunk.offset and self.drops.is_set():
            raise DropConnection
        if chunk.offset and _take(self.loses):
            raise ErrorResponse("BLOB_UPLOAD_UNKNOWN", "no such upload session", status=404)
        super().check_chunk(chunk)


def _take(fault: threading.Event) -> bool:
    """Return whether a fault is due; it happens once."""
    is_due = fault.is_set()
    fault.clear()
    return is_due


class Terminal:
    """A tmux server with one pane, in which a shell runs."""

    def __init__(self, directory: Path, columns: int, rows: int = 24) -> None:
        """Start it."""
        self._socket = f"concil-screens-{os.getpid()}-{columns}-{time.monotonic_ns()}"
        self.columns = columns
        environment = {
            **os.environ,
            "LC_ALL": "C.UTF-8",
            "XDG_STATE_HOME": str(directory / "state"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        size = ["-x", str(columns), "-y", str(rows)]
        command = ["tmux", "-L", self._socket, "-f", "/dev/null", "new-session", "-d", *size, "sh"]
        subprocess.run(command, cwd=directory, env=environment, check=True)  # noqa: S603
        self._tmux("send-keys", "PS1='$ '", "Enter")

    def type(self, *keys: str) -> None:
        """Press keys."""
        self._tmux("send-keys", *keys)

    def run(self, command: str) -> None:
        """Type a command into an empty screen."""
        self._tmux("send-keys", "clear", "Enter")
        self.wait_for(r"\A\$\Z")
        self._tmux("send-keys", command, "Enter")

    def resize(self, columns: int) -> None:
        """Change the width."""
        self.columns = columns
        self._tmux("resize-window", "-x", str(columns))

    def screen(self) -> str:
        """Return what is on the screen."""
        return self._tmux("capture-pane", "-p").rstrip()

    def wait_for(self, pattern: str) -> str:
        """Return the screen once it shows a pattern."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            shown = self.screen()
            if re.search(pattern, shown):
                return shown
            time.sleep(0.05)
        raise SystemExit(f"the screen never showed {pattern!r}:\n{self.screen()}")

    def close(self) -> None:
        """End the server and what runs in it."""
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._socket, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


@dataclass(frozen=True, slots=True)
class Stage:
    """The registries and the plan of a mirror."""

    directory: Path
    behavior: UnreliableRegistry
    source: str  # host:port
    destination: str  # host:port
    images: tuple[str, ...]  # addresses

    def command(self, rate: str, more: str = "") -> str:
        """Return a mirror command."""
        return f"concil mirror images.txt {self.destination}/mirror --limit-rate {rate}{more}"

    def write_plan(self, images: Sequence[str]) -> None:
        """Write the list of images."""
        (self.directory / "images.txt").write_text("".join(f"{name}\n" for name in images))

    def forget(self) -> None:
        """Forget what was mirrored."""
        shutil.rmtree(self.directory / "destination")
        shutil.rmtree(self.directory / "state", ignore_errors=True)


def fill(host: str) -> Iterator[str]:
    """Create the images; yield their addresses."""
    generator = random.Random(1)  # not a secret
    for number in range(LOGGED):
        with DockerHub(f"http://{host}/team/app-{number}") as hub:
            sizes = [SMALL_LAYER, *filter(None, [LARGE_LAYERS.get(number)])]
            layers = [_push(hub, generator.randbytes(size), LAYER) for size in sizes]
            diff_ids = [layer["digest"] for layer in layers]
            config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers"}}
            config["rootfs"]["diff_ids"] = diff_ids  # type: ignore[index]
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _push(hub, json.dumps(config).encode(), CONFIG),
                "layers": layers,
            }
            hub.post_manifest(json.dumps(manifest).encode(), "1.4", MANIFEST)
        yield f"{host}/team/app-{number}:1.4"


def _push(hub: DockerHub, content: bytes, media_type: str) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    hub.post_blob_data(content, digest)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def capture_faults(stage: Stage, columns: int) -> Iterator[tuple[str, str]]:
    """Yield the screens of one mirror: its start, its troubles and its end."""
    terminal, behavior = Terminal(stage.directory, columns), stage.behavior
    with contextlib.closing(terminal):
        terminal.run(stage.command("8M"))
        yield f"start-{columns}", terminal.wait_for(r"\d/12[^\n]*MiB/s")
        behavior.pauses.set()
        yield f"pause-{columns}", terminal.wait_for(r"paused")
        terminal.wait_for(r"[2-9]\.\d+/|[2-9]\d%")
        behavior.loses.set()
        yield f"restart-{columns}", terminal.wait_for(r"restart")
        # Until it is seen: a chunk takes seconds, and the first pause may be short.
        behavior.drops.set()
        yield f"retry-{columns}", terminal.wait_for(r"(MiB|%) retrying")
        behavior.drops.clear()
        behavior.stalls.set()
        yield f"stall-{columns}", terminal.wait_for(r"stalled [4-9] s")
        yield f"end-{columns}", terminal.wait_for(r"12 images: 12 copied[^$]*\$\Z")


def capture_interrupts(stage: Stage, columns: int) -> Iterator[tuple[str, str]]:
    """Yield the screens after Ctrl-C once, of the same command again, and after Ctrl-C twice."""
    terminal = Terminal(stage.directory, columns)
    with contextlib.closing(terminal):
        terminal.run(stage.command("6M"))
        terminal.wait_for(r"9/12[^\n]*\n.*[1-9]\d\.\d/")
        terminal.type("C-c")
        yield f"stopping-{columns}", terminal.wait_for("stopping: .*")
        yield f"stopped-{columns}", terminal.wait_for(r"interrupted: [^$]*\$\Z")
        terminal.run(stage.command("6M"))
        yield f"resumed-{columns}", terminal.wait_for("resumed at")
        stage.behavior.stalls.set()
        terminal.wait_for("stalled")
        terminal.type("C-c")
        terminal.wait_for("stopping: ")
        terminal.type("C-c")
        yield f"killed-{columns}", terminal.wait_for(r"interrupted: [^$]*\$\Z")


def capture_resize(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield the screen of a window that becomes narrower and wider again."""
    terminal = Terminal(stage.directory, 120)
    with contextlib.closing(terminal):
        terminal.run(stage.command("6M", " --recheck"))
        terminal.wait_for(r"\d/12[^\n]*\n.*/s")
        terminal.resize(60)
        time.sleep(1)
        yield "resize-60", terminal.screen()
        terminal.resize(100)
        time.sleep(1)
        yield "resize-100", terminal.screen()


def capture_log(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield the log of a run without a terminal, in which one image is missing."""
    stage.write_plan((*stage.images, f"{stage.source}/team/gone:1.4"))
    command = ["concil", *shlex.split(stage.command("20M"))[1:]]
    environment = {**os.environ, "XDG_STATE_HOME": str(stage.directory / "state")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    result = subprocess.run(  # noqa: S603
        command,
        cwd=stage.directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    yield "log", f"$ {stage.command('20M')} 2>&1 | cat\n{result.stdout.rstrip()}"


def capture(directory: Path) -> dict[str, str]:
    """Return all screens by name."""
    screens: dict[str, str] = {}
    with EmbeddedRegistry(directory / "source", address=SOURCE) as source:
        host = source.host.replace("127.0.0.1", "localhost")
        stage = Stage(
            directory,
            UnreliableRegistry(),
            host,
            f"localhost:{DESTINATION[1]}",
            tuple(fill(host)),
        )
        stage.write_plan(stage.images[:SHOWN])
        runs = [lambda columns=columns: capture_faults(stage, columns) for columns in (80, 40, 200)]
        runs += [lambda: capture_interrupts(stage, 80), lambda: capture_resize(stage)]
        runs.append(lambda: capture_log(stage))
        for run in runs:
            registry = EmbeddedRegistry(
                directory / "destination", address=DESTINATION, behavior=stage.behavior
            )
            with registry:
                for name, shown in run():
                    screens[name] = shown
                    print(f"--- {name}\n{shown}", flush=True)  # noqa: T201
            stage.forget()
    return screens


def fill_page(page: str, screens: dict[str, str]) -> str:
    """Return the page with the screens in its marked blocks."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- screen: {found[1]} -->\n```text\n{screens[found[1]]}\n```"

    return re.sub(r"<!-- screen: (\S+) -->\n```text\n.*?\n```", block, page, flags=re.DOTALL)


def main() -> None:
    """Capture the screens and write the page."""
    page = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "progress.md")
    with tempfile.TemporaryDirectory(prefix="concil-screens-") as name:
        screens = capture(Path(name))
    if page.exists():
        page.write_text(fill_page(page.read_text(), screens))


if __name__ == "__main__":
    main()
