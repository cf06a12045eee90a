"""The screen of a mirror in a terminal and in a log: what it says is true."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from concil.server.behavior import Chunk, RegistryBehavior
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from tests.cli.runner import PATIENCE, Cli, Program
from tests.cli.terminal import Terminal
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_image, put_image
from tests.support.relay import Relay

pytestmark = pytest.mark.process

COUNT = 12  # images
SIZE = 24_000_000  # bytes of the layer of the last one
NAMES = [f"team/app{number}" for number in range(COUNT)]


class LosesSession(RegistryBehavior):
    """A registry that loses a session once, after its first chunk."""

    def __init__(self) -> None:
        self.lost = threading.Event()

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.offset and not self.lost.is_set():
            self.lost.set()
            raise ErrorResponse("BLOB_UPLOAD_UNKNOWN", "no such session", status=404)
        super().check_chunk(chunk)


@pytest.fixture
def plan(registry: EmbeddedRegistry, tmp_path: Path) -> str:
    """Return the name of a list of twelve images, of which the last one is large."""
    for number, name in enumerate(NAMES):
        size = SIZE if number == COUNT - 1 else 10_000
        put_image(registry.url, name, "v1", make_image(number, (size,)))
    (tmp_path / "list").write_text("".join(f"{registry.host}/{name}:v1\n" for name in NAMES))
    return "list"


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "destination") as registry:
        yield registry


def start(
    program: Program, terminal: Terminal, *words: str, **environment: str
) -> subprocess.Popen[bytes]:
    """Start the command line with its messages on a terminal."""
    return subprocess.Popen(
        program.argv(*words),
        cwd=program.directory,
        env={**program.environment(), "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal.stream,
    )


def test_ctrl_c_is_answered_at_once_and_counted_truthfully(
    program: Program, plan: str, destination: EmbeddedRegistry
) -> None:
    with Relay(destination.host, rate=4_000_000) as link, Terminal(100, 24) as terminal:
        running = start(program, terminal, "mirror", plan, f"{link.url}/m")
        terminal.wait_for(f"{COUNT - 1}/{COUNT} images")
        link.wait_for(lambda relay: relay.bytes_up > 6_000_000)
        terminal.type("\x03")
        running.send_signal(signal.SIGINT)
        seen = terminal.wait_for("stopping: 1 chunk to finish")
        end = terminal.wait_for("same command again to resume", seen)
        running.communicate(timeout=PATIENCE)
        screen = terminal.screen().text
        after = terminal.written[seen:end]

    assert running.returncode == 130
    assert f"{COUNT}/{COUNT}" not in after
    assert re.search(
        rf"concil: interrupted: {COUNT - 1} of {COUNT} images done; "
        r"1 transfer can be resumed at \d+\.\d MiB of 22\.9 MiB; run the same command again",
        " ".join(screen.split()),
    )


def test_no_percentage_before_all_images_have_begun(
    program: Program, plan: str, destination: EmbeddedRegistry
) -> None:
    with Terminal(100, 24) as terminal:
        running = start(
            program, terminal, "mirror", plan, f"{destination.url}/m", "--limit-rate=6M"
        )
        out, _ = running.communicate(timeout=PATIENCE)
        headers = re.findall(r"(\d+)/12 images([^\n]*)", _plain(terminal.written))

    assert running.returncode == 0, out
    assert headers
    total = 23.0  # MiB
    shown = [re.search(r"of (\d+\.\d) MiB .*?(\d+)%", rest) for _, rest in headers]
    assert any(shown)
    assert all(abs(float(found[1]) - total) < 0.2 for found in shown if found)


def killed_push(program: Program, link: Relay) -> tuple[str, ...]:
    """Kill the push of ``model.bin`` after its first chunk; return the words that repeat it."""
    words = ("blob", "push", "model.bin", f"{link.url}/models")
    running = program.start(*words)
    link.wait_for(lambda relay: relay.bytes_up > 11_000_000)
    running.kill()
    running.communicate(timeout=PATIENCE)
    return words


def test_a_second_push_says_that_it_resumes(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    with Relay(registry.host, rate=6_000_000) as link:
        words = killed_push(program, link)
        with Terminal(140, 24) as terminal:  # wide enough for the note to stay
            running = start(program, terminal, *words)
            terminal.wait_for("resumed at")
            row = terminal.screen().text.splitlines()[-1]
            link.rate = None
            running.communicate(timeout=PATIENCE)
        again = program(*words)

    assert row.startswith("model.bin")
    assert again.code == running.returncode == 0


def test_a_log_says_that_a_transfer_is_resumed(
    program: Program, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    with Relay(registry.host, rate=6_000_000) as link:
        words = killed_push(program, link)
        again = program(*words)

    assert again.code == 0
    assert re.search(r"resuming    model\.bin at \d+\.\d MiB of 22\.9 MiB\n", again.err)


class ForgetsSessions(RegistryBehavior):
    """A registry that has dropped every session when it is asked for its status."""

    def before_request(self, request: Request) -> Response | None:
        if request.method == "GET" and "/uploads/" in request.path:
            raise ErrorResponse("BLOB_UPLOAD_UNKNOWN", "no such session", status=404)
        return None


def test_a_later_process_says_that_the_registry_dropped_the_session(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    with (
        EmbeddedRegistry(tmp_path / "forgetful", behavior=ForgetsSessions()) as registry,
        Relay(registry.host, rate=6_000_000) as link,
    ):
        words = killed_push(program, link)
        plain = program(*words)

    assert plain.code == 0
    assert plain.err == (
        "concil: warning: the registry dropped the upload session of model.bin: starting again; "
        "10.0 MiB had been sent\n"
    )


def test_the_row_of_a_blob_says_that_its_session_is_lost(program: Program, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    with (
        EmbeddedRegistry(tmp_path / "forgetful", behavior=ForgetsSessions()) as registry,
        Relay(registry.host, rate=6_000_000) as link,
    ):
        words = killed_push(program, link)
        with Terminal(140, 24) as terminal:
            running = start(program, terminal, *words)
            terminal.wait_for("restarted: session lost")
            link.rate = None
            running.communicate(timeout=PATIENCE)

    assert running.returncode == 0


@pytest.mark.real
def test_docker_registry_drops_the_session_of_a_broken_chunk(
    program: Program, fresh_docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(content := os.urandom(SIZE))
    with Relay(fresh_docker_registry.host, rate=6_000_000) as link:
        words = killed_push(program, link)
        again = program(*words)

    # It may notice the broken connection before or after it is asked for the status.
    assert again.code == 0
    assert re.search(
        "dropped the upload session of model.bin: starting again|starting over", again.err
    )
    assert json.loads(again.out)["digest"] == digest_of(content)


def test_a_lost_session_is_said(program: Program, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(SIZE))
    behavior = LosesSession()
    with (
        EmbeddedRegistry(tmp_path / "destination", behavior=behavior) as registry,
        Relay(registry.host, rate=8_000_000) as link,
        Terminal(120, 24) as terminal,
    ):
        running = start(program, terminal, "blob", "push", "model.bin", f"{link.url}/models")
        terminal.wait_for("session lost")
        link.rate = None
        running.communicate(timeout=PATIENCE)

    assert running.returncode == 0
    assert behavior.lost.is_set()


def test_verbose_names_each_blob_and_each_host_without_tls_once(
    cli_here: Cli, plan: str, registry: EmbeddedRegistry, destination: EmbeddedRegistry, jobs: str
) -> None:
    result = cli_here("-v", "mirror", jobs, plan, f"{destination.host}/m")

    lines = result.err.splitlines()
    assert result.code == 0
    sent = [line for line in lines if re.search(r"sha256:\w{64} sent \(", line)]
    assert len(sent) == 2 * COUNT  # a config and a layer of each image
    assert sorted(line for line in lines if "TLS" in line) == sorted(
        f"concil: https://{host} does not support TLS; using plain http"
        for host in (registry.host, destination.host)
    )


def test_one_pause_is_one_line(cli_here: Cli, plan: str, tmp_path: Path) -> None:
    class Busy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        count = 0

        def do_GET(self) -> None:
            Busy.count += 1
            self.send_response(429 if Busy.count <= 3 else 404)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815  # as the server calls it

        def log_message(self, *_arguments: object) -> None:
            """Write nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        few = tmp_path / "few.txt"
        few.write_text("".join(Path(plan).read_text().splitlines(keepends=True)[:4]))
        result = cli_here("mirror", few, f"http://{host}/team")
        server.shutdown()

    warnings = [line for line in result.err.splitlines() if line.startswith("concil: warning:")]
    assert len(warnings) == 1
    assert re.fullmatch(
        rf"concil: warning: {host}: too many requests; resuming in 1\.0 s with \d+\.\d requests/s",
        warnings[0],
    )


def test_a_log_has_a_line_for_each_image(
    cli_here: Cli, plan: str, registry: EmbeddedRegistry, destination: EmbeddedRegistry, jobs: str
) -> None:
    first = cli_here("mirror", jobs, plan, f"{destination.host}/m")
    with Path(plan).open("a") as file:
        file.write(f"{registry.host}/team/gone:v1\n")
    second = cli_here("mirror", jobs, plan, f"{destination.host}/m")

    sources = sorted(f"{registry.host}/{name}:v1" for name in NAMES)
    copied = [line.split()[1] for line in first.err.splitlines() if line.startswith("copied")]
    present = [line.split()[3] for line in second.err.splitlines() if line.startswith("up to")]
    assert sorted(copied) == sorted(present) == sources
    [failed] = [line for line in second.err.splitlines() if line.startswith("failed")]
    assert failed.startswith(f"failed      {registry.host}/team/gone:v1: ")
    assert "404" in failed


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[\d*[A-Za-z]", "", text).replace("\r", "\n")
