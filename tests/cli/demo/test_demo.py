"""`concil demo`: it shows what it says, verifies it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from concil.cli.demo import command
from concil.cli.demo.image_maker import DemoImageWriter
from concil.cli.demo.registry_process import RegistryProcess
from concil.cli.demo.relay import Relay
from concil.errors import StoreError
from concil.store.layout.store import LayoutDirectory
from tests.cli.runner import PATIENCE, Cli, Program, make_demo_small
from tests.support.tcp_peers import receiving_server


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary files of this process and its children go to a place of their own."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def processes_naming(place: Path) -> list[str]:
    """Return the command lines of running processes with a path in them."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(place) in words:
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.threads_only
def test_a_small_demo_in_this_process(
    cli: Cli, temporary: Path, jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo_small(monkeypatch)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    done = cli("demo", jobs, "--progress=none")

    assert done.code == 0, done.err
    assert "copied    5 images with 14 manifests for 3 platforms: 21 blobs" in done.out
    assert "cut       one connection" in done.out
    assert "5 images up to date" in done.out
    assert "verified  14 manifests" in done.out
    assert list(temporary.iterdir()) == []
    assert processes_naming(temporary) == []


@pytest.mark.slow
def test_the_demo_as_a_user_starts_it(program: Program, temporary: Path) -> None:
    done = program("demo")

    assert done.code == 0, done.err
    assert "96.0 MiB resumed at its offset" in done.out
    assert "all match" in done.out
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupted_demo_leaves_nothing(
    program: Program, temporary: Path, signals: int
) -> None:
    running = program.start("demo", "--progress=json")
    assert running.stderr is not None
    for line in running.stderr:
        if b'"moving"' in line:
            break

    for _ in range(signals):
        running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)

    assert running.returncode == 130
    assert b"interrupted" in err
    assert list(temporary.iterdir()) == []
    assert processes_naming(temporary) == []


@pytest.mark.slow
def test_changed_content_is_an_error(
    cli: Cli, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_LARGE_LAYER_SIZE", 1024 * 1024)
    monkeypatch.setattr(command, "_RATE", 1024 * 1024 * 1024)
    mirror = command._mirror

    def spoil(*arguments: object) -> object:
        result = mirror(*arguments)  # type: ignore[arg-type]
        blobs = next(temporary.iterdir()) / "destination" / "blobs" / "sha256"
        largest = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
        with largest.open("r+b") as file:
            file.write(b"spoiled")
        return result

    monkeypatch.setattr(command, "_mirror", spoil)

    done = cli("demo", "--progress=none", "-q")

    assert done.code == 1
    assert done.raw == b""
    assert "hash to" in done.err
    assert list(temporary.iterdir()) == []


def test_the_images_of_the_demo_share_layers(tmp_path: Path) -> None:
    layout = LayoutDirectory(tmp_path / "layout", create=True)

    made = DemoImageWriter(layout).write_images(100_000)

    assert sorted(layout.names()) == sorted(made.digests)
    assert made.large_layer.size > 100_000
    again = DemoImageWriter(LayoutDirectory(tmp_path / "again", create=True)).write_images(100_000)
    assert again.digests == made.digests


def test_the_link_cuts_one_connection_after_so_many_bytes() -> None:
    with receiving_server() as (host, received):
        name, _, port = host.rpartition(":")
        with Relay((name, int(port)), rate=10**9, cut_after=300_000) as link:
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", link.port), timeout=30) as client:
                    try:
                        for _ in range(10):
                            client.sendall(bytes(64 * 1024))
                        client.shutdown(socket.SHUT_WR)
                        client.recv(1)
                    except OSError:
                        assert link.was_cut
        lengths = sorted(len(received.get(timeout=30)[0]) for _ in range(2))
    assert lengths[1] == 640 * 1024
    assert lengths[0] < 640 * 1024


def test_the_link_drops_clients_whose_server_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with (
        Relay(address, rate=10**9, cut_after=10**9) as link,
        socket.create_connection(("127.0.0.1", link.port), timeout=30) as client,
    ):
        assert client.recv(1) == b""


def test_registry_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "stranger").write_text("x")

    with pytest.raises(StoreError, match="did not start"):
        RegistryProcess(tmp_path / "file")


def test_a_registry_that_hangs_is_killed(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    served = RegistryProcess(tmp_path / "served")
    os.kill(served._process.pid, signal.SIGSTOP)
    waiting = threading.Timer(0, served.kill)
    waiting.start()

    served.close()

    waiting.join()
    assert served._process.returncode == -signal.SIGKILL
